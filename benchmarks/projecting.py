"""A projection of some 35,000 events: the runner beside a loop written by hand for it, on the raw driver."""

from __future__ import annotations

import json
import sys
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiosqlite
import asyncpg
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from benchmarks.workloads import Workload
from cqrs_ddd_advanced_core.projections import Projection, ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork, configure_engine
from cqrs_ddd_persistence_sqlalchemy.advanced import (
    ProjectionRunner,
    SQLAlchemyProjectionPositionStore,
    SQLAlchemyProjectionStore,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cqrs_ddd_advanced_core import StoredEvent

sys.path.append(str(Path(__file__).parents[1] / "examples" / "traffic_fines"))
from generated_events import GeneratedEvents

CASES = 9860
BATCH = 500
COLUMNS = ("id", "fine", "expense", "paid", "events", "last_at")
CASES_SCHEMA = ProjectionSchema(
    "bench_cases",
    [
        ("id", "VARCHAR(255) PRIMARY KEY"),
        ("fine", "BIGINT NOT NULL"),
        ("expense", "BIGINT NOT NULL"),
        ("paid", "BIGINT NOT NULL"),
        ("events", "INTEGER NOT NULL"),
        ("last_at", "TIMESTAMP"),
    ],
)
AMOUNTS = {"CreateFine": ("fine", "amount"), "SendFine": ("expense", "expense"), "Payment": ("paid", "payment_amount")}
CASES_PROJECTION = Projection("bench_cases", CASES_SCHEMA)


@CASES_PROJECTION.fold("*")
def fold(row: dict[str, Any] | None, event: StoredEvent) -> dict[str, Any]:
    """Add the event up, in cents."""
    new = row or {"fine": 0, "expense": 0, "paid": 0, "events": 0}
    add(new, event.event_type, event.payload)
    return {**new, "last_at": event.occurred_at}


def add(row: dict[str, Any], event_type: str, payload: dict[str, Any]) -> None:
    """Do what both loops do with an event."""
    row["events"] += 1
    if event_type in AMOUNTS:
        column, field = AMOUNTS[event_type]
        row[column] += round(float(payload[field]) * 100)


class _Projecting:
    """The library's side, the same on both databases."""

    def __init__(self, session_factory: async_sessionmaker[Any], raw: Any, events: int) -> None:
        self.sessions = session_factory
        self.raw = raw
        self.workloads = [
            Workload(f"project {events:,} events, {BATCH} at once", events, self.project, self.raw_project)
        ]

    @classmethod
    @asynccontextmanager
    async def prepared(cls, url: str) -> AsyncIterator[Self]:
        engine = configure_engine(create_async_engine(url))
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        store = SQLAlchemyProjectionStore(sessions, allow_auto_ddl=True)
        await store.ensure_collection(CASES_SCHEMA.collection, schema=CASES_SCHEMA)
        events = SQLAlchemyEventStore(sessions)
        before = await events.last_position()
        await events.append(GeneratedEvents(CASES))
        raw = await cls.connect(url)
        try:
            yield cls(sessions, raw, await events.last_position() - before)
        finally:
            await raw.close()
            await engine.dispose()

    async def project(self, _: int) -> None:
        await SQLAlchemyProjectionStore(self.sessions).truncate("bench_cases")
        await SQLAlchemyProjectionPositionStore(self.sessions).reset_position("bench_cases")
        events = SQLAlchemyEventStore(self.sessions)
        runner = ProjectionRunner(
            events, CASES_PROJECTION, lambda: SQLAlchemyUnitOfWork(self.sessions), batch_size=BATCH
        )
        await runner.catch_up()


def folded(page: list[Any], rows: dict[str, dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Add a page up: (position, id, type, payload, time) each."""
    for _, case, event_type, payload, moment in page:
        row = rows.setdefault(case, {"id": case, "fine": 0, "expense": 0, "paid": 0, "events": 0})
        add(row, event_type, payload)
        row["last_at"] = moment
    return [tuple(row[column] for column in COLUMNS) for row in rows.values()]


class PostgreSQLProjecting(_Projecting):
    """The loop on asyncpg: a page, its rows, one upsert, the position, in one transaction."""

    PAGE = (
        "SELECT position, aggregate_id, event_type, payload, occurred_at FROM events WHERE position > $1"
        " ORDER BY position LIMIT $2"
    )
    WRITE = (
        "INSERT INTO bench_cases SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::int[],"
        " $6::timestamptz[]) ON CONFLICT (id) DO UPDATE SET fine = excluded.fine, expense = excluded.expense,"
        " paid = excluded.paid, events = excluded.events, last_at = excluded.last_at"
    )
    MOVE = (
        "INSERT INTO projection_positions (projection_name, position) VALUES ('by_hand', $1)"
        " ON CONFLICT (projection_name) DO UPDATE SET position = excluded.position"
    )

    @staticmethod
    async def connect(url: str) -> Any:
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
        return connection

    async def raw_project(self, _: int) -> None:
        await self.raw.execute("DELETE FROM bench_cases")
        position = 0
        while page := await self.raw.fetch(self.PAGE, position, BATCH):
            position = page[-1][0]
            async with self.raw.transaction():
                found = await self.raw.fetch(
                    "SELECT c.* FROM unnest($1::text[]) AS k(id) JOIN bench_cases c USING (id)",
                    list({each[1] for each in page}),
                )
                rows = folded(page, {row["id"]: dict(row) for row in found})
                await self.raw.execute(self.WRITE, *(list(column) for column in zip(*rows, strict=True)))
                await self.raw.execute(self.MOVE, position)


class SQLiteProjecting(_Projecting):
    """The loop on aiosqlite."""

    PAGE = (
        "SELECT position, aggregate_id, event_type, payload, occurred_at FROM events WHERE position > ?"
        " ORDER BY position LIMIT ?"
    )
    WRITE = (
        "INSERT INTO bench_cases VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET fine = excluded.fine,"
        " expense = excluded.expense, paid = excluded.paid, events = excluded.events, last_at = excluded.last_at"
    )
    MOVE = (
        "INSERT INTO projection_positions (projection_name, position) VALUES ('by_hand', ?)"
        " ON CONFLICT (projection_name) DO UPDATE SET position = excluded.position"
    )

    @staticmethod
    async def connect(url: str) -> Any:
        return await aiosqlite.connect(make_url(url).database, isolation_level=None)

    async def raw_project(self, _: int) -> None:
        await self.raw.execute("DELETE FROM bench_cases")
        position = 0
        while page := await self.raw.execute_fetchall(self.PAGE, (position, BATCH)):
            decoded = [(*each[:3], json.loads(each[3]), datetime.fromisoformat(each[4])) for each in page]
            position = decoded[-1][0]
            cases = list({each[1] for each in decoded})
            await self.raw.execute("BEGIN IMMEDIATE")
            marks = ", ".join("?" * len(cases))
            found = await self.raw.execute_fetchall(f"SELECT * FROM bench_cases WHERE id IN ({marks})", cases)
            rows = folded(decoded, {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in found})
            texts = [(*row[:5], row[5].isoformat(" ", "microseconds")) for row in rows]
            await self.raw.executemany(self.WRITE, texts)
            await self.raw.execute(self.MOVE, (position,))
            await self.raw.execute("COMMIT")
