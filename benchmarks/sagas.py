"""Sagas with four kilobytes of state and fifty steps behind them, saved and loaded."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import Field

from benchmarks.raw_events import as_text, as_time, dumps
from benchmarks.workload import LIBRARY, RAW, Side, Workload
from cqrs_ddd_advanced_core.sagas import SagaState, SagaStatus, StepRecord
from cqrs_ddd_advanced_core.sagas.steps import StepStatus
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemySagaRepository

if TYPE_CHECKING:
    from benchmarks.bench import Bench

SAGAS, STEPS, STATE_BYTES = 100, 50, 4000
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = """
    SELECT correlation_id, status, version, state, events, timeout_at, lease_until
    FROM sagas WHERE saga_type = 'Trip' AND id LIKE '{side}-%' ORDER BY length(id), id
"""
IN_COLUMNS = {"id", "correlation_id", "status", "timeout_at", "step_history"}
NOW_ON_SQLITE = "strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'"
SAVE = """
    UPDATE sagas SET status = {1}, state = {2}, events = {3}, timeout_at = {4}, version = version + 1,
        updated_at = {now}
    WHERE id = {5} AND saga_type = 'Trip' AND version = {6}
"""
ON_POSTGRESQL = SAVE.format(*(f"${n}" for n in range(7)), now="clock_timestamp()")
ON_SQLITE = SAVE.format(*(f"?{n}" for n in range(7)), now=NOW_ON_SQLITE)
SELECTED = "SELECT id, correlation_id, status, timeout_at, state, events, version FROM sagas WHERE id = "


class Trip(SagaState):
    """A saga that remembers a lot."""

    bookings: list[dict[str, Any]] = Field(default_factory=list)
    changes: int = 0


def a_trip(side: str, number: int) -> Trip:
    """Make a saga that has come far."""
    bookings = [{"hotel": f"hotel {n:04}", "nights": n % 7, "price": "99.50", "guests": ["a", "b"]} for n in range(60)]
    step = {"status": StepStatus.COMPLETED, "started_at": NOW, "finished_at": NOW, "compensation": "cancel"}
    history = [StepRecord(name=f"step_{n}", **step) for n in range(STEPS)]
    return Trip(
        id=f"{side}-{number}",
        correlation_id=f"{side}-trip-{number}",
        status=SagaStatus.RUNNING,
        bookings=bookings,
        step_history=history,
    )


async def workloads(bench: Bench) -> list[Workload]:
    """Save the sagas of both sides, and make the workloads."""
    repository = SQLAlchemySagaRepository(Trip, session_factory=bench.sessions)
    count = bench.size(SAGAS)
    for side in (LIBRARY, RAW):
        for n in range(count):
            await repository.save(a_trip(side, n))
    await bench.settle("sagas")
    work = _PostgreSQL(bench, repository, count) if bench.is_postgresql else _SQLite(bench, repository, count)
    one = "committed by itself" if bench.is_postgresql else "in BEGIN and COMMIT"
    return [
        Workload(
            "save a saga of 4 kB and 50 steps",
            count,
            (Side(LIBRARY, work.library_save, work.load_first), Side(RAW, work.save, work.load_first)),
            f"one UPDATE of all columns, guarded by the version, {one}; both documents by pydantic and json.dumps",
            ROWS,
        ),
        Workload(
            "load a saga of 4 kB and 50 steps",
            count,
            (Side(LIBRARY, work.library_load), Side(RAW, work.load)),
            "SELECT by id; json.loads of both documents, validated by pydantic",
        ),
    ]


class _Sagas:
    """The library's side, the same on both databases."""

    def __init__(self, bench: Bench, repository: SQLAlchemySagaRepository[Trip], count: int) -> None:
        self.bench = bench
        self.raw = bench.raw
        self.repository = repository
        self.count = count
        self.trips: list[Trip] = []
        self.loaded: list[tuple[Trip, int]] = []

    async def load_first(self, repetition: int) -> None:
        self.trips = [trip for n in range(self.count) if (trip := await self.repository.get(f"{LIBRARY}-{n}"))]
        self.loaded = [await self.load_one(n) for n in range(self.count)]
        for trip in (*self.trips, *(each for each, _ in self.loaded)):
            trip.changes = repetition + 1
            trip.step_history[-1].attempts = repetition + 2

    async def library_save(self, _: int) -> None:
        for trip in self.trips:
            await self.repository.save(trip)

    async def library_load(self, _: int) -> list[dict[str, Any]]:
        return [await self.repository.get(f"{LIBRARY}-{n}") for n in range(self.count)]

    async def load(self, _: int) -> list[Trip]:
        return [(await self.load_one(n))[0] for n in range(self.count)]

    async def load_one(self, number: int) -> tuple[Trip, int]:
        raise NotImplementedError


def documents_of(trip: Trip) -> tuple[str, str]:
    """Return state and history as JSON."""
    history = [record.model_dump(mode="json") for record in trip.step_history]
    return dumps(trip.model_dump(mode="json", exclude={"step_history"})), dumps(history)


def made(row: Any, timeout_at: datetime | None) -> tuple[Trip, int]:
    """Return the saga and the version of a row of SELECTED."""
    columns = {"id": row[0], "correlation_id": row[1], "status": row[2], "timeout_at": timeout_at}
    trip = Trip.model_validate({**json.loads(row[4]), **columns, "step_history": json.loads(row[5])})
    return trip, row[6]


class _PostgreSQL(_Sagas):
    """The driver's side on asyncpg."""

    async def save(self, _: int) -> None:
        for trip, version in self.loaded:
            values = (trip.status.value, *documents_of(trip), trip.timeout_at, trip.id, version)
            assert await self.raw.execute(ON_POSTGRESQL, *values) == "UPDATE 1"

    async def load_one(self, number: int) -> tuple[Trip, int]:
        row = await self.raw.fetchrow(f"{SELECTED}$1", f"{RAW}-{number}")
        return made(row, row[3])


class _SQLite(_Sagas):
    """The driver's side on aiosqlite."""

    async def save(self, _: int) -> None:
        for trip, version in self.loaded:
            await self.raw.execute("BEGIN IMMEDIATE")
            timeout_at = None if trip.timeout_at is None else as_text(trip.timeout_at)
            values = (trip.status.value, *documents_of(trip), timeout_at, trip.id, version)
            assert (await self.raw.execute(ON_SQLITE, values)).rowcount == 1
            await self.raw.execute("COMMIT")

    async def load_one(self, number: int) -> tuple[Trip, int]:
        [row] = await self.raw.execute_fetchall(f"{SELECTED}?", (f"{RAW}-{number}",))
        return made(row, None if row[3] is None else as_time(row[3]))
