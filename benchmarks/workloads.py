"""The workloads: each the library's way and the raw driver's way to the same rows, with the same transactions."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import aiosqlite
import asyncpg
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from cqrs_ddd_advanced_core import StoredEvent
from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork, configure_engine
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionPositionStore, SQLAlchemyProjectionStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

DOCS = ProjectionSchema(
    collection="bench_docs",
    fields=[
        ("id", "VARCHAR(50) PRIMARY KEY"),
        ("name", "TEXT"),
        ("amount", "BIGINT"),
        ("_version", "INTEGER DEFAULT 1"),
    ],
)
ROWS = 2000
SINGLE = 200
PAYLOAD = {"amount": "35.00", "article": "157", "vehicle_class": "A"}
NOW = datetime(2026, 1, 1, tzinfo=UTC)
PG_APPEND = """
    INSERT INTO events (event_id, aggregate_id, aggregate_type, event_type, version, payload, metadata, occurred_at)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::jsonb[], $7::jsonb[],
                         $8::timestamptz[])
"""
SQLITE_APPEND = """
    INSERT INTO events (event_id, aggregate_id, aggregate_type, event_type, version, payload, metadata, occurred_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
UPSERT = """
    INSERT INTO bench_docs (id, name, amount) VALUES ({}) ON CONFLICT (id) DO UPDATE
    SET name = excluded.name, amount = excluded.amount, _version = coalesce(bench_docs._version, 0) + 1
"""
POSITION = """
    INSERT INTO projection_positions (projection_name, position) VALUES ({}) ON CONFLICT (projection_name)
    DO UPDATE SET position = excluded.position WHERE projection_positions.position < excluded.position
"""


@dataclass(frozen=True)
class Workload:
    """One piece of work, done twice: `operations` of them in each repetition."""

    name: str
    operations: int
    library: Callable[[int], Awaitable[Any]]
    driver: Callable[[int], Awaitable[Any]]


class _Workloads:
    """The library's side, the same on both databases."""

    def __init__(self, session_factory: async_sessionmaker[Any], raw: Any) -> None:
        self.sessions = session_factory
        self.raw = raw
        self.events = SQLAlchemyEventStore(session_factory)
        self.docs = SQLAlchemyProjectionStore(session_factory, schemas=[DOCS])
        self.positions = SQLAlchemyProjectionPositionStore(session_factory)
        self.workloads = [
            Workload("append 1 event, own transaction", SINGLE, self.append_one, self.raw_append_one),
            Workload("append 2,000 events, one transaction", ROWS, self.append_many, self.raw_append_many),
            Workload("read 2,000 events by position", ROWS, self.read, self.raw_read),
            Workload("upsert in a unit of work", SINGLE, self.upsert, self.raw_upsert),
            Workload("bulk_upsert 2,000 documents", ROWS, self.bulk, self.raw_bulk),
            Workload("find_one in a unit of work", SINGLE, self.find_one, self.raw_find_one),
            Workload("save_position, own transaction", SINGLE, self.position, self.raw_position),
        ]

    @classmethod
    @asynccontextmanager
    async def prepared(cls, url: str) -> AsyncIterator[Self]:
        engine = configure_engine(create_async_engine(url))
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        await SQLAlchemyProjectionStore(sessions, allow_auto_ddl=True).ensure_collection(DOCS.collection, schema=DOCS)
        raw = await cls.connect(url)
        try:
            yield cls(sessions, raw)
        finally:
            await raw.close()
            await engine.dispose()

    async def append_one(self, repetition: int) -> None:
        for n in range(SINGLE):
            await self.events.append([an_event(f"l{repetition}-{n}")], expected_version=0)

    async def append_many(self, repetition: int) -> None:
        await self.events.append([an_event(f"lm{repetition}-{n}") for n in range(ROWS)])

    async def read(self, _: int) -> None:
        await self.events.get_events_after(0, limit=ROWS)

    async def upsert(self, repetition: int) -> None:
        async with SQLAlchemyUnitOfWork(self.sessions) as uow:
            for n in range(SINGLE):
                await self.docs.upsert("bench_docs", f"u{n}", {"name": "x", "amount": repetition}, uow=uow)

    async def bulk(self, repetition: int) -> None:
        docs = [{"id": f"b{n}", "name": "x", "amount": repetition} for n in range(ROWS)]
        await self.docs.bulk_upsert("bench_docs", docs)

    async def find_one(self, _: int) -> None:
        async with SQLAlchemyUnitOfWork(self.sessions) as uow:
            for n in range(SINGLE):
                await self.docs.find_one("bench_docs", f"u{n}", uow=uow)

    async def position(self, repetition: int) -> None:
        for n in range(SINGLE):
            await self.positions.save_position("library", repetition * SINGLE + n)


class PostgreSQLWorkloads(_Workloads):
    """The driver's side on asyncpg, with prepared statements."""

    @staticmethod
    async def connect(url: str) -> Any:
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
        return connection

    async def _append(self, rows: list[tuple[Any, ...]]) -> None:
        await self.raw.execute(PG_APPEND, *(list(column) for column in zip(*rows, strict=True)))

    async def raw_append_one(self, repetition: int) -> None:
        for n in range(SINGLE):
            async with self.raw.transaction():
                await self._append([a_row(f"d{repetition}-{n}", n, repetition)])

    async def raw_append_many(self, repetition: int) -> None:
        async with self.raw.transaction():
            await self._append([a_row(f"dm{repetition}-{n}", n, repetition) for n in range(ROWS)])

    async def raw_read(self, _: int) -> None:
        query = "SELECT * FROM events WHERE position > $1 ORDER BY position LIMIT $2"
        [dict(row) for row in await self.raw.fetch(query, 0, ROWS)]

    async def raw_upsert(self, repetition: int) -> None:
        async with self.raw.transaction():
            for n in range(SINGLE):
                await self.raw.execute(UPSERT.format("$1, $2, $3"), f"u{n}", "x", repetition)

    async def raw_bulk(self, repetition: int) -> None:
        async with self.raw.transaction():
            rows = [(f"b{n}", "x", repetition) for n in range(ROWS)]
            await self.raw.executemany(UPSERT.format("$1, $2, $3"), rows)

    async def raw_find_one(self, _: int) -> None:
        async with self.raw.transaction():
            for n in range(SINGLE):
                dict(await self.raw.fetchrow("SELECT * FROM bench_docs WHERE id = $1", f"u{n}"))

    async def raw_position(self, repetition: int) -> None:
        for n in range(SINGLE):
            async with self.raw.transaction():
                await self.raw.execute(POSITION.format("$1, $2"), "driver", repetition * SINGLE + n)


class SQLiteWorkloads(_Workloads):
    """The driver's side on aiosqlite."""

    @staticmethod
    async def connect(url: str) -> Any:
        connection = await aiosqlite.connect(make_url(url).database, isolation_level=None)
        await connection.execute("PRAGMA busy_timeout = 60000")
        return connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        await self.raw.execute("BEGIN IMMEDIATE")
        yield
        await self.raw.execute("COMMIT")

    async def raw_append_one(self, repetition: int) -> None:
        for n in range(SINGLE):
            async with self.transaction():
                await self.raw.execute(SQLITE_APPEND, as_text(a_row(f"d{repetition}-{n}", n, repetition)))

    async def raw_append_many(self, repetition: int) -> None:
        rows = [as_text(a_row(f"dm{repetition}-{n}", n, repetition)) for n in range(ROWS)]
        async with self.transaction():
            await self.raw.executemany(SQLITE_APPEND, rows)

    async def raw_read(self, _: int) -> None:
        query = "SELECT * FROM events WHERE position > ? ORDER BY position LIMIT ?"
        rows = await self.raw.execute_fetchall(query, (0, ROWS))
        [(*row[:6], json.loads(row[6]), json.loads(row[7]), datetime.fromisoformat(row[8])) for row in rows]

    async def raw_upsert(self, repetition: int) -> None:
        async with self.transaction():
            for n in range(SINGLE):
                await self.raw.execute(UPSERT.format("?, ?, ?"), (f"u{n}", "x", repetition))

    async def raw_bulk(self, repetition: int) -> None:
        async with self.transaction():
            rows = [(f"b{n}", "x", repetition) for n in range(ROWS)]
            await self.raw.executemany(UPSERT.format("?, ?, ?"), rows)

    async def raw_find_one(self, _: int) -> None:
        async with self.transaction():
            for n in range(SINGLE):
                await self.raw.execute_fetchall("SELECT * FROM bench_docs WHERE id = ?", (f"u{n}",))

    async def raw_position(self, repetition: int) -> None:
        for n in range(SINGLE):
            async with self.transaction():
                await self.raw.execute(POSITION.format("?, ?"), ("driver", repetition * SINGLE + n))


def an_event(stream: str) -> StoredEvent:
    return StoredEvent(
        aggregate_id=stream, aggregate_type="Fine", event_type="Created", payload=PAYLOAD, occurred_at=NOW
    )


def a_row(stream: str, number: int, repetition: int) -> tuple[Any, ...]:
    return (f"{stream}-{number}-{repetition}", stream, "Fine", "Created", 1, PAYLOAD, {}, NOW)


def as_text(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return (
        *row[:5],
        json.dumps(row[5]),
        json.dumps(row[6]),
        row[7].replace(tzinfo=None).isoformat(" ", "microseconds"),
    )
