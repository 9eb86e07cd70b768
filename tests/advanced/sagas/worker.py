"""A process with a runner, for tests that kill it: python -m tests.advanced.sagas.worker URL STEP_SECONDS."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_advanced_core.sagas import SagaState, saga_step
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork, configure_engine
from cqrs_ddd_persistence_sqlalchemy.advanced import SagaRunner, SQLAlchemySagaRepository
from tests.support.engines import create_async_engine

LEASE = timedelta(seconds=3)
CONCURRENCY = 4

effects = sa.Table(
    "effects",
    sa.MetaData(),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("saga_id", sa.String(50), nullable=False),
    sa.Column("what", sa.String(50), nullable=False),
    sa.Column("key", sa.String(200), nullable=False),
    sa.Column("mark", sa.String(10), nullable=False),  # "begun" or "done"
    sa.Column("worker", sa.Integer, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
)


class Outside:
    """Writes down, on connections of its own, when each effect was begun and done, and by which process."""

    def __init__(self, engine, seconds):
        self.engine = engine
        self.seconds = seconds

    async def do(self, saga, what):
        await self.note(saga, what, "begun")
        await asyncio.sleep(random.uniform(0.5, 1.5) * self.seconds)
        await self.note(saga, what, "done")

    async def note(self, saga, what, mark):
        row = {
            "saga_id": saga.id,
            "what": what,
            "key": saga.step_key(what),
            "mark": mark,
            "worker": os.getpid(),
            "at": time.time(),
        }
        async with self.engine.begin() as connection:
            await connection.execute(sa.insert(effects), row)


class Trip(SagaState):
    """Three bookings; the third one is refused on some trips, always."""

    refused: bool = False

    @saga_step(compensation="cancel_flight")
    async def book_flight(self, outside):
        await outside.do(self, "book_flight")

    @saga_step(compensation="cancel_hotel")
    async def book_hotel(self, outside):
        await outside.do(self, "book_hotel")

    @saga_step(compensation="cancel_car", retries=1)
    async def book_car(self, outside):
        if self.refused:
            raise ConnectionRefusedError("no cars today")
        await outside.do(self, "book_car")

    async def cancel_flight(self, outside):
        await outside.do(self, "cancel_flight")

    async def cancel_hotel(self, outside):
        await outside.do(self, "cancel_hotel")

    async def cancel_car(self, outside):
        await outside.do(self, "cancel_car")


def repository(engine):
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    return SQLAlchemySagaRepository(Trip, lambda: SQLAlchemyUnitOfWork(sessions))


async def main(url, seconds):
    engine, beside = (configure_engine(create_async_engine(url)) for _ in range(2))
    runner = SagaRunner(
        repository(engine),
        services={"outside": Outside(beside, float(seconds))},
        concurrency=CONCURRENCY,
        lease=LEASE,
        poll_interval=timedelta(milliseconds=100),
        backoff=timedelta(milliseconds=50),
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, runner.stop)
    await runner.run()
    await engine.dispose()
    await beside.dispose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
