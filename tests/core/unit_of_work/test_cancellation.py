"""Cancelled tasks, at whatever point, leave neither half of the work nor a connection behind."""
# ruff: noqa: PT012  (what must fail is the end of a block)

from __future__ import annotations

import asyncio
import random

import aiosqlite
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork, configure_engine
from tests.core.bystander import waiting
from tests.core.contention import stream_in_use
from tests.core.notes import note, notes
from tests.support.engines import checked_out
from tests.support.events import an_event
from tests.support.kinds import ONLY_SQLITE
from tests.support.waiting import until


async def a_task_in_a_block(session_factory):
    """Start a task whose unit of work has written a note and goes on for ever, and return it once it is there."""
    reached = asyncio.Event()

    async def block():
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            reached.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(block())
    await reached.wait()
    return task


class TestCancellation:
    async def test_in_a_statement_gives_the_connection_back(self, engine, session_factory, database):
        """A task that is cancelled while it waits for the database leaves neither connection nor lock behind."""
        store = SQLAlchemyEventStore(session_factory)

        async def block():
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await store.append([an_event()], uow=uow)

        async with stream_in_use(session_factory, "order-1"):
            task = asyncio.create_task(block())
            await until(lambda: checked_out(engine) == 2)
            if database.kind == "postgresql":
                await until(lambda: waiting(engine))
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: checked_out(engine) == 0)
        assert len(await store.append([an_event()])) == 1

    async def test_of_an_operation_of_its_own_gives_the_connection_back(self, engine, session_factory, database):
        """The same goes for an operation in a transaction of its own."""
        store = SQLAlchemyEventStore(session_factory)
        async with stream_in_use(session_factory, "order-1"):
            task = asyncio.create_task(store.append([an_event()]))
            await until(lambda: checked_out(engine) == 2)
            if database.kind == "postgresql":
                await until(lambda: waiting(engine))
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: checked_out(engine) == 0)
        assert len(await store.append([an_event()])) == 1

    async def test_in_the_block_rolls_back(self, engine, session_factory):
        """A task that is cancelled in the block, outside of any statement, rolls back."""
        task = await a_task_in_a_block(session_factory)
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
        await until(lambda: checked_out(engine) == 0)
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
        await until(lambda: checked_out(engine) == 0)
        versions = [event.version for event in await store.get_events("hot")]
        assert versions == list(range(1, len(versions) + 1))
        assert len(versions) == len(await notes(engine))

    async def test_twice_gives_the_connection_back(self, engine, session_factory):
        """A second cancellation during the rollback changes nothing."""
        task = await a_task_in_a_block(session_factory)
        task.cancel()
        await asyncio.sleep(0)  # lets the rollback begin
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: checked_out(engine) == 0)
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
            await until(lambda: checked_out(engine) == 2)
            main.cancel()
            await asyncio.sleep(0)  # delivers it
        with pytest.raises(asyncio.CancelledError):
            await main
        await asyncio.gather(*tasks, return_exceptions=True)
        await until(lambda: checked_out(engine) == 0)
        assert await store.last_position() == 0
