"""Handlers that do what is not theirs to do: found out, and without harm."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
import sqlalchemy as sa

from cqrs_ddd_advanced_core import StoredEvent
from cqrs_ddd_advanced_core.exceptions import SchemaError
from cqrs_ddd_advanced_core.projections import Fold, Projection, ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy.exceptions import ProjectionPausedError, SchemaOutOfDateError, TableChangedError
from tests.advanced.running.conftest import accounts, count, paid


async def commit(view):
    await view.uow.commit()


async def commit_session(view):
    await view.uow.session.commit()


async def commit_connection(view):
    await (await view.uow.session.connection()).commit()


async def roll_back(view):
    await view.uow.rollback()


async def roll_back_session(view):
    await view.uow.session.rollback()


@pytest.mark.parametrize("end", [commit, commit_session, commit_connection, roll_back, roll_back_session])
async def test_a_handler_that_ends_the_transaction_fails(bank, end):
    """Rows without their position, or the position without its rows, never commit."""
    await bank.append(paid("a"), paid("b"))

    async def handler(event, view):
        await count(event, view)
        if event.aggregate_id == "b":
            await end(view)

    with pytest.raises(ProjectionPausedError, match="a handler (leaves the commit to the runner|has rolled back)"):
        await bank.runner(accounts(handler), max_attempts=1).catch_up()
    assert await bank.totals() == {"a": (1, 1)}
    assert await bank.position() == 1


async def test_a_savepoint_is_a_handlers_own(bank):
    """What is rolled back to it is gone, and the batch commits."""
    await bank.append(paid("a"), paid("b"))

    async def handler(event, view):
        savepoint = await view.uow.session.begin_nested()
        await count(event, view)
        await (savepoint.commit() if event.aggregate_id == "a" else savepoint.rollback())

    assert await bank.runner(accounts(handler)).catch_up() == 2
    assert await bank.totals() == {"a": (1, 1)}


async def test_a_handlers_own_cancellation_is_a_failure(bank):
    """It must not end the runner without a word."""
    await bank.append(paid("a"))

    async def handler(_event, _view):
        raise asyncio.CancelledError

    with pytest.raises(ProjectionPausedError, match="CancelledError"):
        await bank.runner(accounts(handler), max_attempts=1).catch_up()


async def test_spellings_of_a_key_are_one_row(bank):
    """A UUID as text, in upper and lower case, and as such: the batch has one row for it, as the database has."""
    schema = ProjectionSchema("things", [("id", "UUID PRIMARY KEY"), ("n", "INTEGER")])
    await bank.make(schema)
    uid = UUID("abcdefab-0000-0000-0000-000000000000")
    names = iter([str(uid), str(uid).upper(), uid, uid.hex])

    def counted(row, _event):
        return {"n": (row["n"] if row else 0) + 1}

    things = Projection("things", schema, {"Counted": Fold(counted, lambda _event: next(names))})
    await bank.append(*(StoredEvent(aggregate_id="a", event_type="Counted", payload={}) for _ in range(4)))
    await bank.runner(things).catch_up()
    assert await bank.store.find("things") == [{"id": uid, "n": 4}]


async def test_a_table_behind_its_schema_is_waited_for(bank):
    """A column that is not migrated yet is no event's fault: nothing is counted, and the error says what to run."""
    await bank.make(ProjectionSchema("things", [("id", "TEXT PRIMARY KEY"), ("n", "INTEGER")]))
    await bank.store.upsert("things", "a", {"n": 1})
    newer = ProjectionSchema(
        "things", [("id", "TEXT PRIMARY KEY"), ("n", "INTEGER"), ("m", "INTEGER NOT NULL DEFAULT 0"), ("o", "TEXT")]
    )
    things = Projection("things", newer, {"Counted": Fold(lambda row, _event: {"n": (row or {"n": 0})["n"] + 1})})
    runner = bank.runner(things)
    await bank.append(*(StoredEvent(aggregate_id="a", event_type="Counted", payload={}) for _ in range(2)))
    with pytest.raises(TableChangedError):  # the store takes the difference for a migration, and looks again
        await runner.catch_up()
    assert await runner.catch_up() == 2  # a row that is there has what the fold needs
    await bank.append(*(StoredEvent(aggregate_id="b", event_type="Counted", payload={}) for _ in range(2)))
    with pytest.raises(SchemaOutOfDateError, match="run: alembic upgrade head"):
        await runner.catch_up()
    assert (await bank.status()).failures == 0


@pytest.mark.parametrize("name", ["", "x" * 256, "a\0b", "\ud800", 5])
def test_a_name_that_cannot_be_stored_is_refused(name):
    """When the projection is made."""
    with pytest.raises(SchemaError, match="a projection's name has"):
        Projection(name, ProjectionSchema("things", [("id", "TEXT PRIMARY KEY")]))


async def test_the_names_of_rebuilds_are_theirs(bank):
    """A rebuild would take such a projection's position for its own."""
    with pytest.raises(ValueError, match=r"names that end in ' \(rebuild\)' are those of rebuilds"):
        bank.runner(accounts(count).renamed("accounts (rebuild)", accounts(count).schema))


async def test_an_error_about_a_column_called_locked_is_no_lock(bank):
    """What is waited for is told by the databases' codes: the words of a message may be anybody's."""
    await bank.make(ProjectionSchema("things", [("id", "TEXT PRIMARY KEY"), ("locked", "BOOLEAN NOT NULL")]))
    await bank.append(paid("a"))

    async def handler(_event, view):
        await view.uow.session.execute(sa.text("INSERT INTO things (id) VALUES ('busy')"))

    with pytest.raises(ProjectionPausedError, match="locked"):
        await bank.runner(accounts(handler), max_attempts=1).catch_up()
