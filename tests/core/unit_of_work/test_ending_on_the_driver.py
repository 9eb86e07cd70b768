"""A unit of work that nobody asks for its session, nor for SQLAlchemy's connection, ends on the driver."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, IntegrityError, ResourceClosedError
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionPositionStore, SQLAlchemyProjectionStore
from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_of, execute_kept, untouched
from cqrs_ddd_persistence_sqlalchemy.exceptions import PersistenceError, UnitOfWorkError
from tests.core.notes import notes
from tests.support.engines import checked_out, configured_engine
from tests.support.events import an_event
from tests.support.kinds import ONLY_POSTGRESQL, PAST_SQLALCHEMY
from tests.support.waiting import until

POSITIONS = SQLAlchemyProjectionPositionStore()

pytestmark = pytest.mark.usefixtures("a_connection_in_the_pool")

CHILDREN = "CREATE TABLE children (id TEXT PRIMARY KEY, parent TEXT REFERENCES children DEFERRABLE INITIALLY DEFERRED)"
SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
SLOW_COMMITS = (
    "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NULL; END'",
    """CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON projection_positions DEFERRABLE INITIALLY DEFERRED
       FOR EACH ROW EXECUTE FUNCTION slow()""",
)


@PAST_SQLALCHEMY
async def test_a_commit_that_is_refused(engine, session_factory, sessions):
    """All that the unit of work has done is taken back, and the next transaction is a new one."""
    async with engine.begin() as connection:
        await connection.execute(sa.text(CHILDREN))
    store = SQLAlchemyProjectionStore(session_factory)
    await store.upsert("children", "root", {"parent": None})  # what the table is like is known from here on
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await POSITIONS.save_position("a", 1, uow=uow)
        await store.upsert("children", "child", {"parent": "nobody"}, uow=uow)
        is_bare = untouched(await uow.connection()) is not None
        assert is_bare is dialect_of(engine).begins_lazily
        with pytest.raises(IntegrityError):
            await uow.commit()
        assert checked_out(engine) == 0
        await store.upsert("children", "child", {"parent": "root"}, uow=uow)
    assert await notes(engine) == []
    assert [each["id"] for each in await store.find("children", sort=[("id", 1)])] == ["child", "root"]
    assert checked_out(engine) == 0
    assert sessions == []


async def test_a_connection_is_of_use_until_its_transaction_ends(engine, session_factory):
    """Whoever keeps it is told so, and disturbs nobody who has it next."""
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        connection = await uow.connection()
        await POSITIONS.save_position("a", 1, uow=uow)
        await uow.commit()
        with pytest.raises(ResourceClosedError):
            await connection.execute(sa.text("SELECT 1"))
        with pytest.raises(ResourceClosedError):
            await execute_kept(connection, sa.select(sa.literal(1)))
        assert connection.closed
        assert not connection.in_transaction()
        assert hash(connection) == hash(connection)
        await connection.close()
        await POSITIONS.save_position("b", 1, uow=uow)
        assert checked_out(engine) == 1
    assert await notes(engine) == ["a", "b"]


@ONLY_POSTGRESQL
async def test_an_append_after_its_transaction_was_ended_by_hand(session_factory):
    """It is refused, where it would hold no reader: a place that was noted for one transaction is none of the next."""
    store = SQLAlchemyEventStore(session_factory)
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await store.append([an_event()], uow=uow)
        await (await uow.connection()).commit()
        with pytest.raises(PersistenceError, match="needs a transaction"):
            await store.append([an_event()], uow=uow)
        await uow.rollback()
        await store.append([an_event()], uow=uow)
    assert len(await store.get_events_after(0)) == 2


async def test_the_session_is_not_another_tasks_to_ask_for_as_the_block_ends(engine, session_factory):
    """A session that takes over what is being committed would have nothing left to end."""
    for turns in range(12):

        async def ask(uow, turns=turns):
            for _ in range(turns):
                await asyncio.sleep(0)
            await uow.session.execute(sa.text("SELECT 1"))

        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await POSITIONS.save_position(f"{turns:02}", 1, uow=uow)
            asking = asyncio.create_task(ask(uow))
        (outcome,) = await asyncio.gather(asking, return_exceptions=True)
        assert outcome is None or isinstance(outcome, UnitOfWorkError), outcome
    assert await notes(engine) == [f"{turns:02}" for turns in range(12)]


@pytest.mark.parametrize("asks_for", ["nothing", "connection", "session"])
@pytest.mark.parametrize("ending", ["block", "commit"])
async def test_who_waits_for_a_connection_has_the_next(database, asks_for, ending):
    """However busy the one is that gives it back."""
    async with configured_engine(database.url, pool_size=1, max_overflow=0) as engine:
        factory, done = async_sessionmaker(engine), []

        async def work(name):
            async with SQLAlchemyUnitOfWork(factory) as uow:
                await POSITIONS.save_position(name, len(done), uow=uow)
                if asks_for == "connection":
                    await (await uow.connection()).execute(sa.text("SELECT 1"))
                elif asks_for == "session":
                    await uow.session.execute(sa.text("SELECT 1"))
                if ending == "commit":
                    await uow.commit()
            done.append(name)

        async def work_on(name):
            while len(done) < 40:
                await work(name)

        await asyncio.gather(*(work_on(name) for name in "abc"))
        for name in "abc":
            assert done.count(name) >= 10


async def test_one_that_asks_the_driver_for_nothing(engine, session_factory, sessions):
    """Neither its commit nor its end is any trouble."""
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await uow.connection()
        await uow.commit()
        assert checked_out(engine) == 0
        await uow.connection()
        await uow.rollback()
        await uow.connection()
    assert checked_out(engine) == 0
    assert sessions == []


@pytest.mark.parametrize("what", ["before_cursor_execute", "before_execute"])
async def test_who_listens_from_the_middle_on_hears_the_rest(engine, session_factory, what):
    """As from the beginning."""
    heard = []
    listener = lambda *_: heard.append(what)  # noqa: E731
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await POSITIONS.save_position("a", 1, uow=uow)
        event.listen(engine.sync_engine, what, listener)
        await POSITIONS.save_position("b", 1, uow=uow)
        event.remove(engine.sync_engine, what, listener)
    assert heard
    assert await notes(engine) == ["a", "b"]


@pytest.mark.parametrize("what", ["commit", "rollback"])
async def test_who_listens_to_the_end_hears_it(engine, session_factory, what):
    """Also who began to listen after the beginning."""
    heard = []
    listener = lambda _: heard.append(what)  # noqa: E731
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await POSITIONS.save_position("a", 1, uow=uow)
        event.listen(engine.sync_engine, what, listener)
        await (uow.commit() if what == "commit" else uow.rollback())
        event.remove(engine.sync_engine, what, listener)
    assert heard == [what]
    assert await notes(engine) == (["a"] if what == "commit" else [])


@pytest.mark.parametrize("ending", ["block", "commit"])
async def test_cancelled_as_it_hands_its_connection_on(database, ending):
    """What is committed is committed: callbacks are called, and the task is cancelled."""
    called, has_written, may_end = [], asyncio.Event(), asyncio.Event()

    async def first(factory):
        async with SQLAlchemyUnitOfWork(factory) as uow:
            await POSITIONS.save_position("a", 1, uow=uow)
            uow.on_commit(lambda: called.append("a"))
            has_written.set()
            await may_end.wait()
            if ending == "commit":
                await uow.commit()
        await asyncio.sleep(0)

    async def second(factory):
        async with SQLAlchemyUnitOfWork(factory) as uow:
            await uow.connection()
            task.cancel()

    async with configured_engine(database.url, pool_size=1, max_overflow=0) as engine:
        factory = async_sessionmaker(engine)
        async with engine.connect():
            pass
        task = asyncio.create_task(first(factory))
        await has_written.wait()
        waiting = asyncio.create_task(second(factory))
        for _ in range(5):
            await asyncio.sleep(0)  # until it waits for the pool
        may_end.set()
        await asyncio.wait([task, waiting])
        assert task.cancelled() or database.kind == "sqlite"  # where the other one has to begin first
        waiting.result()
        assert called == ["a"]
        assert await notes(engine) == ["a"]
        assert checked_out(engine) == 0


@PAST_SQLALCHEMY
@ONLY_POSTGRESQL
@pytest.mark.parametrize("is_bare", [True, False])
async def test_a_connection_that_is_lost_before_the_commit(engine, session_factory, is_bare):
    """It is an error of SQLAlchemy's that says so, and the next transaction has another connection."""
    called = []
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await POSITIONS.save_position("a", 1, uow=uow)
        connection = await uow.connection()
        pid = untouched(connection).pooled.driver_connection.get_server_pid()
        assert is_bare or connection.sync_connection is not None
        uow.on_commit(lambda: called.append("a"))
        async with engine.connect() as other:
            await other.execute(sa.text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid})
        with pytest.raises(DBAPIError) as caught:
            await uow.commit()
        assert caught.value.connection_invalidated
        await POSITIONS.save_position("b", 1, uow=uow)
    assert called == []
    assert await notes(engine) == ["b"]
    assert checked_out(engine) == 0


@PAST_SQLALCHEMY
@ONLY_POSTGRESQL
async def test_cancelled_in_the_midst_of_its_commit(engine, session_factory):
    """The connection is thrown away; nothing is known of the transaction, and nothing half done."""
    async with engine.begin() as connection:
        for statement in SLOW_COMMITS:
            await connection.execute(sa.text(statement))

    async def work():
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await POSITIONS.save_position("a", 1, uow=uow)
            assert untouched(await uow.connection())

    async def is_committing():
        async with engine.connect() as connection:
            return await connection.scalar(
                sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
            )

    task = asyncio.create_task(work())
    await until(is_committing)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert checked_out(engine) == 0
    async with engine.begin() as connection:
        await connection.execute(sa.text("DROP TRIGGER slow ON projection_positions"))
    await SQLAlchemyProjectionPositionStore(session_factory).save_position("b", 1)
    assert await notes(engine) == ["b"]  # the server has heard of it
