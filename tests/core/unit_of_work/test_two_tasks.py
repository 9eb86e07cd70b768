"""Two tasks on one open unit of work are refused, and a block waits for the one that is busy."""
# ruff: noqa: PT012  (what must fail is the end of a block)

from __future__ import annotations

import asyncio

import pytest

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.exceptions import UnitOfWorkError
from tests.core.contention import stream_in_use
from tests.support.engines import checked_out
from tests.support.events import an_event
from tests.support.waiting import until


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
            await until(lambda: checked_out(engine) == 2)
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
            await until(lambda: checked_out(engine) == 2)
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
            await until(lambda: checked_out(engine) == 2)
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
            await until(lambda: checked_out(engine) == 2)
        with pytest.raises(UnitOfWorkError, match="ended while another task was using it"):
            await main
        # Whether the task is refused, or was waited for to its end, is all the same.
        [ended] = await asyncio.gather(*tasks, return_exceptions=True)
        assert ended is None or isinstance(ended, UnitOfWorkError)
        assert await store.last_position() == 0
        assert checked_out(engine) == 0
