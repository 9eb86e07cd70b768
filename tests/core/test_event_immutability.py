"""Events cannot be changed by ordinary SQL, and only inside allow_changes() by SQL that means it."""
# ruff: noqa: PT012, ARG002  (what must fail is the end of a block; fixtures are asked for their effect)

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError, UnitOfWorkError
from tests.support.events import an_event
from tests.support.kinds import ONLY_POSTGRESQL

REFUSED = "events are immutable"

COLUMNS = "event_id, aggregate_id, aggregate_type, event_type, version, payload, metadata, occurred_at"
VALUES = "'e-9', 'order-1', '', 'Forged', 1, '{}', '{}', '2024-01-01 00:00:00+00'"

#: Statements that change or remove what is stored, for each database.
CHANGES = {
    "postgresql": {
        "update": "UPDATE events SET payload = '{}'",
        "update of no row": "UPDATE events SET payload = '{}' WHERE position = 99",
        "delete": "DELETE FROM events",
        "delete of one": "DELETE FROM events WHERE position = 1",
        "truncate": "TRUNCATE events",
        "truncate cascade": "TRUNCATE events RESTART IDENTITY CASCADE",
        "upsert": f"INSERT INTO events ({COLUMNS}) VALUES ({VALUES}) "
        "ON CONFLICT (aggregate_id, version) DO UPDATE SET payload = excluded.payload",
        "upsert of nothing": f"INSERT INTO events ({COLUMNS}) VALUES ({VALUES}) "
        "ON CONFLICT (event_id) DO UPDATE SET payload = excluded.payload WHERE false",
        "update from": "UPDATE events SET event_type = 'Forged' FROM events AS e WHERE e.position = events.position",
        "delete in a query": "WITH gone AS (DELETE FROM events RETURNING *) SELECT count(*) FROM gone",
        "truncate of two": "TRUNCATE projection_positions, events",
    },
    "sqlite": {
        "update": "UPDATE events SET payload = '{}'",
        "update or replace": "UPDATE OR REPLACE events SET version = 1",
        "update or ignore": "UPDATE OR IGNORE events SET event_type = 'Forged'",
        "delete": "DELETE FROM events",
        "delete of one": "DELETE FROM events WHERE position = 1",
        "insert or replace (version)": f"INSERT OR REPLACE INTO events ({COLUMNS}) VALUES ({VALUES})",
        "insert or replace (event_id)": f"INSERT OR REPLACE INTO events ({COLUMNS}) "
        f"VALUES ({VALUES.replace('e-9', 'e-1').replace('order-1', 'new')})",
        "insert or replace (position)": f"INSERT OR REPLACE INTO events (position, {COLUMNS}) "
        f"VALUES (1, {VALUES.replace('order-1', 'new')})",
        "replace": f"REPLACE INTO events ({COLUMNS}) VALUES ({VALUES})",
        "upsert": f"INSERT INTO events ({COLUMNS}) VALUES ({VALUES}) "
        "ON CONFLICT (aggregate_id, version) DO UPDATE SET payload = excluded.payload",
        "upsert by event_id": f"INSERT INTO events ({COLUMNS}) VALUES ({VALUES.replace('e-9', 'e-1')}) "
        "ON CONFLICT (event_id) DO UPDATE SET payload = '{}'",
    },
}

CASES = [
    pytest.param(kind, statement, id=f"{kind}-{name}")
    for kind, statements in CHANGES.items()
    for name, statement in statements.items()
]


async def execute(engine, statement):
    async with engine.begin() as connection:
        await connection.execute(sa.text(statement))


async def payloads(session_factory):
    store = SQLAlchemyEventStore(session_factory)
    return [event.payload async for event in store.stream_after(0)]


async def triggers(engine):
    """Return the names of the triggers that are on the table."""
    async with engine.connect() as connection:
        await connection.execution_options(sqlite_begin="DEFERRED")
        if engine.dialect.name == "sqlite":
            statement = "SELECT name FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
        else:
            statement = "SELECT tgname FROM pg_trigger WHERE tgrelid = 'events'::regclass ORDER BY tgname"
        return list(await connection.scalars(sa.text(statement)))


@pytest.fixture
async def store(session_factory):
    """A store with two events in it."""
    made = SQLAlchemyEventStore(session_factory)
    await made.append([an_event(event_id=event_id, payload={"name": "Ada"}) for event_id in ("e-1", "e-2")])
    return made


ERASE = "UPDATE events SET payload = '{}' WHERE aggregate_id = 'order-1'"
REMOVE = "DELETE FROM events WHERE position = 2"


async def is_refused(uow):
    """See a change refused, in a savepoint, so that the unit of work can go on."""
    with pytest.raises(DBAPIError, match=REFUSED):
        async with uow.session.begin_nested():
            await uow.session.execute(sa.text(ERASE))


class TestRefusal:
    @pytest.mark.parametrize(("database", "statement"), CASES, indirect=["database"])
    async def test_of_every_statement_that_changes_events(self, store, engine, session_factory, statement):
        """UPDATE, DELETE, TRUNCATE, REPLACE and upserts are refused by the database itself."""
        with pytest.raises(DBAPIError, match=REFUSED):
            await execute(engine, statement)
        assert await payloads(session_factory) == [{"name": "Ada"}] * 2

    @ONLY_POSTGRESQL
    @pytest.mark.parametrize("statement", CHANGES["postgresql"].values(), ids=CHANGES["postgresql"])
    async def test_does_not_depend_on_there_being_events(self, engine, session_factory, statement):
        """PostgreSQL refuses the statement as such, on an empty table too."""
        with pytest.raises(DBAPIError, match=REFUSED):
            await execute(engine, statement)
        assert await payloads(session_factory) == []

    async def test_names_the_operation_and_the_way_out(self, store, engine):
        """The error names what was refused; PostgreSQL's also names allow_changes()."""
        with pytest.raises(DBAPIError, match="events are immutable: UPDATE is refused") as caught:
            await execute(engine, ERASE)
        if engine.dialect.name == "postgresql":
            assert "SQLAlchemyEventStore.allow_changes()" in caught.value.orig.__cause__.hint

    async def test_of_a_change_swallowed_in_a_unit_of_work_refuses_the_commit(self, store, session_factory):
        """A refused change is an error of the database like any other: the commit is refused."""
        with pytest.raises(UnitOfWorkError, match="cannot commit"):
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                with pytest.raises(DBAPIError, match=REFUSED):
                    await uow.session.execute(sa.text(ERASE))

    async def test_leaves_appending_alone(self, store):
        """Appending, and being refused a version that is taken, works as if the triggers were not there."""
        with pytest.raises(OptimisticConcurrencyError):
            await store.append([an_event(version=1)])
        with pytest.raises(OptimisticConcurrencyError):
            await store.append([an_event("b"), an_event("b", event_id="e-1")])
        assert len(await store.append([an_event("b")])) == 1


class TestAllowChanges:
    @pytest.mark.parametrize("statement", [ERASE, REMOVE])
    async def test_permits_inside_and_refuses_after(self, store, engine, session_factory, statement):
        """Inside the block events change with the unit of work, after it they do not, in the same transaction."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            async with store.allow_changes(uow=uow):
                await uow.session.execute(sa.text(statement))
            await is_refused(uow)
        assert await payloads(session_factory) == ([{}, {}] if statement == ERASE else [{"name": "Ada"}])
        with pytest.raises(DBAPIError, match=REFUSED):
            await execute(engine, ERASE)

    async def test_restores_what_protects_the_events(self, store, engine, session_factory):
        """After the block the table's triggers are exactly the ones before."""
        before = await triggers(engine)
        assert before
        async with SQLAlchemyUnitOfWork(session_factory) as uow, store.allow_changes(uow=uow):
            await uow.session.execute(sa.text(ERASE))
        assert await triggers(engine) == before

    async def test_may_be_repeated(self, store, session_factory):
        """Several blocks in one transaction, and in the next, all permit."""
        for _ in range(2):
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                for name in ("Grace", "Edsger"):
                    async with store.allow_changes(uow=uow):
                        await uow.session.execute(sa.text(f"""UPDATE events SET payload = '{{"name": "{name}"}}'"""))
        assert await payloads(session_factory) == [{"name": "Edsger"}] * 2

    async def test_may_be_nested(self, store, session_factory):
        """The end of an inner block does not end the outer one's permission."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            async with store.allow_changes(uow=uow):
                async with store.allow_changes(uow=uow):
                    await uow.session.execute(sa.text(ERASE))
                await uow.session.execute(sa.text(REMOVE))
            await is_refused(uow)
        assert await payloads(session_factory) == [{}]

    async def test_refuses_another_connection_meanwhile(self, store, engine, session_factory, stock_engine, database):
        """While one unit of work may change events, another connection may not."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow, store.allow_changes(uow=uow):
            await uow.session.execute(sa.text(REMOVE))
            # SQLite has one writer at a time: the other one does not even get as far as the triggers.
            refusal = REFUSED if database.kind == "postgresql" else "database is locked"
            with pytest.raises(DBAPIError, match=refusal):
                async with stock_engine.connect() as other:
                    if database.kind == "sqlite":
                        await other.exec_driver_sql("PRAGMA busy_timeout = 0")
                    await other.execute(sa.text("DELETE FROM events WHERE position = 1"))
        assert len(await payloads(session_factory)) == 1

    async def test_is_gone_after_a_rollback(self, store, engine, session_factory):
        """rollback() after the block takes back the changes and leaves the events protected."""
        before = await triggers(engine)
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            async with store.allow_changes(uow=uow):
                await uow.session.execute(sa.text(ERASE))
            await uow.rollback()
            await is_refused(uow)
        assert await payloads(session_factory) == [{"name": "Ada"}] * 2
        assert await triggers(engine) == before

    async def test_is_gone_after_a_rollback_inside(self, store, engine, session_factory):
        """rollback() inside the block ends the permission, and the block ends normally."""
        before = await triggers(engine)
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            async with store.allow_changes(uow=uow):
                await uow.session.execute(sa.text(ERASE))
                await uow.rollback()
            await is_refused(uow)
        assert await payloads(session_factory) == [{"name": "Ada"}] * 2
        assert await triggers(engine) == before

    async def test_does_not_outlive_a_commit_inside(self, store, engine, session_factory):
        """commit() inside the block keeps the changes and leaves no gap in which others may change events."""
        before = await triggers(engine)
        async with SQLAlchemyUnitOfWork(session_factory) as uow, store.allow_changes(uow=uow):
            await uow.session.execute(sa.text(ERASE))
            await uow.commit()
            assert await triggers(engine) == before
            with pytest.raises(DBAPIError, match=REFUSED):
                await execute(engine, REMOVE)
        assert await payloads(session_factory) == [{}, {}]
        assert await triggers(engine) == before

    async def test_is_gone_after_an_exception_that_is_swallowed_outside(self, store, engine, session_factory):
        """An exception inside the block, caught before the unit of work ends, ends the permission for good."""
        before = await triggers(engine)
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            with pytest.raises(LookupError, match="mine"):
                async with store.allow_changes(uow=uow):
                    await uow.session.execute(sa.text(REMOVE))
                    raise LookupError("mine")
            await is_refused(uow)
        assert await triggers(engine) == before
        with pytest.raises(DBAPIError, match=REFUSED):
            await execute(engine, ERASE)

    async def test_is_gone_after_an_exception_that_ends_the_unit_of_work(self, store, engine, session_factory):
        """An exception that leaves the unit of work propagates unchanged and leaves everything as it was."""
        before = await triggers(engine)
        with pytest.raises(LookupError, match="mine"):
            async with SQLAlchemyUnitOfWork(session_factory) as uow, store.allow_changes(uow=uow):
                await uow.session.execute(sa.text(REMOVE))
                raise LookupError("mine")
        assert await payloads(session_factory) == [{"name": "Ada"}] * 2
        assert await triggers(engine) == before

    async def test_is_gone_after_an_error_of_the_database(self, store, engine, session_factory):
        """An error of the database inside the block propagates unchanged and leaves everything as it was."""
        before = await triggers(engine)
        with pytest.raises(DBAPIError, match="nonsense"):
            async with SQLAlchemyUnitOfWork(session_factory) as uow, store.allow_changes(uow=uow):
                await uow.session.execute(sa.text(REMOVE))
                await uow.session.execute(sa.text("SELECT nonsense"))
        assert await payloads(session_factory) == [{"name": "Ada"}] * 2
        assert await triggers(engine) == before

    async def test_is_gone_with_a_savepoint_around_it(self, store, engine, session_factory):
        """A savepoint that is rolled back takes back the changes made in a block inside it, and the permission."""
        before = await triggers(engine)
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            with pytest.raises(LookupError, match="mine"):
                async with uow.session.begin_nested(), store.allow_changes(uow=uow):
                    await uow.session.execute(sa.text(REMOVE))
                    raise LookupError("mine")
            await is_refused(uow)
        assert await payloads(session_factory) == [{"name": "Ada"}] * 2
        assert await triggers(engine) == before

    async def test_appending_goes_on_inside(self, store, session_factory):
        """Retention may append, to say what it removed, while it may change events."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow, store.allow_changes(uow=uow):
            await uow.session.execute(sa.text(REMOVE))
            [stored] = await store.append([an_event("retention", event_type="Removed")], uow=uow)
            assert stored.position == 3
        assert len(await payloads(session_factory)) == 2

    async def test_a_removed_position_is_not_given_again(self, store, session_factory):
        """Positions of removed events stay unused, the last one's too."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow, store.allow_changes(uow=uow):
            await uow.session.execute(sa.text("DELETE FROM events"))
        [stored] = await store.append([an_event("b")])
        assert stored.position == 3
        assert [event.position async for event in store.stream_after(0)] == [3]

    async def test_works_on_a_stock_engine(self, store, stock_engine, session_factory):
        """An engine without any settings permits and protects in the same way."""
        before = await triggers(stock_engine)
        factory = async_sessionmaker(stock_engine)
        async with SQLAlchemyUnitOfWork(factory) as uow:
            async with store.allow_changes(uow=uow):
                await uow.session.execute(sa.text(ERASE))
            await uow.rollback()
            async with store.allow_changes(uow=uow):
                await uow.session.execute(sa.text(REMOVE))
        assert await payloads(session_factory) == [{"name": "Ada"}]
        assert await triggers(stock_engine) == before

    async def test_needs_an_open_unit_of_work(self, store, session_factory):
        """Without an open unit of work there is no transaction for the permission to end with."""
        with pytest.raises(UnitOfWorkError, match="changing events needs an open unit of work"):
            async with store.allow_changes(uow=SQLAlchemyUnitOfWork(session_factory)):
                pass
