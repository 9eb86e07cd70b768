"""Projecting the traffic fines log: the runner beside a loop written by hand for it, each event applied once."""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.raw_events import LOWEST_FLOOR, REACHED, as_text, as_time
from benchmarks.workload import LIBRARY, RAW, Side, Workload
from cqrs_ddd_advanced_core.projections import Projection, ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore
from cqrs_ddd_persistence_sqlalchemy.advanced import (
    ProjectionRunner,
    SQLAlchemyProjectionPositionStore,
    SQLAlchemyProjectionStore,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.bench import Bench
    from cqrs_ddd_advanced_core import StoredEvent

sys.path.append(str(Path(__file__).parents[1] / "examples" / "traffic_fines"))
from csv_events import CsvEvents
from generated_events import GeneratedEvents

CASES, EVENTS, BATCH, AT_ONCE = 9860, 34_724, 500, 10_000
COLUMNS = ("id", "fine", "expense", "paid", "events", "last_at")
SCHEMA = ProjectionSchema(
    "bench_cases",
    [
        ("id", "VARCHAR(255) PRIMARY KEY"),
        ("fine", "BIGINT NOT NULL"),
        ("expense", "BIGINT NOT NULL"),
        ("paid", "BIGINT NOT NULL"),
        ("events", "INTEGER NOT NULL"),
        ("last_at", "TIMESTAMP WITH TIME ZONE"),
    ],
)
AMOUNTS = {"CreateFine": ("fine", "amount"), "SendFine": ("expense", "expense"), "Payment": ("paid", "payment_amount")}
BY_CASE = Projection("bench_cases", SCHEMA)
SELECTED = "SELECT position, aggregate_id, event_type, payload, occurred_at FROM events"
CHANGES = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS[1:])
MOVE = "UPDATE projection_positions SET position = {} WHERE projection_name = 'by_hand' AND position = {}"


@BY_CASE.fold("*")
def fold(row: dict[str, Any] | None, event: StoredEvent) -> dict[str, Any]:
    """Add the event up, in cents."""
    new = row or {"fine": 0, "expense": 0, "paid": 0, "events": 0}
    _add(new, event.event_type, event.payload)
    return {**new, "last_at": event.occurred_at}


async def workloads(bench: Bench) -> list[Workload]:
    """Append the log, and make the workload."""
    store = SQLAlchemyProjectionStore(bench.sessions, allow_auto_ddl=True)
    await store.ensure_collection(SCHEMA.collection, schema=SCHEMA)
    events = SQLAlchemyEventStore(bench.sessions)
    log = iter(_log(bench))
    while batch := list(islice(log, AT_ONCE)):
        await events.append(batch)
    await bench.settle("events")
    count = await events.last_position()
    work = _Projecting(bench, events)
    raw = work.on_postgresql if bench.is_postgresql else work.on_sqlite
    checked = "pages that no late commit is missing from, " if bench.is_postgresql else ""
    return [
        Workload(
            "project the traffic fines log, 500 events at once",
            count,
            (Side(LIBRARY, work.library, work.prepare), Side(RAW, raw, work.prepare)),
            f"a loop of {checked}BEGIN, the batch's rows, one upsert, the position moved from where it was, COMMIT",
            f"SELECT {', '.join(COLUMNS)} FROM bench_cases ORDER BY id",
            at_most=3,
        )
    ]


def _log(bench: Bench) -> Iterable[StoredEvent]:
    if bench.log is not None:
        return islice(CsvEvents(bench.log), bench.size(EVENTS))
    return GeneratedEvents(bench.size(CASES))


def _add(row: dict[str, Any], event_type: str, payload: dict[str, Any]) -> None:
    """Do what both loops do with an event."""
    row["events"] += 1
    if event_type in AMOUNTS:
        column, field = AMOUNTS[event_type]
        row[column] += round(float(payload[field]) * 100)


def _folded(page: list[Any], rows: dict[str, dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Add a page up: (position, id, type, payload as JSON, time) each."""
    for _, case, event_type, payload, moment in page:
        row = rows.setdefault(case, {"id": case, "fine": 0, "expense": 0, "paid": 0, "events": 0})
        _add(row, event_type, json.loads(payload))
        row["last_at"] = moment
    return [tuple(row[column] for column in COLUMNS) for row in rows.values()]


class _Projecting:
    def __init__(self, bench: Bench, events: SQLAlchemyEventStore) -> None:
        self.bench = bench
        self.raw = bench.raw
        self.events = events
        self.positions = SQLAlchemyProjectionPositionStore(bench.sessions)

    async def prepare(self, _: int) -> None:
        await self.bench.empty("bench_cases")
        await self.positions.reset_position(BY_CASE.name)
        await self.positions.reset_position("by_hand")
        await self.positions.save_position("by_hand", 0)

    async def library(self, _: int) -> None:
        await ProjectionRunner(self.events, BY_CASE, self.bench.unit_of_work, batch_size=BATCH).catch_up()

    async def on_postgresql(self, _: int) -> None:
        raw, position = self.raw, 0
        while True:
            last, oid = await raw.fetchrow(REACHED)
            floor = await raw.fetchval(LOWEST_FLOOR, last, oid)
            bound = last if floor is None else min(last, floor)
            page = await raw.fetch(
                f"{SELECTED} WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3", position, bound, BATCH
            )
            if not page:
                return
            await raw.execute("BEGIN")
            found = await raw.fetch(
                "SELECT c.* FROM unnest($1::text[]) AS k(id) JOIN bench_cases c USING (id)",
                list({event["aggregate_id"] for event in page}),
            )
            rows = _folded(page, {row["id"]: dict(row) for row in found})
            await raw.execute(
                "INSERT INTO bench_cases SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[],"
                f" $5::int[], $6::timestamptz[]) ON CONFLICT (id) DO UPDATE SET {CHANGES}",
                *(list(column) for column in zip(*rows, strict=True)),
            )
            assert await raw.execute(MOVE.format("$1", "$2"), page[-1]["position"], position) == "UPDATE 1"
            await raw.execute("COMMIT")
            position = page[-1]["position"]

    async def on_sqlite(self, _: int) -> None:
        raw, position = self.raw, 0
        while True:
            page = await raw.execute_fetchall(
                f"{SELECTED} WHERE position > ? ORDER BY position LIMIT ?", (position, BATCH)
            )
            if not page:
                return
            page = [(*event[:4], as_time(event[4])) for event in page]
            cases = list({event[1] for event in page})
            await raw.execute("BEGIN IMMEDIATE")
            found = await raw.execute_fetchall(
                f"SELECT * FROM bench_cases WHERE id IN ({', '.join('?' * len(cases))})", cases
            )
            rows = _folded(page, {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in found})
            await raw.executemany(
                f"INSERT INTO bench_cases VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET {CHANGES}",
                [(*row[:5], as_text(row[5])) for row in rows],
            )
            moved = await raw.execute(MOVE.format("?", "?"), (page[-1][0], position))
            assert moved.rowcount == 1
            await raw.execute("COMMIT")
            position = page[-1][0]
