"""A unit of work that is cancelled at any of its steps: whose commit stands is called back, and nobody else."""

from __future__ import annotations

import asyncio
import gc

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.pool import NullPool

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionPositionStore
from tests.core.notes import notes
from tests.support.engines import configured_engine

POSITIONS = SQLAlchemyProjectionPositionStore()
STEPS = 34


class CancelledAt:
    """Awaits a coroutine in the current task, which is cancelled as what it waits for at a certain step has come."""

    def __init__(self, coroutine, step):
        self._coroutine = coroutine
        self._step = step

    def __await__(self):
        steps, task = self._coroutine.__await__(), asyncio.current_task()
        number, send, value = 0, steps.send, None
        while True:
            try:
                waits_for = send(value)
            except StopIteration as end:
                return end.value
            number += 1
            if number == self._step:
                if waits_for is None:
                    asyncio.get_running_loop().call_soon(task.cancel)
                else:
                    waits_for.add_done_callback(lambda _: task.cancel())
            try:
                value, send = (yield waits_for), steps.send
            except BaseException as error:  # noqa: BLE001  (a cancellation goes where it belongs)
                value, send = error, steps.throw


# A connection that aiosqlite is cancelled in opening is closed as it is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("pool", [None, NullPool])
@pytest.mark.parametrize("session", ["none", "first", "later"])
@pytest.mark.parametrize("ending", ["block", "commit"])
async def test_cancelled_at_any_step(database, pool, session, ending):
    """But for the one step in which the database commits, of which the task learns nothing."""
    async with configured_engine(database.url, **({} if pool is None else {"poolclass": pool})) as engine:
        factory, called = async_sessionmaker(engine), []

        async def work(name):
            async with SQLAlchemyUnitOfWork(factory) as uow:
                if session == "first":
                    await uow.session.execute(sa.text("SELECT 1"))
                await POSITIONS.save_position(name, 1, uow=uow)
                uow.on_commit(lambda: called.append(name))
                if session == "later":
                    await uow.session.execute(sa.text("SELECT 1"))
                if ending == "commit":
                    await uow.commit()

        async def cancelled(step):
            await CancelledAt(work(f"{step:02}"), step)

        for step in range(STEPS):
            task = asyncio.create_task(cancelled(step))
            await asyncio.wait([task])
            assert task.cancelled() or task.exception() is None
        stored = await notes(engine)
        assert set(called) <= set(stored)
        assert len(called) == len(set(called)) > 1
        assert len(set(stored) - set(called)) <= 1
    gc.collect()
