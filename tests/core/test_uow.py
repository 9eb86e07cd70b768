"""The unit of work: when it commits, what it refuses to commit, and what it gives back."""
# ruff: noqa: PT012, ARG002  (what must fail is the end of a block; fixtures are asked for their effect)

from __future__ import annotations

import asyncio
import gc
import logging
import random
from contextlib import AsyncExitStack, asynccontextmanager

import aiosqlite
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import AsyncAdaptedQueuePool

from cqrs_ddd_advanced_core import StoredEvent
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork, configure_engine
from cqrs_ddd_persistence_sqlalchemy.core import undoing
from cqrs_ddd_persistence_sqlalchemy.core.dialect import DIALECTS
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError, UnitOfWorkError
from tests.conftest import check_no_leaks
from tests.support.engines import create_async_engine

ONLY_SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
ONLY_POSTGRESQL = pytest.mark.parametrize("database", ["postgresql"], indirect=True)

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


async def eventually(condition, timeout_seconds=20):
    """Wait until the condition, plain or async, holds."""
    async with asyncio.timeout(timeout_seconds):
        while True:
            holds = condition()
            if await holds if asyncio.iscoroutine(holds) else holds:
                return
            await asyncio.sleep(0.005)


@pytest.fixture
async def make_engine():
    """Makes engines without any settings; they are checked for leaks, and disposed of however the test ends."""
    async with AsyncExitStack() as stack:

        def make(url, **options):
            engine = create_async_engine(url, **options)
            stack.push_async_callback(check_no_leaks, engine)
            return engine

        yield make


@pytest.fixture
def one_connection(database, make_engine):
    """An engine that has one connection and does not wait long for a second."""
    return configure_engine(
        make_engine(database.url, poolclass=AsyncAdaptedQueuePool, pool_size=1, max_overflow=0, pool_timeout=0.5)
    )


@asynccontextmanager
async def stream_in_use(session_factory, stream):
    """Keep other appends to the stream waiting, on both databases."""
    async with SQLAlchemyUnitOfWork(session_factory) as other:
        await SQLAlchemyEventStore().append([an_event(stream, event_type="Other")], uow=other)
        yield
        await other.rollback()


async def a_conflict(uow):
    """Lose a race inside the unit of work, and swallow it as the specification does."""
    store = SQLAlchemyEventStore()
    with pytest.raises(OptimisticConcurrencyError):
        await store.append([an_event("nobody's")], expected_version=5, uow=uow)


class TestCommitAndRollback:
    async def test_a_clean_exit_commits(self, engine, session_factory):
        """Leaving the block normally commits what was written."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            assert await notes(engine) == []
        assert await notes(engine) == ["a"]

    async def test_a_clean_exit_flushes_orm_objects(self, engine, session_factory):
        """Leaving the block normally stores objects that are pending in the session."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            uow.session.add(Note(projection_name="a", position=1))
        assert await notes(engine) == ["a"]

    async def test_an_exception_rolls_back_and_propagates(self, engine, session_factory):
        """An exception leaves nothing behind and reaches the caller as it was raised."""
        raised = LookupError("mine")
        with pytest.raises(LookupError, match="mine") as caught:
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await uow.session.execute(note("a"))
                raise raised
        assert caught.value is raised
        assert await notes(engine) == []

    async def test_several_commits_and_rollbacks_in_one_block(self, engine, session_factory):
        """Each commit() keeps and each rollback() discards what came since the one before."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.commit()
            await uow.session.execute(note("kept-1"))
            await uow.commit()
            await uow.session.execute(note("lost-1"))
            await uow.rollback()
            await uow.rollback()
            await uow.session.execute(note("kept-2"))
            await uow.commit()
            assert await notes(engine) == ["kept-1", "kept-2"]
            await uow.session.execute(note("kept-3"))
        assert await notes(engine) == ["kept-1", "kept-2", "kept-3"]

    async def test_an_exception_after_a_commit_keeps_what_was_committed(self, engine, session_factory):
        """An exception takes back what came after the last commit() only."""
        with pytest.raises(LookupError, match="mine"):
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await uow.session.execute(note("kept"))
                await uow.commit()
                await uow.session.execute(note("lost"))
                raise LookupError("mine")
        assert await notes(engine) == ["kept"]

    async def test_stores_and_the_session_share_one_transaction(self, engine, session_factory):
        """What stores and the session wrote goes together, and each sees the other's rows before the commit."""
        store = SQLAlchemyEventStore(session_factory)
        with pytest.raises(LookupError, match="mine"):
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await uow.session.execute(note("a"))
                await store.append([an_event()], uow=uow)
                assert await uow.session.scalar(sa.text("SELECT count(*) FROM events")) == 1
                assert len(await store.get_events("order-1", uow=uow)) == 1
                raise LookupError("mine")
        assert await notes(engine) == []
        assert await store.get_events("order-1") == []

    async def test_objects_stay_readable_after_the_block_as_the_factory_says(self, engine):
        """A session factory with SQLAlchemy's defaults works; what it loaded expires with the commit."""
        async with SQLAlchemyUnitOfWork(async_sessionmaker(engine)) as uow:
            uow.session.add(Note(projection_name="a", position=1))
            await uow.commit()
            stored = (await uow.session.scalars(sa.select(Note))).one()
            assert stored.position == 1
            await SQLAlchemyEventStore().append([an_event()], uow=uow)
        assert await notes(engine) == ["a"]
        assert len(await SQLAlchemyEventStore(async_sessionmaker(engine)).get_events("order-1")) == 1


class TestOpening:
    def test_needs_a_factory_or_a_session(self):
        """Without anything to make sessions with, construction fails and says what to pass."""
        with pytest.raises(UnitOfWorkError, match=r"pass either a session_factory, .* or session="):
            SQLAlchemyUnitOfWork()

    async def test_refuses_both_a_factory_and_a_session(self, session_factory):
        """A factory and a session contradict each other."""
        async with session_factory() as session:
            with pytest.raises(UnitOfWorkError, match="pass either a session_factory"):
                SQLAlchemyUnitOfWork(session_factory, session=session)

    async def test_cannot_be_entered_twice(self, engine, session_factory):
        """A nested `async with` of the same unit of work is refused, and the outer block goes on."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            with pytest.raises(UnitOfWorkError, match="open already: make another one"):
                async with uow:
                    pass
            assert uow.is_open
            await uow.session.execute(note("b"))
        assert await notes(engine) == ["a", "b"]

    async def test_can_be_entered_again_after_its_end(self, engine, session_factory):
        """A unit of work that was left, either way, starts afresh when it is entered again."""
        uow = SQLAlchemyUnitOfWork(session_factory)
        async with uow:
            await uow.session.execute(note("a"))
        with pytest.raises(LookupError, match="mine"):
            async with uow:
                await uow.session.execute(note("lost"))
                raise LookupError("mine")
        async with uow:
            await a_conflict(uow)
        async with uow:
            await uow.session.execute(note("b"))
        assert await notes(engine) == ["a", "b"]

    async def test_has_a_session_only_inside_its_block(self, session_factory):
        """The session of an idle unit of work does not exist, before the block as after it."""
        uow = SQLAlchemyUnitOfWork(session_factory)
        with pytest.raises(UnitOfWorkError, match="is not open: use its session inside"):
            _ = uow.session
        async with uow:
            assert uow.session is uow.session
        with pytest.raises(UnitOfWorkError, match="is not open: use its session inside"):
            _ = uow.session

    async def test_commit_and_rollback_do_nothing_when_idle(self, engine, session_factory):
        """commit() and rollback() outside the block do nothing and take no connection."""
        uow = SQLAlchemyUnitOfWork(session_factory)
        await uow.commit()
        await uow.rollback()
        async with uow:
            await uow.session.execute(note("a"))
        await uow.rollback()
        await uow.commit()
        assert await notes(engine) == ["a"]

    async def test_can_be_made_outside_of_an_event_loop(self, engine, session_factory):
        """A unit of work may be made where no event loop runs, as a module's global."""
        uow = await asyncio.to_thread(SQLAlchemyUnitOfWork, session_factory)
        async with uow:
            await uow.session.execute(note("a"))
        assert await notes(engine) == ["a"]


class TestConnections:
    async def test_a_connection_is_taken_late_and_given_back_early(self, engine, session_factory):
        """No connection is out before the first statement, nor after commit, rollback or the end."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            _ = uow.session
            assert checked_out(engine) == 0
            await uow.session.execute(note("a"))
            assert checked_out(engine) == 1
            await uow.commit()
            assert checked_out(engine) == 0
            await uow.session.execute(note("b"))
            await uow.rollback()
            assert checked_out(engine) == 0
            await uow.session.execute(note("c"))
        assert checked_out(engine) == 0

    async def test_no_connection_is_out_after_an_exception(self, engine, session_factory):
        """An exception gives the connection back."""
        with pytest.raises(LookupError, match="mine"):
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await uow.session.execute(note("a"))
                raise LookupError("mine")
        assert checked_out(engine) == 0

    async def test_a_block_without_statements_takes_no_connection(self, empty_database, make_engine):
        """A unit of work that does nothing never connects."""
        engine = make_engine(empty_database.url)
        connects = []
        sa.event.listen(engine.sync_engine, "connect", lambda *_: connects.append(1))
        async with SQLAlchemyUnitOfWork(async_sessionmaker(engine)) as uow:
            await uow.commit()
            await uow.rollback()
        assert connects == []

    async def test_a_pool_of_one_is_enough(self, one_connection):
        """Stores that join an open unit of work never need a second connection."""
        factory = async_sessionmaker(one_connection)
        store = SQLAlchemyEventStore(factory)
        async with SQLAlchemyUnitOfWork(factory) as uow:
            await uow.session.execute(note("a"))
            await store.append([an_event(), an_event()], uow=uow)
            await store.append([an_event()], expected_version=2, uow=uow)
            await store.get_events("order-1", uow=uow)
            assert [event.version async for event in store.stream_after(0, page_size=1, uow=uow)] == [1, 2, 3]
            assert await store.last_position(uow=uow) == 3
            await a_conflict(uow)
            await uow.commit()
        assert len(await store.get_events("order-1")) == 3

    async def test_callbacks_find_the_connection_given_back(self, one_connection):
        """A callback may use the pool's only connection, after commit() as after the end of the block."""
        factory = async_sessionmaker(one_connection)
        store = SQLAlchemyEventStore(factory)
        found = []

        async def look():
            found.append(await store.last_position())

        async with SQLAlchemyUnitOfWork(factory) as uow:
            await store.append([an_event()], uow=uow)
            uow.on_commit(look)
            await uow.commit()
            await store.append([an_event()], uow=uow)
            uow.on_commit(look)
        assert found == [1, 2]


class TestConflicts:
    async def test_a_swallowed_conflict_rolls_back_at_the_end(self, engine, session_factory, caplog):
        """After a conflict the end of the block rolls back, and a warning says that writes are discarded."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            await a_conflict(uow)
        assert await notes(engine) == []
        assert checked_out(engine) == 0
        [record] = caplog.records
        assert record.levelno == logging.WARNING
        assert 'its writes are discarded, because of: stream "nobody\'s"' in record.getMessage()
        assert "Call commit()" in record.getMessage()

    async def test_writes_after_the_conflict_are_discarded_with_a_warning(self, engine, session_factory, caplog):
        """What is written after an unanswered conflict is discarded too."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await a_conflict(uow)
            await uow.session.execute(note("a"))
        assert await notes(engine) == []
        assert "its writes are discarded" in caplog.text

    @pytest.mark.parametrize("how", ["store", "pending", "flushed", "autoflushed", "session", "connection"])
    async def test_every_kind_of_discarded_write_is_warned_of(self, engine, session_factory, caplog, how):
        """The warning appears whichever way the discarded rows were written."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            match how:
                case "store":
                    await SQLAlchemyEventStore().append([an_event()], uow=uow)
                case "session":
                    await uow.session.execute(note("a"))
                case "connection":
                    await (await uow.session.connection()).execute(note("a"))
                case _:
                    uow.session.add(Note(projection_name="a", position=1))
            if how == "flushed":
                await uow.session.flush()
            elif how == "autoflushed":
                assert len((await uow.session.scalars(sa.select(Note))).all()) == 1
            await a_conflict(uow)
        assert await notes(engine) == []
        assert caplog.text.count("its writes are discarded") == 1

    async def test_no_warning_where_nothing_is_discarded(self, engine, session_factory, caplog):
        """A block that only read, or had committed already, ends silently after a conflict."""
        store = SQLAlchemyEventStore(session_factory)
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            await store.append([an_event()], uow=uow)
            await uow.commit()
            await uow.session.execute(sa.select(NOTES))
            await store.get_events("order-1", uow=uow)
            await store.last_position(uow=uow)
            await store.append([], uow=uow)
            await a_conflict(uow)
        assert caplog.records == []
        assert await notes(engine) == ["a"]

    async def test_an_explicit_commit_keeps_what_is_left(self, engine, session_factory, caplog):
        """commit() after a conflict commits the rest knowingly, and the block ends normally."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            await a_conflict(uow)
            await uow.session.execute(note("b"))
            await uow.commit()
            await uow.session.execute(note("c"))
        assert await notes(engine) == ["a", "b", "c"]
        assert caplog.records == []

    async def test_a_rollback_starts_afresh(self, engine, session_factory, caplog):
        """rollback() after a conflict discards silently, and what follows is committed by the end of the block."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("lost"))
            await a_conflict(uow)
            await uow.rollback()
            await uow.session.execute(note("kept"))
        assert await notes(engine) == ["kept"]
        assert caplog.records == []

    async def test_a_conflict_that_propagates_rolls_back_without_a_warning(self, engine, session_factory, caplog):
        """Nobody needs to be warned of a conflict that the caller is told of."""
        with pytest.raises(OptimisticConcurrencyError, match="nobody's"):
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await uow.session.execute(note("a"))
                await SQLAlchemyEventStore().append([an_event("nobody's")], expected_version=5, uow=uow)
        assert await notes(engine) == []
        assert caplog.records == []

    async def test_the_caller_may_retry_after_rollback(self, session_factory):
        """The specification's loop works: conflict, rollback(), reload, append again, all in one block."""
        store = SQLAlchemyEventStore(session_factory)
        await store.append([an_event()])
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            expected = 0
            for _ in range(2):
                try:
                    await store.append([an_event()], expected_version=expected, uow=uow)
                except OptimisticConcurrencyError as conflict:
                    await uow.rollback()
                    expected = conflict.actual
        assert [event.version for event in await store.get_events("order-1")] == [1, 2]


class TestDatabaseErrors:
    async def test_commit_after_a_swallowed_error_is_refused(self, engine, session_factory):
        """After an error of the database commit() raises and stores nothing, on both databases alike."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            with pytest.raises(IntegrityError):
                await uow.session.execute(note("a"))
            with pytest.raises(UnitOfWorkError, match="cannot commit: the database refused a statement"):
                await uow.commit()
            assert checked_out(engine) == 0
            await uow.session.execute(note("afresh"))
        assert await notes(engine) == ["afresh"]

    async def test_the_end_of_the_block_after_a_swallowed_error_is_refused(self, engine, session_factory):
        """After an error of the database the end of the block raises and stores nothing."""
        with pytest.raises(UnitOfWorkError, match=r"begin_nested\(\)"):
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await uow.session.execute(note("a"))
                with pytest.raises(IntegrityError):
                    await uow.session.execute(note("a"))
        assert await notes(engine) == []
        assert checked_out(engine) == 0

    @pytest.mark.parametrize("how", ["connection", "flush", "core connection"])
    async def test_an_error_on_any_way_to_the_database_counts(self, engine, session_factory, how):
        """Errors of flushes and of the session's connection are noticed as well."""
        with pytest.raises(UnitOfWorkError, match="cannot commit"):
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await uow.session.execute(note("a"))
                if how == "connection":
                    with pytest.raises(IntegrityError):
                        await (await uow.session.connection()).execute(note("a"))
                elif how == "flush":
                    uow.session.add(Note(projection_name="a", position=1))
                    with pytest.raises(IntegrityError):
                        await uow.session.flush()
                else:
                    connection = await uow.session.connection()
                    with pytest.raises(DBAPIError):
                        await connection.exec_driver_sql("SELECT nonsense")
        assert await notes(engine) == []

    async def test_rollback_heals_an_error(self, engine, session_factory):
        """rollback() after an error of the database starts afresh."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            with pytest.raises(IntegrityError):
                await uow.session.execute(note("a"))
            await uow.rollback()
            await uow.session.execute(note("b"))
        assert await notes(engine) == ["b"]

    async def test_a_rollback_of_the_session_heals_an_error(self, engine, session_factory):
        """Rolling back the session itself is as good as the unit of work's rollback()."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            with pytest.raises(IntegrityError):
                await uow.session.execute(note("a"))
            await uow.session.rollback()
            await uow.session.execute(note("b"))
        assert await notes(engine) == ["b"]

    async def test_an_error_in_a_savepoint_that_is_rolled_back_is_healed(self, engine, session_factory):
        """What begin_nested() took back does not stand in the way of the commit."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            with pytest.raises(IntegrityError):
                async with uow.session.begin_nested():
                    await uow.session.execute(note("lost"))
                    await uow.session.execute(note("a"))
            await uow.session.execute(note("b"))
        assert await notes(engine) == ["a", "b"]

    async def test_an_orm_error_in_a_savepoint_that_is_rolled_back_is_healed(self, engine, session_factory):
        """A failed flush inside begin_nested() does not stand in the way of the commit either."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            with pytest.raises(IntegrityError):
                async with uow.session.begin_nested():
                    uow.session.add(Note(projection_name="a", position=1))
            uow.session.add(Note(projection_name="b", position=1))
        assert await notes(engine) == ["a", "b"]

    @ONLY_SQLITE
    async def test_an_error_in_a_savepoint_that_is_released_is_not_healed(self, engine, session_factory):
        """Releasing a savepoint keeps half of what was to be written in it: the commit is refused."""
        with pytest.raises(UnitOfWorkError, match="cannot commit"):
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await uow.session.execute(note("a"))
                async with uow.session.begin_nested():
                    await uow.session.execute(note("half"))
                    with pytest.raises(IntegrityError):
                        await uow.session.execute(note("a"))
        assert await notes(engine) == []

    @ONLY_POSTGRESQL
    async def test_a_savepoint_with_an_error_cannot_be_released(self, engine, session_factory):
        """PostgreSQL itself refuses the release, and the block ends with its error and nothing stored."""
        with pytest.raises(DBAPIError, match="current transaction is aborted"):
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await uow.session.execute(note("a"))
                async with uow.session.begin_nested():
                    await uow.session.execute(note("half"))
                    with pytest.raises(IntegrityError):
                        await uow.session.execute(note("a"))
        assert await notes(engine) == []

    @ONLY_SQLITE
    async def test_an_outer_savepoint_heals_what_an_inner_one_passed_on(self, engine, session_factory):
        """An error released from an inner savepoint is healed by rolling back the outer one."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            with pytest.raises(LookupError, match="mine"):
                async with uow.session.begin_nested():
                    async with uow.session.begin_nested():
                        with pytest.raises(IntegrityError):
                            await uow.session.execute(note("a"))
                    raise LookupError("mine")
        assert await notes(engine) == ["a"]

    async def test_two_levels_of_savepoints_rolled_back_are_healed(self, engine, session_factory):
        """An error below two savepoints that are both rolled back is healed."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            with pytest.raises(IntegrityError):
                async with uow.session.begin_nested(), uow.session.begin_nested():
                    await uow.session.execute(note("a"))
        assert await notes(engine) == ["a"]

    async def test_an_error_after_a_released_savepoint_counts(self, engine, session_factory):
        """A savepoint that went well does not excuse an error after it."""
        with pytest.raises(UnitOfWorkError, match="cannot commit"):
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                async with uow.session.begin_nested():
                    await uow.session.execute(note("a"))
                with pytest.raises(IntegrityError):
                    await uow.session.execute(note("a"))
        assert await notes(engine) == []

    async def test_a_python_error_in_a_statement_does_not_count(self, engine, session_factory):
        """A value that never reached the database does no harm to the transaction."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            with pytest.raises(ValueError, match="whole number"):
                await SQLAlchemyEventStore().get_events_after(-1, uow=uow)
            await uow.session.execute(note("a"))
        assert await notes(engine) == ["a"]

    async def test_an_error_of_an_earlier_block_is_forgotten(self, engine, session_factory):
        """The next block of the same unit of work, on the same connection, may commit."""
        uow = SQLAlchemyUnitOfWork(session_factory)
        with pytest.raises(IntegrityError):
            async with uow:
                await uow.session.execute(note("a"))
                await uow.session.execute(note("a"))
        async with uow:
            await uow.session.execute(note("b"))
        assert await notes(engine) == ["b"]

    async def test_the_first_statement_of_a_new_engine_counts(self, database, make_engine):
        """An error of the very first statement on a stock engine is noticed."""
        engine = make_engine(database.url)
        with pytest.raises(UnitOfWorkError, match="cannot commit"):
            async with SQLAlchemyUnitOfWork(async_sessionmaker(engine)) as uow:
                with pytest.raises(DBAPIError):
                    await uow.session.execute(sa.text("SELECT nonsense"))

    @ONLY_SQLITE
    async def test_a_begin_that_timed_out_counts(self, engine, session_factory, database, make_engine):
        """When the write lock could not be had, going on without a transaction is refused; rollback() tries again."""
        impatient = make_engine(database.url, connect_args={"timeout": 0})
        uow = SQLAlchemyUnitOfWork(async_sessionmaker(impatient))
        async with uow:
            async with stream_in_use(session_factory, "order-1"):
                with pytest.raises(OperationalError, match="database is locked"):
                    await uow.session.execute(note("a"))
            with pytest.raises((UnitOfWorkError, OperationalError)):  # whichever says so first
                await uow.session.execute(note("half"))
                await uow.commit()
            await uow.rollback()
            await uow.session.execute(note("b"))
        assert await notes(engine) == ["b"]


class TestFailedCommits:
    @pytest.fixture
    async def deferred(self, engine):
        """A constraint that only the commit checks."""
        async with engine.begin() as connection:
            await connection.execute(sa.text("CREATE TABLE parents (id INTEGER PRIMARY KEY)"))
            await connection.execute(
                sa.text(
                    "CREATE TABLE children "
                    "(parent_id INTEGER NOT NULL REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)"
                )
            )
        return sa.text("INSERT INTO children VALUES (1)")

    async def test_a_commit_that_fails_at_the_end_stores_nothing(self, engine, session_factory, deferred):
        """The database's refusal to commit reaches the caller, and the connection comes back clean."""
        called = []
        with pytest.raises(IntegrityError):
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await uow.session.execute(note("a"))
                await uow.session.execute(deferred)
                uow.on_commit(lambda: called.append(1))
        assert called == []
        assert checked_out(engine) == 0
        assert await notes(engine) == []

    async def test_callbacks_of_a_failed_commit_are_forgotten(self, engine, session_factory, deferred):
        """A callback belongs to the transaction that failed, not to the next one of the block."""
        called = []
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(deferred)
            uow.on_commit(lambda: called.append("failed"))
            with pytest.raises(IntegrityError):
                await uow.commit()
            await uow.rollback()
            await uow.session.execute(note("a"))
            uow.on_commit(lambda: called.append("a"))
        assert called == ["a"]
        assert await notes(engine) == ["a"]

    async def test_a_failed_commit_leaves_the_block_usable(self, engine, session_factory, deferred):
        """After a commit() that the database refused the next transaction begins by itself, without the lost rows."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("lost"))
            await uow.session.execute(deferred)
            with pytest.raises(IntegrityError):
                await uow.commit()
            assert checked_out(engine) == 0
            await uow.session.execute(note("a"))
            await uow.commit()
        assert await notes(engine) == ["a"]

    async def test_a_failed_commit_leaves_nothing_for_the_next_block(self, engine, session_factory, deferred):
        """Callbacks of a block whose end failed are not called by the next block of the same unit of work."""
        called = []
        uow = SQLAlchemyUnitOfWork(session_factory)
        with pytest.raises(IntegrityError):
            async with uow:
                await uow.session.execute(deferred)
                uow.on_commit(lambda: called.append("failed"))
        async with uow:
            await uow.session.execute(note("a"))
        assert called == []
        assert await notes(engine) == ["a"]

    async def test_a_given_session_is_clean_after_a_failed_commit(self, engine, session_factory, deferred):
        """The caller's session holds no connection after the end of the block failed."""
        async with session_factory() as session:
            with pytest.raises(IntegrityError):
                async with SQLAlchemyUnitOfWork(session=session) as uow:
                    await uow.session.execute(deferred)
            assert checked_out(engine) == 0


class TestCallbacks:
    async def test_are_called_in_order_after_the_commit(self, engine, session_factory):
        """Plain and async callbacks run in the order of their registration, when the data is visible to others."""
        seen = []

        async def later():
            seen.append(("async", await notes(engine)))

        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            uow.on_commit(lambda: seen.append("plain"))
            uow.on_commit(later)
            uow.on_commit(lambda: later())  # noqa: PLW0108  (a plain one that returns an awaitable)
            uow.on_commit(lambda: seen.append("last"))
            assert seen == []
        assert seen == ["plain", ("async", ["a"]), ("async", ["a"]), "last"]

    async def test_are_called_once(self, session_factory):
        """A callback belongs to one commit."""
        seen = []
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            uow.on_commit(lambda: seen.append(1))
            await uow.commit()
            assert seen == [1]
            await uow.commit()
        assert seen == [1]

    async def test_are_forgotten_by_a_rollback(self, session_factory):
        """rollback(), an exception and an unanswered conflict all forget the callbacks."""
        seen = []
        uow = SQLAlchemyUnitOfWork(session_factory)
        async with uow:
            uow.on_commit(lambda: seen.append("rollback"))
            await uow.rollback()
        with pytest.raises(LookupError, match="mine"):
            async with uow:
                uow.on_commit(lambda: seen.append("exception"))
                raise LookupError("mine")
        async with uow:
            uow.on_commit(lambda: seen.append("conflict"))
            await a_conflict(uow)
        async with uow:
            pass
        assert seen == []

    async def test_are_forgotten_by_a_refused_commit(self, session_factory):
        """A commit() refused because of a database error calls nobody, nor does the next one."""
        seen = []
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            uow.on_commit(lambda: seen.append(1))
            with pytest.raises(DBAPIError):
                await uow.session.execute(sa.text("SELECT nonsense"))
            with pytest.raises(UnitOfWorkError, match="cannot commit"):
                await uow.commit()
            await uow.commit()
        assert seen == []

    async def test_a_failing_one_is_logged_and_the_others_run(self, engine, session_factory, caplog):
        """An error in a callback, plain or async, is logged and harms neither the caller nor the other callbacks."""
        seen = []

        def broken():
            raise LookupError("plain one broke")

        async def broken_later():
            raise LookupError("async one broke")

        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            uow.on_commit(broken)
            uow.on_commit(broken_later)
            uow.on_commit(lambda: seen.append("ran"))
        assert seen == ["ran"]
        assert await notes(engine) == ["a"]
        assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.ERROR]
        assert "plain one broke" in caplog.text
        assert "async one broke" in caplog.text

    async def test_may_use_the_unit_of_work_that_is_open_still(self, engine, session_factory):
        """A callback of commit() inside the block may write and register the next callback."""
        seen = []

        async def go_on():
            await uow.session.execute(note("b"))
            uow.on_commit(lambda: seen.append("second"))

        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            uow.on_commit(go_on)
            await uow.commit()
            assert seen == []
        assert seen == ["second"]
        assert await notes(engine) == ["a", "b"]

    async def test_may_open_the_unit_of_work_again_after_its_end(self, engine, session_factory):
        """A callback of the end of the block finds the unit of work idle and may enter it."""

        async def again():
            async with uow:
                await uow.session.execute(note("b"))

        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            uow.on_commit(again)
        assert await notes(engine) == ["a", "b"]

    async def test_cannot_be_registered_when_idle(self, session_factory):
        """Outside the block nothing would ever call back, so registering is refused."""
        uow = SQLAlchemyUnitOfWork(session_factory)
        with pytest.raises(UnitOfWorkError, match="is not open: register callbacks inside"):
            uow.on_commit(print)


class TestTwoTasks:
    async def test_are_refused_and_the_unit_of_work_goes_on(self, session_factory):
        """The second task at once gets a clear error; the first one's work is stored."""
        store = SQLAlchemyEventStore(session_factory)
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            first, second = await asyncio.gather(
                store.append([an_event("a")], uow=uow), store.append([an_event("b")], uow=uow), return_exceptions=True
            )
            assert [event.version for event in first] == [1]
            assert isinstance(second, UnitOfWorkError)
            assert "two tasks use one open unit of work at once" in str(second)
            await store.append([an_event("c")], uow=uow)
        assert [event.aggregate_id async for event in store.stream_after(0)] == ["a", "c"]

    @pytest.mark.parametrize("operation", ["commit", "rollback", "get_events", "last_position"])
    async def test_cannot_end_or_read_what_another_is_writing(self, session_factory, operation):
        """Neither commit() nor rollback() nor a read may come in between another task's append."""
        store = SQLAlchemyEventStore(session_factory)

        async def other(uow):
            match operation:
                case "commit":
                    await uow.commit()
                case "rollback":
                    await uow.rollback()
                case "get_events":
                    await store.get_events("a", uow=uow)
                case _:
                    await store.last_position(uow=uow)

        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            first, second = await asyncio.gather(
                store.append([an_event("a"), an_event("a")], uow=uow), other(uow), return_exceptions=True
            )
            assert isinstance(second, UnitOfWorkError)
            assert len(first) == 2
        assert len(await store.get_events("a")) == 2

    async def test_are_refused_and_an_exception_still_rolls_back(self, engine, session_factory):
        """The error of the second task, left alone, rolls everything back cleanly."""
        store = SQLAlchemyEventStore(session_factory)
        with pytest.raises(ExceptionGroup) as caught:
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await store.append([an_event("a")], uow=uow)
                async with asyncio.TaskGroup() as group:
                    group.create_task(store.append([an_event("b")], uow=uow))
                    group.create_task(store.append([an_event("c")], uow=uow))
        assert caught.group_contains(UnitOfWorkError, match="two tasks")
        assert await store.last_position() == 0
        assert checked_out(engine) == 0

    async def test_may_take_turns(self, session_factory):
        """Tasks that use one unit of work one after the other are welcome."""
        store = SQLAlchemyEventStore(session_factory)
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            for stream in "ab":
                await asyncio.create_task(store.append([an_event(stream)], uow=uow))
        assert await store.last_position() == 2

    async def test_a_block_that_ends_while_another_task_is_busy_rolls_back(self, engine, session_factory):
        """The end waits for the operation under way, then rolls back and says why."""
        store = SQLAlchemyEventStore(session_factory)
        uow = SQLAlchemyUnitOfWork(session_factory)
        ended = asyncio.Event()

        async def block():
            try:
                async with uow:
                    tasks.append(asyncio.create_task(store.append([an_event()], uow=uow)))
                    await asyncio.sleep(0)  # lets the task start; it cannot end, its stream is in use
            finally:
                ended.set()

        tasks = []
        async with stream_in_use(session_factory, "order-1"):
            main = asyncio.create_task(block())
            await eventually(lambda: checked_out(engine) == 2)
            assert not ended.is_set()
        with pytest.raises(UnitOfWorkError, match="ended while another task was using it; everything is rolled back"):
            await main
        assert len(await tasks[0]) == 1
        assert await store.last_position() == 0
        assert checked_out(engine) == 0
        assert not uow.is_open

    async def test_the_blocks_own_exception_survives_a_busy_task(self, engine, session_factory):
        """The exception that ended the block propagates although another task was still busy."""
        store = SQLAlchemyEventStore(session_factory)

        async def fail():
            raise LookupError("mine")

        async def block():
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await asyncio.gather(store.append([an_event()], uow=uow), fail())

        async with stream_in_use(session_factory, "order-1"):
            main = asyncio.create_task(block())
            await eventually(lambda: checked_out(engine) == 2)
        with pytest.raises(LookupError, match="mine"):
            await main
        assert await store.last_position() == 0

    async def test_a_cancelled_block_stays_cancelled_although_a_task_is_busy(self, engine, session_factory):
        """A cancellation is not turned into another error: timeouts around the block work."""
        store = SQLAlchemyEventStore(session_factory)
        forever = asyncio.Event()

        async def block():
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                tasks.append(asyncio.create_task(store.append([an_event()], uow=uow)))
                await forever.wait()

        tasks = []
        async with stream_in_use(session_factory, "order-1"):
            main = asyncio.create_task(block())
            await eventually(lambda: checked_out(engine) == 2)
            main.cancel()
        with pytest.raises(asyncio.CancelledError):
            await main
        await tasks[0]
        assert await store.last_position() == 0
        assert checked_out(engine) == 0

    async def test_a_busy_task_gets_no_further_operation_in(self, engine, session_factory):
        """A task that goes on while the block ends never runs a statement into its rollback."""
        store = SQLAlchemyEventStore(session_factory)

        async def go_on(uow):
            for number in range(20):
                await store.append([an_event("busy", payload={"number": number})], uow=uow)

        async def block():
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                tasks.append(asyncio.create_task(go_on(uow)))
                await asyncio.sleep(0)  # lets the task start; its stream is in use

        tasks = []
        async with stream_in_use(session_factory, "busy"):
            main = asyncio.create_task(block())
            await eventually(lambda: checked_out(engine) == 2)
        with pytest.raises(UnitOfWorkError, match="ended while another task was using it"):
            await main
        # Whether the task is refused, or was waited for to its end, is all the same.
        [ended] = await asyncio.gather(*tasks, return_exceptions=True)
        assert ended is None or isinstance(ended, UnitOfWorkError)
        assert await store.last_position() == 0
        assert checked_out(engine) == 0


class TestCancellation:
    async def test_in_a_statement_gives_the_connection_back(self, engine, session_factory, database):
        """A task that is cancelled while it waits for the database leaves neither connection nor lock behind."""
        store = SQLAlchemyEventStore(session_factory)

        async def block():
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await store.append([an_event()], uow=uow)

        async with stream_in_use(session_factory, "order-1"):
            task = asyncio.create_task(block())
            await eventually(lambda: checked_out(engine) == 2)
            if database.kind == "postgresql":
                await eventually(lambda: someone_waits(engine))
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: checked_out(engine) == 0)
        assert len(await store.append([an_event()])) == 1

    async def test_of_an_operation_of_its_own_gives_the_connection_back(self, engine, session_factory, database):
        """The same goes for an operation in a transaction of its own."""
        store = SQLAlchemyEventStore(session_factory)
        async with stream_in_use(session_factory, "order-1"):
            task = asyncio.create_task(store.append([an_event()]))
            await eventually(lambda: checked_out(engine) == 2)
            if database.kind == "postgresql":
                await eventually(lambda: someone_waits(engine))
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: checked_out(engine) == 0)
        assert len(await store.append([an_event()])) == 1

    async def test_in_the_block_rolls_back(self, engine, session_factory):
        """A task that is cancelled in the block, outside of any statement, rolls back."""
        forever, reached = asyncio.Event(), asyncio.Event()

        async def block():
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await uow.session.execute(note("a"))
                reached.set()
                await forever.wait()

        task = asyncio.create_task(block())
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert checked_out(engine) == 0
        assert await notes(engine) == []

    async def test_by_a_timeout_around_the_block_is_a_timeout(self, engine, session_factory):
        """asyncio.timeout() around the block raises TimeoutError and nothing else."""
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), SQLAlchemyUnitOfWork(session_factory) as uow:
                await uow.session.execute(note("a"))
                await asyncio.Event().wait()
        assert checked_out(engine) == 0
        assert await notes(engine) == []

    @pytest.mark.parametrize("method", ["commit", "rollback", "close"])
    @pytest.mark.parametrize("when", ["before", "after"])
    async def test_at_the_end_gives_the_connection_back(self, engine, method, when):
        """A task that is cancelled while the block ends gives the connection back all the same."""
        reached, go_on = asyncio.Event(), asyncio.Event()

        class SlowSession(AsyncSession):
            pass

        async def slow(self):
            if when == "after":
                await getattr(AsyncSession, method)(self)
            reached.set()
            await go_on.wait()
            if when == "before":
                await getattr(AsyncSession, method)(self)

        setattr(SlowSession, method, slow)
        factory = async_sessionmaker(engine, class_=SlowSession)

        async def block():
            async with SQLAlchemyUnitOfWork(factory) as uow:
                await uow.session.execute(note("a"))
                if method == "rollback":
                    raise LookupError("mine")

        task = asyncio.create_task(block())
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(task), 5)
        go_on.set()
        await eventually(lambda: checked_out(engine) == 0)
        kept = method == "close" or (method, when) == ("commit", "after")
        assert await notes(engine) == (["a"] if kept else [])

    @ONLY_SQLITE
    @pytest.mark.parametrize("statement", ["BEGIN", "SAVEPOINT", "INSERT INTO events", "RELEASE"])
    async def test_in_a_statement_leaves_no_write_lock(self, database, monkeypatch, statement, make_engine):
        """A writer that is cancelled in whichever statement blocks no other one, while its error is still around."""
        execute, cancelled = aiosqlite.Connection._execute, []

        async def cancelled_after(self, function, *arguments, **options):
            result = await execute(self, function, *arguments, **options)
            if not cancelled and arguments and statement in str(arguments[0]):
                # As when the task is cancelled while the driver's thread is busy: the statement has run, and what it
                # returned has not been looked at.
                cancelled.append(statement)
                raise asyncio.CancelledError
            return result

        monkeypatch.setattr(aiosqlite.Connection, "_execute", cancelled_after)
        engine = configure_engine(make_engine(database.url))
        with pytest.raises(asyncio.CancelledError) as caught:
            async with SQLAlchemyUnitOfWork(async_sessionmaker(engine)) as uow:
                await SQLAlchemyEventStore().append([an_event(), an_event()], uow=uow)
        impatient = make_engine(database.url, connect_args={"timeout": 0})
        store = SQLAlchemyEventStore(async_sessionmaker(impatient))
        assert [event.version for event in await store.append([an_event()])] == [1]
        assert cancelled == [statement]
        assert caught.value is not None  # its traceback has kept the cursor alive until here

    @pytest.mark.parametrize("seed", range(2))
    async def test_at_any_time_leaves_whole_units_of_work(self, engine, session_factory, seed):
        """Of many tasks, most of them cancelled at random, each has stored all of its work or nothing."""
        rng = random.Random(seed)
        store = SQLAlchemyEventStore(session_factory)
        await store.last_position()

        async def block(number):
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await store.append([an_event("hot"), an_event(f"own-{number}")], uow=uow)
                async with uow.session.begin_nested():
                    await uow.session.execute(note(str(number)))
                await uow.commit()
                await store.get_events("hot", uow=uow)

        tasks = [asyncio.create_task(block(number)) for number in range(24)]
        for task in tasks:
            await asyncio.sleep(rng.random() * 0.02)  # random is the point of it
            if rng.random() < 0.7:
                task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [error for error in results if error and not isinstance(error, asyncio.CancelledError)] == []
        await eventually(lambda: checked_out(engine) == 0)
        versions = [event.version for event in await store.get_events("hot")]
        assert versions == list(range(1, len(versions) + 1))
        assert len(versions) == len(await notes(engine))

    async def test_twice_gives_the_connection_back(self, engine, session_factory):
        """A second cancellation during the rollback changes nothing."""
        reached, forever = asyncio.Event(), asyncio.Event()

        async def block():
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await uow.session.execute(note("a"))
                reached.set()
                await forever.wait()

        task = asyncio.create_task(block())
        await reached.wait()
        task.cancel()
        await asyncio.sleep(0)  # lets the rollback begin
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: checked_out(engine) == 0)
        assert await notes(engine) == []
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("b"))
        assert await notes(engine) == ["b"]

    async def test_while_the_end_waits_for_a_busy_task_gives_the_connection_back(self, engine, session_factory):
        """A cancellation while the block waits for another task's operation does not tear the connection from it."""
        store = SQLAlchemyEventStore(session_factory)

        async def block():
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                tasks.append(asyncio.create_task(store.append([an_event()], uow=uow)))
                await asyncio.sleep(0)  # lets the task start; its stream is in use

        tasks = []
        async with stream_in_use(session_factory, "order-1"):
            main = asyncio.create_task(block())
            await eventually(lambda: checked_out(engine) == 2)
            main.cancel()
            await asyncio.sleep(0)  # delivers it
        with pytest.raises(asyncio.CancelledError):
            await main
        await asyncio.gather(*tasks, return_exceptions=True)
        await eventually(lambda: checked_out(engine) == 0)
        assert await store.last_position() == 0


class TestLostConnections:
    @ONLY_POSTGRESQL
    @pytest.mark.parametrize("swallowed", [True, False])
    async def test_store_nothing_and_harm_nobody_else(self, engine, session_factory, swallowed):
        """When the server ends the connection the block raises, and the next one has another connection."""
        store = SQLAlchemyEventStore(session_factory)
        # What the driver says depends on how far it has got with the server's goodbye.
        expected = pytest.raises(UnitOfWorkError, match="cannot commit") if swallowed else pytest.raises(DBAPIError)
        with expected:
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await uow.session.execute(note("a"))
                pid = await uow.session.scalar(sa.text("SELECT pg_backend_pid()"))
                async with engine.connect() as connection:
                    await connection.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
                if swallowed:
                    with pytest.raises(DBAPIError):
                        await store.append([an_event()], uow=uow)
                else:
                    await store.append([an_event()], uow=uow)
        assert checked_out(engine) == 0
        assert await notes(engine) == []
        assert len(await store.append([an_event()])) == 1


async def someone_waits(engine):
    """Tell whether a session of this PostgreSQL database waits for another one's lock."""
    async with engine.connect() as connection:
        return await connection.scalar(
            sa.text(
                "SELECT count(*) > 0 FROM pg_stat_activity "
                "WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        )


class TestStockEngines:
    async def test_a_savepoint_before_any_write_does_not_survive_a_rollback(self, stock_engine):
        """On an engine without any settings a released savepoint is rolled back with its transaction."""
        factory = async_sessionmaker(stock_engine)
        async with SQLAlchemyUnitOfWork(factory) as uow:
            async with uow.session.begin_nested():
                await uow.session.execute(note("a"))
            await uow.rollback()
            await SQLAlchemyEventStore().append([an_event(), an_event()], uow=uow)
            await uow.rollback()
        with pytest.raises(LookupError, match="mine"):
            async with SQLAlchemyUnitOfWork(factory) as uow:
                async with uow.session.begin_nested():
                    await uow.session.execute(note("b"))
                raise LookupError("mine")
        assert await notes(stock_engine) == []
        assert await SQLAlchemyEventStore(factory).last_position() == 0

    async def test_a_read_before_the_first_write_does_not_spoil_it(self, stock_engine):
        """Units of work that read first and write later wait for each other instead of failing."""
        factory = async_sessionmaker(stock_engine)

        async def count_up():
            async with SQLAlchemyUnitOfWork(factory) as uow:
                known = len((await uow.session.scalars(sa.select(NOTES.c.projection_name))).all())
                await uow.session.execute(note(f"{known}-{id(uow)}"))

        await asyncio.gather(*(count_up() for _ in range(4)))
        assert len(await notes(stock_engine)) == 4

    async def test_ddl_is_part_of_the_transaction(self, stock_engine):
        """A table created in a unit of work that rolls back is gone."""
        async with SQLAlchemyUnitOfWork(async_sessionmaker(stock_engine)) as uow:
            await uow.session.execute(sa.text("CREATE TABLE passing (id INTEGER)"))
            await uow.rollback()
            connection = await uow.session.connection()
            assert not await connection.run_sync(lambda sync: sa.inspect(sync).has_table("passing"))

    async def test_a_read_of_its_own_does_not_wait_for_an_open_unit_of_work(self, stock_engine, database, make_engine):
        """Reading while another unit of work holds the write lock works at once and sees what is committed."""
        store = SQLAlchemyEventStore(async_sessionmaker(stock_engine))
        await store.append([an_event()])
        impatient = make_engine(database.url, connect_args={"timeout": 0} if database.kind == "sqlite" else {})
        reader = SQLAlchemyEventStore(async_sessionmaker(impatient))
        async with SQLAlchemyUnitOfWork(async_sessionmaker(stock_engine)) as uow:
            await store.append([an_event()], uow=uow)
            assert len(await reader.get_events("order-1")) == 1
            assert await reader.last_position() == 1
            assert len(await reader.get_events_after(0)) == 1
        assert len(await reader.get_events("order-1")) == 2

    async def test_reads_of_their_own_do_not_wait_on_a_configured_engine_either(self, engine, session_factory):
        """The recommended settings do not make readers wait for a writer."""
        store = SQLAlchemyEventStore(session_factory)
        await store.append([an_event()])
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await store.append([an_event()], uow=uow)
            async with asyncio.timeout(5):  # the busy timeout is 60 seconds
                assert len(await store.get_events("order-1")) == 1
                assert await store.last_position() == 1

    @pytest.mark.parametrize("how", ["of the engine", "as an execution option", "of one session"])
    async def test_autocommit_is_refused(self, database, how, make_engine):
        """An engine in AUTOCOMMIT mode, where nothing can be rolled back, is refused before anything is written."""
        options = {
            "of the engine": {"isolation_level": "AUTOCOMMIT"},
            "as an execution option": {"execution_options": {"isolation_level": "AUTOCOMMIT"}},
            "of one session": {},
        }[how]
        engine = make_engine(database.url, **options)
        bind = engine.execution_options(isolation_level="AUTOCOMMIT") if how == "of one session" else engine
        factory = async_sessionmaker(bind)
        with pytest.raises(UnitOfWorkError, match="AUTOCOMMIT mode, where nothing can be rolled back"):
            async with SQLAlchemyUnitOfWork(factory) as uow:
                await uow.session.execute(note("a"))
        with pytest.raises(UnitOfWorkError, match="AUTOCOMMIT mode"):
            await SQLAlchemyEventStore(factory).append([an_event()])
        async with engine.connect() as connection:
            assert (await connection.execute(sa.select(NOTES))).all() == []

    async def test_autocommit_stays_refused_after_the_error(self, database, make_engine):
        """Swallowing the refusal does not help: the next statement is refused as well."""
        engine = make_engine(database.url, execution_options={"isolation_level": "AUTOCOMMIT"})
        async with SQLAlchemyUnitOfWork(async_sessionmaker(engine)) as uow:
            with pytest.raises(UnitOfWorkError, match="AUTOCOMMIT mode"):
                await uow.session.execute(note("a"))
            with pytest.raises((UnitOfWorkError, InvalidRequestError)):
                await uow.session.execute(note("a"))
            await uow.rollback()
        async with engine.connect() as connection:
            assert (await connection.execute(sa.select(NOTES))).all() == []


class TestInMemory:
    """SQLite's `:memory:`, where all sessions share one connection."""

    @pytest.fixture(params=["stock", "configured"])
    async def memory(self, request):
        """An in-memory database with a table of notes."""
        made = create_async_engine("sqlite+aiosqlite://")
        if request.param == "configured":
            configure_engine(made)
        async with made.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield made
        await made.dispose()

    async def test_a_second_unit_of_work_is_refused(self, memory):
        """While one is open a second one is refused by name, and the first one's data is intact."""
        factory = async_sessionmaker(memory)
        async with SQLAlchemyUnitOfWork(factory) as uow:
            await uow.session.execute(note("a"))
            with pytest.raises(UnitOfWorkError, match="another unit of work is open on this in-memory database"):
                async with SQLAlchemyUnitOfWork(factory) as second:
                    await second.session.execute(note("b"))
            await uow.session.execute(note("c"))
        assert await notes(memory) == ["a", "c"]

    async def test_an_operation_of_its_own_is_refused_as_well(self, memory):
        """A store's own transaction would be the open unit of work's, so it is refused, reads included."""
        factory = async_sessionmaker(memory)
        store = SQLAlchemyEventStore(factory)
        async with SQLAlchemyUnitOfWork(factory) as uow:
            await uow.session.execute(note("a"))
            with pytest.raises(UnitOfWorkError, match=r"pass that unit of work as uow=, or use a database file"):
                await store.append([an_event()])
            with pytest.raises(UnitOfWorkError, match="in-memory"):
                await store.get_events("order-1")
        assert await notes(memory) == ["a"]

    async def test_one_after_the_other_is_fine(self, memory):
        """After the end, however it came, the next unit of work has the database."""
        factory = async_sessionmaker(memory)
        async with SQLAlchemyUnitOfWork(factory) as uow:
            await uow.session.execute(note("a"))
        with pytest.raises(LookupError, match="mine"):
            async with SQLAlchemyUnitOfWork(factory) as uow:
                await uow.session.execute(note("lost"))
                raise LookupError("mine")
        async with SQLAlchemyUnitOfWork(factory) as uow:
            await uow.session.execute(note("b"))
        assert await notes(memory) == ["a", "b"]

    async def test_a_second_engine_view_of_it_is_refused_too(self, memory):
        """`engine.execution_options()` makes another engine object on the same connection: refused as well."""
        view = memory.execution_options(schema_translate_map={"tenant": None})
        async with SQLAlchemyUnitOfWork(async_sessionmaker(memory)) as uow:
            await uow.session.execute(note("a"))
            with pytest.raises(UnitOfWorkError, match="in-memory"):
                async with SQLAlchemyUnitOfWork(async_sessionmaker(view)) as second:
                    await second.session.execute(note("b"))
                    await second.rollback()
        assert await notes(memory) == ["a"]


async def test_committed_transactions_are_forgotten(session_factory):
    """Nothing that was remembered of a transaction stays in memory after its end."""
    store = SQLAlchemyEventStore()
    for _ in range(20):
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await store.append([an_event()], uow=uow)
            connection = await uow.session.connection()
            undoing.on_rollback(connection.sync_connection, lambda: None)
        del connection, uow
    gc.collect()
    assert len(undoing._undos) <= 1
    assert len(DIALECTS["postgresql"]._holding) <= 1
