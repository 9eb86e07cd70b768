"""Workers that are killed again and again: every saga ends, each step at least once, never in two workers at once."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import asynccontextmanager

import pytest
import sqlalchemy as sa

from cqrs_ddd_advanced_core.sagas import SagaStatus, StepStatus
from cqrs_ddd_persistence_sqlalchemy import SagaStateModel
from tests.advanced.sagas.worker import CONCURRENCY, Trip, effects, repository
from tests.support.databases import ROOT

STEPS = ["book_flight", "book_hotel", "book_car"]
UNDONE = ["cancel_hotel", "cancel_flight"]
PATIENCE_SECONDS = 120


class Workers:
    """Some processes, one of which can be killed and replaced."""

    def __init__(self, url, count, step_seconds):
        self._command = [sys.executable, "-m", "tests.advanced.sagas.worker", url, str(step_seconds)]
        self.running = [self._start() for _ in range(count)]
        self.killed = {}

    def _start(self):
        return subprocess.Popen(self._command, cwd=ROOT)

    def kill_one(self):
        victim = self.running.pop(random.randrange(len(self.running)))
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        self.killed[victim.pid] = time.time()
        self.running.append(self._start())

    def stop(self):
        for process in self.running:
            process.send_signal(signal.SIGTERM)
        return [process.wait(timeout=30) for process in self.running]


@asynccontextmanager
async def working(url, count, step_seconds):
    workers = Workers(url, count, step_seconds)
    try:
        yield workers
        assert set(workers.stop()) <= {0, -signal.SIGTERM}  # which it does not handle yet as it starts
    finally:
        for process in workers.running:
            process.kill()
            process.wait()


async def number_of(engine, table, condition):
    async with engine.connect() as connection:
        return await connection.scalar(sa.select(sa.func.count()).select_from(table).where(condition))


async def run_under_fire(engine, url, *, sagas, processes, step_seconds, kills, effects_between=None, seconds=None):
    """Run sagas in processes of which one is killed after so many effects or seconds; return the kills by process."""
    trips = repository(engine)
    async with engine.begin() as connection:
        await connection.run_sync(effects.metadata.create_all)
    for number in range(sagas):
        await trips.add(Trip(id=f"t{number:04}", refused=number % 5 == 0))
    live = SagaStateModel.status.not_in([SagaStatus.COMPLETED, SagaStatus.CANCELLED, SagaStatus.FAILED])
    async with working(url, processes, step_seconds) as workers:
        for kill in range(1, kills + 1):
            if seconds is None:
                while await number_of(engine, effects, sa.true()) < kill * effects_between:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            else:
                await asyncio.sleep(seconds)
            workers.kill_one()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await number_of(engine, SagaStateModel, live):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    return workers.killed


async def check(engine, sagas, killed):
    """Compare what the sagas say with what was done outside, and when."""
    trips, log = repository(engine), defaultdict(list)
    async with engine.connect() as connection:
        for row in await connection.execute(sa.select(effects).order_by(effects.c.number)):
            log[row.saga_id].append(row)
    found = await trips.list(limit=sagas + 1)
    assert len(found) == sagas
    repeated = 0
    for trip in found:
        done = [row.what for row in log[trip.id] if row.mark == "done"]
        first = list(dict.fromkeys(done))
        recorded = [each.name for each in trip.step_history if each.status is not StepStatus.FAILED]
        assert trip.status is (SagaStatus.CANCELLED if trip.refused else SagaStatus.COMPLETED)
        assert first == ([*STEPS[:2], *UNDONE] if trip.refused else STEPS)
        assert recorded == (STEPS[:2] if trip.refused else STEPS)
        assert len({row.key for row in log[trip.id]}) == len(first)
        repeated += sum(row.mark == "begun" for row in log[trip.id]) - len(first)
        never_two_at_once(log[trip.id], killed)
    # A kill repeats what was under way, at most: a step or a compensation of each saga that the process had.
    assert repeated <= len(killed) * CONCURRENCY
    return repeated


def never_two_at_once(rows, killed):
    """Fail when a process begins something while another one, which is alive, is in the middle of something."""
    open_in = {}
    for row in rows:
        if row.mark == "done":
            open_in.pop(row.worker, None)
            continue
        for other in [each for each in open_in if each != row.worker]:
            assert killed.get(other, float("inf")) <= row.at, f"{row} while {other} was at work"
            del open_in[other]
        open_in[row.worker] = row.what


async def test_workers_are_killed_and_every_saga_ends(engine, database):
    """Completed, or undone in reverse; what was begun by a dead worker is done again with the same key."""
    options = {"sagas": 40, "processes": 3, "step_seconds": 0.03, "kills": 4, "effects_between": 40}
    killed = await run_under_fire(engine, database.url, **options)
    assert len(killed) == 4
    await check(engine, 40, killed)


@pytest.mark.slow
async def test_a_worker_is_killed_every_second_for_a_minute(engine, database):
    """Four processes on PostgreSQL, two on SQLite; five hundred sagas."""
    on_postgresql = database.kind == "postgresql"
    killed = await run_under_fire(
        engine,
        database.url,
        sagas=500,
        processes=4 if on_postgresql else 2,
        step_seconds=0.4 if on_postgresql else 0.2,
        kills=60,
        seconds=1.0,
    )
    repeated = await check(engine, 500, killed)
    assert repeated > 0
