"""Saving the position of a projection, in a transaction of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.workload import LIBRARY, RAW, Side, Workload
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionPositionStore

if TYPE_CHECKING:
    from benchmarks.bench import Bench

SAVED = 200
SAVE = """
    INSERT INTO projection_positions (projection_name, position, updated_at) VALUES ({0}, {1}, {2})
    ON CONFLICT (projection_name) DO UPDATE SET position = excluded.position, updated_at = excluded.updated_at
    WHERE projection_positions.position < excluded.position
"""
POSTGRESQL = SAVE.format("$1", "$2", "clock_timestamp()")
SQLITE = SAVE.format("?", "?", "strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'")


async def workloads(bench: Bench) -> list[Workload]:
    """Make the workload."""
    store, count, connection = SQLAlchemyProjectionPositionStore(bench.sessions), bench.size(SAVED), bench.raw

    async def library(repetition: int) -> None:
        for number in range(count):
            await store.save_position(LIBRARY, repetition * count + number)

    async def on_postgresql(repetition: int) -> None:
        for number in range(count):
            await connection.execute("BEGIN")
            await connection.execute(POSTGRESQL, RAW, repetition * count + number)
            await connection.execute("COMMIT")

    async def on_sqlite(repetition: int) -> None:
        for number in range(count):
            await connection.execute("BEGIN IMMEDIATE")
            await connection.execute(SQLITE, (RAW, repetition * count + number))
            await connection.execute("COMMIT")

    return [
        Workload(
            "save_position, own transaction",
            count,
            (Side(LIBRARY, library), Side(RAW, on_postgresql if bench.is_postgresql else on_sqlite)),
            "BEGIN, an upsert that only moves forward, COMMIT",
            "SELECT position FROM projection_positions WHERE projection_name = '{side}'",
        )
    ]
