"""A unit of work makes its session when somebody asks for it: before, in the middle of, or after what stores do."""
# ruff: noqa: PT012  (what must fail is the end of a block)

from __future__ import annotations

import asyncio
import gc

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from cqrs_ddd_advanced_core.projections import ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionPositionStore, SQLAlchemyProjectionStore
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError, UnitOfWorkError
from tests.core.notes import Note, note, notes
from tests.support.engines import checked_out
from tests.support.events import an_event
from tests.support.waiting import until

POSITIONS = SQLAlchemyProjectionPositionStore()

pytestmark = pytest.mark.usefixtures("a_connection_in_the_pool")


async def test_none_is_made_where_nobody_asks(engine, session_factory, sessions):
    """Blocks of stores' operations commit and roll back by themselves, and give the connection back each time."""
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await POSITIONS.save_position("a", 1, uow=uow)
        assert await notes(engine) == []
        assert checked_out(engine) == 1
        await uow.commit()
        assert checked_out(engine) == 0
        await POSITIONS.save_position("b", 1, uow=uow)
        await uow.rollback()
        assert checked_out(engine) == 0
        await POSITIONS.save_position("c", 1, uow=uow)
        assert await POSITIONS.get_position("c", uow=uow) == 1
    assert checked_out(engine) == 0
    with pytest.raises(LookupError):
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await POSITIONS.save_position("d", 1, uow=uow)
            raise LookupError
    assert await notes(engine) == ["a", "c"]
    assert sessions == []


@pytest.mark.parametrize("ending", ["commit", "rollback", "block", "by hand"])
async def test_one_that_comes_later_is_in_the_same_transaction(engine, session_factory, ending):
    """It sees what stores have written, and all of it is kept, or lost, together; then it goes on by itself."""
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await POSITIONS.save_position("stores", 1, uow=uow)
        assert await uow.session.scalar(sa.text("SELECT count(*) FROM projection_positions")) == 1
        uow.session.add(Note(projection_name="mine", position=1))
        await POSITIONS.save_position("stores too", 1, uow=uow)
        assert checked_out(engine) == 1
        if ending == "commit":
            await uow.commit()
        elif ending == "by hand":
            await uow.session.commit()
        elif ending == "rollback":
            await uow.rollback()
        if ending != "block":
            assert await notes(engine) == ([] if ending == "rollback" else ["mine", "stores", "stores too"])
            assert checked_out(engine) == 0
            assert uow.session.get_bind() is engine.sync_engine
            await POSITIONS.save_position("after", 1, uow=uow)
            await uow.session.execute(note("and after that"))
    kept = [] if ending == "rollback" else ["mine", "stores", "stores too"]
    assert await notes(engine) == sorted([*kept, *([] if ending == "block" else ["after", "and after that"])])
    assert checked_out(engine) == 0


async def test_what_listens_to_it_is_told_after_the_commit(engine, session_factory):
    """A session that nobody has given anything to is told of the stores' commit all the same, and not too early."""
    seen = []
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await POSITIONS.save_position("a", 1, uow=uow)
        connection = await uow.connection()
        event.listen(
            uow.session.sync_session, "after_commit", lambda _: seen.append(connection.sync_connection.in_transaction())
        )
        event.listen(uow.session.sync_session, "before_commit", lambda _: seen.append("before"))
    assert seen == ["before", False]


async def test_savepoints_of_the_session(engine, session_factory):
    """What stores do inside of one is taken back with it."""
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await POSITIONS.save_position("a", 1, uow=uow)
        async with uow.session.begin_nested() as savepoint:
            await POSITIONS.save_position("b", 1, uow=uow)
            await savepoint.rollback()
        await POSITIONS.save_position("c", 1, uow=uow)
    assert await notes(engine) == ["a", "c"]


async def test_a_refused_statement_spoils_the_transaction(engine, session_factory):
    """A commit after an error of the database is refused, whether or not there is a session; rolling back helps."""
    for asks in (False, True):
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await POSITIONS.save_position("a", 1, uow=uow)
            connection = await uow.connection()
            with pytest.raises(DBAPIError):
                await connection.execute(sa.text("SELECT * FROM nowhere"))
            if asks:
                assert uow.session.in_transaction()
            with pytest.raises(UnitOfWorkError, match="cannot commit"):
                await uow.commit()
            assert checked_out(engine) == 0
            await POSITIONS.save_position(f"again, {asks}", 1, uow=uow)
    assert await notes(engine) == ["again, False", "again, True"]


async def test_a_conflict_ends_the_block_in_a_rollback(engine, session_factory, sessions):
    """As it does with a session."""
    store = SQLAlchemyEventStore(session_factory)
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await POSITIONS.save_position("a", 1, uow=uow)
        with pytest.raises(OptimisticConcurrencyError):
            await store.append([an_event("x")], expected_version=7, uow=uow)
    assert await notes(engine) == []
    assert sessions == []


async def test_documents_may_come_from_the_session(engine, session_factory):
    """An iterable that asks for the session in the midst of a bulk_upsert, between its savepoints, is no trouble."""
    schema = ProjectionSchema("docs", [("id", "INTEGER PRIMARY KEY"), ("name", "TEXT")])
    store = SQLAlchemyProjectionStore(session_factory, schemas=[schema], allow_auto_ddl=True)
    await store.ensure_collection("docs", schema=schema)

    def docs(uow, count):
        for number in range(count):
            if number == 5500:
                uow.session.add(Note(projection_name="noted", position=1))
            yield {"id": number, "name": "n"}

    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await POSITIONS.save_position("a", 1, uow=uow)
        assert await store.bulk_upsert("docs", docs(uow, 12_000), uow=uow) == 12_000
    assert await notes(engine) == ["a", "noted"]
    assert await store.count("docs") == 12_000


# A connection that aiosqlite is cancelled in opening is closed as it is collected, of which Python 3.13 warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
async def test_cancelled_wherever_it_is(engine, session_factory):
    """A unit of work that is cancelled has written all or nothing, and its connection is not lost."""

    async def work(number):
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await POSITIONS.save_position(f"{number:03} a", 1, uow=uow)
            if number % 2:
                await uow.session.execute(note(f"{number:03} m"))
            await POSITIONS.save_position(f"{number:03} z", 1, uow=uow)

    for number in range(60):
        task = asyncio.create_task(work(number))
        for _ in range(number // 2):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await until(lambda: checked_out(engine) == 0)
    found = await notes(engine)
    for number in range(60):
        ours = [each[-1] for each in found if each.startswith(f"{number:03}")]
        assert ours in ([], ["a", "m", "z"] if number % 2 else ["a", "z"])
    gc.collect()


async def test_another_task_is_refused_while_the_block_ends(session_factory):
    """What comes too late does not get in between the COMMIT and the end."""
    store, outcomes = SQLAlchemyEventStore(session_factory), set()
    for turns in range(12):

        async def straggle(uow, turns=turns):
            for _ in range(turns):
                await asyncio.sleep(0)
            await store.append([an_event(f"late-{turns}") for _ in range(3)], uow=uow)

        straggling = None
        try:
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await POSITIONS.save_position("p", turns, uow=uow)
                straggling = asyncio.create_task(straggle(uow))
                await asyncio.sleep(0)
        except UnitOfWorkError:
            outcomes.add("rolled back")
        (result,) = await asyncio.gather(straggling, return_exceptions=True)
        outcomes.add(result if result is None else type(result))
        if isinstance(result, Exception):
            assert await store.get_events(f"late-{turns}") == []
    assert outcomes <= {"rolled back", None, UnitOfWorkError}
    await SQLAlchemyProjectionPositionStore(session_factory).save_position("afterwards", 1)


async def test_the_session_is_not_another_tasks_to_ask_for(session_factory, engine):
    """While the first operation begins the transaction, a session would begin another one."""
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        saving = asyncio.create_task(POSITIONS.save_position("a", 1, uow=uow))
        await asyncio.sleep(0)
        if engine.dialect.name == "sqlite":  # where beginning waits for the thread
            with pytest.raises(UnitOfWorkError, match="two tasks"):
                uow.session.add(Note(projection_name="b", position=1))
        await saving
    assert await notes(engine) == ["a"]


async def test_options_of_a_session_end_with_its_transaction(session_factory, engine):
    """What somebody asks of the session's connection holds for that transaction only, also where it ends by hand."""
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await POSITIONS.save_position("a", 1, uow=uow)
        connection = await uow.session.connection()
        await connection.execution_options(mine=True)
        await uow.session.commit()
        connection = await uow.connection()
        assert "mine" not in connection.sync_connection.get_execution_options()
        await POSITIONS.save_position("b", 1, uow=uow)
    assert await notes(engine) == ["a", "b"]


async def test_asked_for_inside_of_a_savepoint(session_factory, engine):
    """A session that comes while a savepoint of the connection is open is in the transaction around it, too."""
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await POSITIONS.save_position("a", 1, uow=uow)
        connection = await uow.connection()
        async with connection.begin_nested() as savepoint:
            await uow.session.execute(note("lost"))
            await savepoint.rollback()
        async with connection.begin_nested():
            await uow.session.execute(note("b"))
        await POSITIONS.save_position("c", 1, uow=uow)
    assert await notes(engine) == ["a", "b", "c"]
