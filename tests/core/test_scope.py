"""Whose transaction is it? Every way of giving a store a unit of work, and none."""
# ruff: noqa: PT012, ARG002  (what must fail is the end of a block; fixtures are asked for their effect)

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from cqrs_ddd_advanced_core import StoredEvent
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork, configure_engine
from cqrs_ddd_persistence_sqlalchemy.exceptions import (
    OptimisticConcurrencyError,
    PersistenceError,
    SchemaOutOfDateError,
    UnitOfWorkError,
)
from tests.conftest import check_no_leaks
from tests.support.engines import create_async_engine

NOTES = sa.table("projection_positions", sa.column("projection_name"), sa.column("position"))


class Base(DeclarativeBase):
    pass


class Note(Base):
    """An application's own ORM class; it borrows a table that is in every migrated database."""

    __tablename__ = "projection_positions"
    projection_name: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]


def note(name):
    return sa.insert(NOTES).values(projection_name=name, position=1)


async def notes(engine):
    """Return what a bystander sees, who waits for nobody."""
    async with engine.connect() as connection:
        await connection.execution_options(sqlite_begin="DEFERRED")
        return list(await connection.scalars(sa.select(NOTES.c.projection_name).order_by(NOTES.c.projection_name)))


def an_event(stream="order-1", **given):
    return StoredEvent(**{"aggregate_id": stream, "event_type": "Placed", "payload": {}} | given)


def checked_out(engine):
    return engine.sync_engine.pool.checkedout()


async def versions(session_factory, stream="order-1"):
    return [event.version for event in await SQLAlchemyEventStore(session_factory).get_events(stream)]


@pytest.fixture
async def make_engine():
    """Makes engines without any settings; they are checked for leaks, and disposed of however the test ends."""
    async with AsyncExitStack() as stack:

        def make(url, **options):
            engine = create_async_engine(url, **options)
            stack.push_async_callback(check_no_leaks, engine)
            return engine

        yield make


class TestNothingGiven:
    @pytest.mark.parametrize("operation", ["append", "get_events", "get_events_after", "last_position", "stream_after"])
    async def test_says_what_to_pass(self, operation):
        """A store without a session factory, a uow factory and `uow=` says by name what it needs."""
        store = SQLAlchemyEventStore()
        with pytest.raises(
            UnitOfWorkError,
            match=r"SQLAlchemyEventStore has no transaction to work in: pass uow=, .* session_factory or uow_factory",
        ):
            match operation:
                case "append":
                    await store.append([an_event()])
                case "get_events":
                    await store.get_events("order-1")
                case "get_events_after":
                    await store.get_events_after(0)
                case "last_position":
                    await store.last_position()
                case _:
                    [event async for event in store.stream_after(0)]

    async def test_a_subclass_is_named_by_its_own_name(self):
        """The error names the class that the caller knows."""

        class OrderEvents(SQLAlchemyEventStore):
            pass

        with pytest.raises(UnitOfWorkError, match="OrderEvents has no transaction"):
            await OrderEvents().last_position()

    async def test_a_session_is_no_unit_of_work(self, session_factory):
        """Passing a session as `uow=` is refused by the name of what was passed."""
        async with session_factory() as session:
            with pytest.raises(UnitOfWorkError, match="uow= must be a SQLAlchemyUnitOfWork, not AsyncSession"):
                await SQLAlchemyEventStore().append([an_event()], uow=session)

    async def test_a_factory_of_something_else_is_refused(self, session_factory):
        """A uow_factory that returns None or a factory is refused by the name of what it returned."""
        with pytest.raises(UnitOfWorkError, match="the uow_factory's result must be a SQLAlchemyUnitOfWork, not str"):
            await SQLAlchemyEventStore(uow_factory=lambda: "uow").last_position()


class TestIdle:
    async def test_each_operation_commits_by_itself(self, engine, session_factory):
        """Operations given a unit of work that is not entered yet are committed before they return."""
        uow = SQLAlchemyUnitOfWork(session_factory)
        store = SQLAlchemyEventStore()
        await store.append([an_event()], uow=uow)
        assert checked_out(engine) == 0
        await uow.rollback()
        assert await versions(session_factory) == [1]
        assert len(await store.get_events("order-1", uow=uow)) == 1
        assert len(await store.get_events_after(0, uow=uow)) == 1
        assert await store.last_position(uow=uow) == 1

    async def test_after_the_block_each_operation_commits_by_itself(self, session_factory):
        """The specification goes on using a unit of work after its block: so may everybody."""
        store = SQLAlchemyEventStore()
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await store.append([an_event()], uow=uow)
        await store.append([an_event()], expected_version=1, uow=uow)
        await uow.rollback()
        assert await versions(session_factory) == [1, 2]

    async def test_after_a_block_that_failed_too(self, session_factory):
        """A unit of work that was rolled back is idle like any other."""
        store = SQLAlchemyEventStore()
        with pytest.raises(LookupError, match="mine"):
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await store.append([an_event()], uow=uow)
                raise LookupError("mine")
        await store.append([an_event()], uow=uow)
        assert await versions(session_factory) == [1]

    async def test_an_operation_that_fails_rolls_back_by_itself(self, engine, session_factory):
        """A refused operation of an idle unit of work leaves nothing, and does not concern the next one."""
        uow = SQLAlchemyUnitOfWork(session_factory)
        store = SQLAlchemyEventStore()
        with pytest.raises(OptimisticConcurrencyError):
            await store.append([an_event(), an_event()], expected_version=3, uow=uow)
        assert checked_out(engine) == 0
        await store.append([an_event()], expected_version=0, uow=uow)
        assert await versions(session_factory) == [1]

    async def test_concurrent_tasks_may_share_it(self, session_factory):
        """Many tasks at once may use one idle unit of work, given directly or by a factory."""
        uow = SQLAlchemyUnitOfWork(session_factory)
        given, made = SQLAlchemyEventStore(), SQLAlchemyEventStore(uow_factory=lambda: uow)
        await asyncio.gather(
            *(given.append([an_event("a")], uow=uow) for _ in range(6)),
            *(made.append([an_event("a")]) for _ in range(6)),
        )
        assert await versions(session_factory, "a") == list(range(1, 13))

    @pytest.fixture
    def elsewhere(self, databases, database):
        """A second database of the same kind."""
        with databases.fresh(database.kind) as fresh:
            yield fresh

    async def test_the_units_own_factory_is_preferred(self, elsewhere, session_factory, make_engine):
        """An idle unit of work stands for its own database, whatever the store was made with."""
        other = configure_engine(make_engine(elsewhere.url))
        store = SQLAlchemyEventStore(async_sessionmaker(other))
        await store.append([an_event()], uow=SQLAlchemyUnitOfWork(session_factory))
        assert await store.last_position() == 0
        assert await versions(session_factory) == [1]


class TestUowFactory:
    async def test_an_open_unit_of_work_is_joined(self, engine, session_factory):
        """A factory that returns an open unit of work makes each operation part of it."""
        current = SQLAlchemyUnitOfWork(session_factory)
        store = SQLAlchemyEventStore(uow_factory=lambda: current)
        with pytest.raises(LookupError, match="mine"):
            async with current:
                await store.append([an_event()])
                assert len(await store.get_events("order-1")) == 1
                raise LookupError("mine")
        assert await store.get_events("order-1") == []

    async def test_is_called_for_each_operation(self, session_factory):
        """Every operation asks the factory anew."""
        calls = []

        def factory():
            calls.append(1)
            return SQLAlchemyUnitOfWork(session_factory)

        store = SQLAlchemyEventStore(uow_factory=factory)
        await store.append([an_event()])
        await store.get_events("order-1")
        assert len(calls) >= 2

    async def test_uow_given_beats_the_factory(self, session_factory):
        """An explicit `uow=` is used where the store has factories as well."""

        def never():
            raise AssertionError("not to be called")

        store = SQLAlchemyEventStore(session_factory, uow_factory=never)
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await store.append([an_event()], uow=uow)
            await uow.rollback()
        assert await versions(session_factory) == []

    async def test_beats_the_session_factory(self, session_factory):
        """With both factories it is the unit of work that decides."""

        def never():
            raise AssertionError("not to be called")

        store = SQLAlchemyEventStore(never, uow_factory=lambda: SQLAlchemyUnitOfWork(session_factory))
        await store.append([an_event()])
        assert await versions(session_factory) == [1]


class TestGivenSession:
    async def test_is_committed_by_the_block_and_not_closed(self, engine, session_factory):
        """`session=` commits with the block, gives its connection back and stays usable."""
        async with session_factory() as session:
            async with SQLAlchemyUnitOfWork(session=session) as uow:
                assert uow.session is session
                await SQLAlchemyEventStore().append([an_event()], uow=uow)
            assert checked_out(engine) == 0
            assert await session.scalar(sa.text("SELECT count(*) FROM events")) == 1
        assert await versions(session_factory) == [1]

    async def test_keeps_its_objects_after_the_block(self, session_factory):
        """A given session is not closed: what it held is still in it."""
        async with session_factory() as session:
            session.info["mine"] = 1
            async with SQLAlchemyUnitOfWork(session=session) as uow:
                await uow.session.execute(note("a"))
            await session.execute(note("b"))
            await session.commit()
            assert session.info["mine"] == 1

    async def test_is_rolled_back_by_an_exception(self, engine, session_factory):
        """An exception in the block rolls the given session back and gives its connection back."""
        async with session_factory() as session:
            with pytest.raises(LookupError, match="mine"):
                async with SQLAlchemyUnitOfWork(session=session) as uow:
                    await SQLAlchemyEventStore().append([an_event()], uow=uow)
                    raise LookupError("mine")
            assert checked_out(engine) == 0
        assert await versions(session_factory) == []

    async def test_idle_each_operation_commits_by_itself(self, engine, session_factory):
        """Without a transaction of the session's, operations of the idle unit of work commit before they return."""
        async with session_factory() as session:
            uow = SQLAlchemyUnitOfWork(session=session)
            await SQLAlchemyEventStore().append([an_event()], uow=uow)
            assert checked_out(engine) == 0
            assert await versions(session_factory) == [1]
            assert len(await SQLAlchemyEventStore().get_events("order-1", uow=uow)) == 1
            assert checked_out(engine) == 0

    async def test_idle_the_sessions_own_transaction_is_joined(self, engine, session_factory):
        """A transaction that the caller began on the session is the caller's to commit."""
        store = SQLAlchemyEventStore()
        async with session_factory() as session:
            uow = SQLAlchemyUnitOfWork(session=session)
            async with session.begin():
                await session.execute(note("a"))
                await store.append([an_event(), an_event()], uow=uow)
                assert len(await store.get_events("order-1", uow=uow)) == 2
                await uow.commit()
                assert await notes(engine) == []
            await session.begin()
            await store.append([an_event()], uow=uow)
            await session.rollback()
        assert await notes(engine) == ["a"]
        assert await versions(session_factory) == [1, 2]

    async def test_a_conflict_leaves_the_sessions_own_transaction_usable(self, engine, session_factory):
        """A refused append of several events leaves the caller's transaction as it was."""
        async with session_factory() as session, session.begin():
            await session.execute(note("a"))
            with pytest.raises(OptimisticConcurrencyError):
                await SQLAlchemyEventStore().append(
                    [an_event(), an_event()], expected_version=4, uow=SQLAlchemyUnitOfWork(session=session)
                )
            await session.execute(note("b"))
        assert await notes(engine) == ["a", "b"]
        assert await versions(session_factory) == []

    @pytest.mark.parametrize("entered", [False, True])
    @pytest.mark.parametrize("before", ["nothing", "begin", "read"])
    async def test_a_rollback_takes_everything_back_on_a_stock_engine(self, stock_engine, before, entered):
        """Batches, which use savepoints, do not survive the caller's rollback, however its transaction began."""
        factory = async_sessionmaker(stock_engine)
        store = SQLAlchemyEventStore()
        async with factory() as session:
            uow = SQLAlchemyUnitOfWork(session=session)
            if before == "begin":
                await session.begin()
            elif before == "read" or not entered:
                await session.execute(sa.select(NOTES))
            if entered:
                with pytest.raises(LookupError, match="mine"):
                    async with uow:
                        await store.append([an_event(), an_event()], uow=uow)
                        raise LookupError("mine")
            else:
                await store.append([an_event(), an_event()], uow=uow)
                await session.rollback()
        assert await versions(factory) == []

    async def test_an_error_in_a_transaction_the_session_had_begun_refuses_the_commit(self, engine, session_factory):
        """commit() notices database errors also where the session's transaction began before the block."""
        async with session_factory() as session:
            await session.execute(note("a"))
            with pytest.raises(UnitOfWorkError, match="cannot commit: the database refused a statement"):
                async with SQLAlchemyUnitOfWork(session=session) as uow:
                    with pytest.raises(IntegrityError):
                        await uow.session.execute(note("a"))
        assert await notes(engine) == []

    async def test_two_idle_units_of_work_on_one_session_do_not_disturb_an_open_one(self, stock_engine):
        """An operation of another, idle unit of work on the same session leaves the open one's transactions whole."""
        factory = async_sessionmaker(stock_engine)
        store = SQLAlchemyEventStore()
        async with factory() as session, SQLAlchemyUnitOfWork(session=session) as uow:
            await uow.session.execute(note("a"))
            await uow.commit()
            await store.append([an_event("b")], uow=SQLAlchemyUnitOfWork(session=session))
            await store.append([an_event("c"), an_event("c")], uow=uow)
            await uow.rollback()
        assert await versions(factory, "c") == []

    async def test_an_idle_operation_does_not_discard_the_sessions_pending_objects(self, session_factory, engine):
        """What the caller added to the session is joined, not lost, by a store's operation."""
        async with session_factory() as session:
            session.add(Note(projection_name="a", position=1))
            await SQLAlchemyEventStore().get_events("order-1", uow=SQLAlchemyUnitOfWork(session=session))
            await session.commit()
        assert await notes(engine) == ["a"]


class TestMissingSchema:
    @pytest.mark.parametrize("operation", ["append", "get_events", "get_events_after", "last_position"])
    @pytest.mark.parametrize("given", ["factory", "open", "session"])
    async def test_a_missing_table_is_named_with_the_command(self, empty_database, operation, given, make_engine):
        """On a database that was never migrated every operation names the table and the command to run."""
        store = SQLAlchemyEventStore()

        async def operate(uow):
            match operation:
                case "append":
                    await store.append([an_event()], uow=uow)
                case "get_events":
                    await store.get_events("order-1", uow=uow)
                case "get_events_after":
                    await store.get_events_after(0, uow=uow)
                case _:
                    await store.last_position(uow=uow)

        factory = async_sessionmaker(configure_engine(make_engine(empty_database.url)))
        with pytest.raises(
            SchemaOutOfDateError, match="table 'events' is not in the database; run: alembic upgrade head"
        ):
            if given == "factory":
                await operate(SQLAlchemyUnitOfWork(factory))
            elif given == "open":
                async with SQLAlchemyUnitOfWork(factory) as uow:
                    await operate(uow)
            else:
                async with factory() as session, session.begin():
                    await operate(SQLAlchemyUnitOfWork(session=session))

    async def test_a_missing_column_is_named_with_the_command(self, engine, session_factory, database):
        """A table that is behind the code names the column that it lacks."""
        async with engine.begin() as connection:
            await connection.execute(sa.text("ALTER TABLE events DROP COLUMN causation_id"))
        store = SQLAlchemyEventStore(session_factory)
        message = r"column '(events\.)?causation_id' is not in the database, .* run: alembic upgrade head"
        with pytest.raises(SchemaOutOfDateError, match=message):
            await store.get_events("order-1")
        with pytest.raises(SchemaOutOfDateError, match=message):
            await store.append([an_event()])

    async def test_other_errors_pass_through_untouched(self, session_factory):
        """An error that the library does not expect reaches the caller as SQLAlchemy raised it."""
        with pytest.raises(DBAPIError) as caught:
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await uow.session.execute(sa.text("SELECT nonsense"))
        assert not isinstance(caught.value, PersistenceError)

    async def test_another_database_is_refused_by_name(self):
        """A dialect that the library does not know is refused, and the ones it knows are named."""
        from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_named

        with pytest.raises(PersistenceError, match="database 'mysql' is not supported; use postgresql or sqlite"):
            dialect_named("mysql")
