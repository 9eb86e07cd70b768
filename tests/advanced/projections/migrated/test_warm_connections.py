"""A migration meets connections whose driver has kept statements and types of the table as it was."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import registry

from cqrs_ddd_advanced_core import StoredEvent
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionPositionStore, SQLAlchemyProjectionStore
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.tables import build_table
from cqrs_ddd_persistence_sqlalchemy.core.scope import SessionScope, repeated
from cqrs_ddd_persistence_sqlalchemy.exceptions import TableChangedError, UnitOfWorkError
from tests.advanced.projections.migrated.accounts import (
    CHANGES,
    FIELDS,
    METHODS,
    TABLE,
    migrate,
    run_elsewhere,
    schema_of,
    seed,
    warm,
)
from tests.support.kinds import ONLY_POSTGRESQL
from tests.support.pgbouncer import is_wanted


def in_common(answer):
    """Leave the columns that come and go out of an answer."""
    if isinstance(answer, list):
        return [in_common(each) for each in answer]
    if isinstance(answer, dict):
        return {name: value for name, value in answer.items() if name in FIELDS and name != "note"}
    return answer


@pytest.mark.parametrize("name", CHANGES)
async def test_every_method_survives_a_migration(database, engine, store, name):
    """Each method as the first to meet a changed table on warm connections: it answers as if nothing had happened."""
    await warm(engine, 2)
    answers = {}
    for method, call in METHODS.items():
        answers[method] = []
        for _ in range(4):  # on each connection, from a statement that the driver has kept
            await seed(store)
            expected = in_common(await call(store))
        for back in (False, True):
            await seed(store)
            await migrate(database, engine, CHANGES[name], back=back)
            answers[method].append(in_common(await call(store)))
        assert answers[method] == [expected, expected], method


async def test_a_full_pool_of_warm_connections_survives(database, engine, store):
    """Forty reads at once on ten connections that have all kept a statement of the table as it was."""
    await warm(engine, 10)
    await seed(store)
    for name in ("text widened", "integer widened", "column dropped"):
        for _ in range(10):
            await store.find_one("accounts", "a1")
        await migrate(database, engine, CHANGES[name])
        found = await asyncio.gather(*(store.find_one("accounts", "a1") for _ in range(40)))
        assert [row["points"] for row in found] == [5] * 40
        await migrate(database, engine, CHANGES[name], back=True)
        assert [row["points"] for row in await store.find_many("accounts", ["a1"] * 3)] == [5] * 3


@pytest.mark.skipif(is_wanted(), reason="statements have no names behind the proxy, and so are never out of date")
@ONLY_POSTGRESQL
@pytest.mark.parametrize("name", ["text widened", "column dropped"])
async def test_a_unit_of_work_that_loses_its_transaction_is_told_and_succeeds_when_repeated(
    database, engine, session_factory, store, name
):
    """One clear error, once, after which nothing of the unit can be committed; the same unit again goes through."""
    positions = SQLAlchemyProjectionPositionStore(session_factory)
    await warm(engine, 10)
    await seed(store)

    async def project(uow, *, migrating):
        await positions.save_position("accounts", 5, uow=uow)
        if migrating:
            await migrate(database, engine, CHANGES[name])
        row = await store.find_one("accounts", "a1", uow=uow)
        await store.upsert("accounts", "a1", {"points": row["points"] + 1}, uow=uow)

    for _ in range(10):
        await store.find_one("accounts", "a1")
    uow = SQLAlchemyUnitOfWork(session_factory)
    async with uow:
        with pytest.raises(TableChangedError, match="changed the table of collection 'accounts' .* roll back and try"):
            await project(uow, migrating=True)
        with pytest.raises(UnitOfWorkError, match="cannot commit"):
            await uow.commit()
    assert await positions.get_position("accounts") is None
    async with uow:
        await project(uow, migrating=False)
    assert (await store.find_one("accounts", "a1"))["points"] == 6
    assert await positions.get_position("accounts") == 5


@pytest.mark.parametrize("name", ["text widened", "column dropped"])
async def test_the_first_operation_of_a_unit_of_work_loses_nothing(database, engine, session_factory, store, name):
    """Where nothing was done before, the unit of work is begun again and the caller sees no error."""
    await seed(store)
    for _ in range(2):
        await store.find_one("accounts", "a1")
    await migrate(database, engine, CHANGES[name])
    called = []
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        uow.on_commit(lambda: called.append(True))
        assert (await store.find_one("accounts", "a1", uow=uow))["points"] == 5
        await store.upsert("accounts", "a1", {"points": 6}, uow=uow)
    assert (await store.find_one("accounts", "a1"))["points"] == 6
    assert called == [True]


async def test_an_operation_gives_up_when_migrations_do_not_end():
    """Five attempts, and then the error is the caller's."""
    attempts = []

    class Store:
        _scope = SessionScope("Store")

        @repeated
        async def read(self, *, uow=None):
            attempts.append(uow)
            raise TableChangedError("changed")

    with pytest.raises(TableChangedError, match="changed"):
        await Store().read()
    assert attempts == [None] * 5


@ONLY_POSTGRESQL
async def test_a_new_store_on_warm_connections_loses_no_savepoint(database, engine, session_factory, reader):
    """The driver's memory is older than the store's: a batch in a unit of work heals all the same."""
    await warm(engine, 2)

    async def write_a_part(store, uow):
        with pytest.raises(ValueError, match="a new one needs owner"):
            await store.bulk_upsert("accounts", [{"id": "new", "points": 1}], uow=uow)

    for _ in range(3):
        await write_a_part(reader, None)
    await run_elsewhere(database, f'{TABLE} ALTER "_version" TYPE BIGINT')
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await SQLAlchemyProjectionPositionStore(session_factory).save_position("p", 1, uow=uow)
        await write_a_part(SQLAlchemyProjectionStore(session_factory), uow)
        await reader.upsert("accounts", "a1", {"points": 9}, uow=uow)
    assert (await reader.find_one("accounts", "a1"))["points"] == 9


@ONLY_POSTGRESQL
async def test_the_other_stores_survive_a_changed_table_too(database, engine, session_factory):
    """The event store and the positions: every read, and the append that returns what it stored."""
    events, positions = SQLAlchemyEventStore(session_factory), SQLAlchemyProjectionPositionStore(session_factory)
    number = 0

    async def append():
        nonlocal number
        number += 1
        event = StoredEvent(aggregate_id=f"s{number}", event_type="Paid", payload={})
        return len(await events.append(iter([event])))

    calls = {
        "append": append,
        "get_events": lambda: events.get_events("s1"),
        "get_events_after": lambda: events.get_events_after(0, limit=1),
        "last_position": events.last_position,
        "get_position": lambda: positions.get_position("p"),
        "save_position": lambda: positions.save_position("p", 5),
        "conflict": lambda: positions.save_position("p", 5, expected=5),
        "reset": lambda: positions.reset_position("nope"),
        "all_positions": positions.all_positions,
    }
    await warm(engine, 3)
    await append()
    await positions.save_position("p", 5)
    types = {"BIGINT": "NUMERIC", "NUMERIC": "BIGINT"}
    now = "BIGINT"
    for name, call in calls.items():
        for _ in range(3):
            expected = await call()
        now = types[now]
        await run_elsewhere(
            database,
            f"ALTER TABLE projection_positions ALTER position TYPE {now}",
            f"ALTER TABLE events ALTER event_type TYPE {'TEXT' if now == 'NUMERIC' else 'VARCHAR(255)'}",
        )
        found = await call()
        assert found == expected, name


@ONLY_POSTGRESQL
async def test_a_type_that_the_driver_remembers_costs_the_pool_and_no_error(database, engine, session_factory):
    """A composite type, outside the grammar, that got another attribute: all its connections are replaced."""
    await run_elsewhere(
        database,
        "CREATE TYPE pair AS (a INTEGER)",
        "CREATE TABLE pairs (id INTEGER PRIMARY KEY, pair pair)",
        "INSERT INTO pairs VALUES (1, ROW(1))",
    )
    store = SQLAlchemyProjectionStore(session_factory)
    await warm(engine, 3)
    for _ in range(6):
        await store.find_one("pairs", 1)
    await run_elsewhere(database, "ALTER TYPE pair ADD ATTRIBUTE b INTEGER")
    for _ in range(6):
        assert tuple((await store.find_one("pairs", 1))["pair"]) == (1, None)


class Loaded:
    """An object that a session has loaded."""


@pytest.mark.skipif(is_wanted(), reason="statements have no names behind the proxy, and so are never out of date")
@ONLY_POSTGRESQL
async def test_what_a_session_has_loaded_is_not_expired(database, engine, session_factory, reader):
    """Beginning again would make a session forget its objects' values: then the caller is told instead."""
    mapped = registry()
    mapped.map_imperatively(Loaded, build_table(schema_of(), sa.MetaData()))
    for _ in range(2):
        await reader.find_one("accounts", "a1")
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        loaded = await uow.session.get(Loaded, "a1")
        await uow.commit()
        await migrate(database, engine, CHANGES["text widened"])
        with pytest.raises(TableChangedError):
            await reader.find_one("accounts", "a1", uow=uow)
        assert loaded.points == 5
        await uow.rollback()
    mapped.dispose()
