"""Documents one by one: upserts with and without checks, in the caller's transaction and in their own; reads by key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.orders import COLUMNS, GUARDED, ORDERS, an_order, from_sqlite, on_sqlite, tables
from benchmarks.workload import LIBRARY, RAW, Side, Workload

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionStore

IN_ONE, BY_ITSELF, READ, AT_ONCE, STORED = 500, 200, 500, 100, 100_000
CHANGES = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS[1:])


async def workloads(bench: Bench) -> list[Workload]:
    """Make two tables for each side, fill them, and make the workloads."""
    stores = await tables(bench, bench.size(STORED))
    sides = _PostgreSQL(bench, stores) if bench.is_postgresql else _SQLite(bench, stores)
    in_one, by_itself, read = bench.size(IN_ONE), bench.size(BY_ITSELF), bench.size(READ)

    def both(name: str, prefix: str = "", count: int = 0) -> tuple[Side, ...]:
        prepare = sides.prepare(prefix, count)
        return Side(LIBRARY, getattr(sides, f"library_{name}"), prepare), Side(RAW, getattr(sides, name), prepare)

    return [
        Workload(
            "upsert in a unit of work", in_one, both("upsert", "u", in_one),
            "INSERT ... ON CONFLICT DO UPDATE in an open transaction", rows(ORDERS, "u"),
        ),
        Workload(
            "upsert with expected_version, in a unit of work", in_one, both("versioned", "v", in_one),
            "the same with WHERE _version = the expected one", rows(GUARDED, "v"),
        ),
        Workload(
            "upsert with event_id and event_position, in a unit of work", in_one, both("evented", "e", in_one),
            "the same with WHERE the last event is another and its position lower",
            rows(GUARDED, "e"),
        ),
        Workload(
            "upsert, own transaction", by_itself, both("committed", "c", by_itself),
            "BEGIN, INSERT ... ON CONFLICT DO UPDATE, COMMIT", rows(ORDERS, "c"),
        ),
        Workload("find_one in a unit of work", read, both("found"), "SELECT by key into a dict"),
        Workload("find_many of 100 in a unit of work", bench.size(READ // 10), both("many"),
            "SELECT by 100 keys into dicts, in the order of the keys"),
    ]  # fmt: skip


def rows(table: str, prefix: str) -> str:
    """Return the SQL that reads what a side has written."""
    return f"SELECT * FROM {table}_{{side}} WHERE id LIKE '{prefix}%' ORDER BY id"


class _Documents:
    """The library's side, the same on both databases."""

    def __init__(self, bench: Bench, store: SQLAlchemyProjectionStore) -> None:
        self.bench = bench
        self.raw = bench.raw
        self.store = store
        self.docs: list[dict[str, Any]] = []
        self.orders, self.guarded = f"{ORDERS}_{LIBRARY}", f"{GUARDED}_{LIBRARY}"

    def prepare(self, prefix: str, count: int) -> Any:
        async def make(repetition: int) -> None:
            self.docs = [an_order(f"{prefix}{n}", n + repetition) for n in range(count)]

        return make

    def keys(self, call: int = 0) -> list[str]:
        stored = self.bench.size(STORED)
        return [f"s{(call * 7919 + n * 31) % stored}" for n in range(self.bench.size(AT_ONCE))]

    async def library_upsert(self, _: int) -> None:
        async with self.bench.unit_of_work() as uow:
            for doc in self.docs:
                await self.store.upsert(self.orders, doc["id"], doc, uow=uow)

    async def library_versioned(self, repetition: int) -> None:
        async with self.bench.unit_of_work() as uow:
            for doc in self.docs:
                values = {**doc, "_version": repetition + 1}
                await self.store.upsert(self.guarded, doc["id"], values, expected_version=repetition, uow=uow)

    async def library_evented(self, repetition: int) -> None:
        async with self.bench.unit_of_work() as uow:
            for doc in self.docs:
                await self.store.upsert(
                    self.guarded, doc["id"], doc, event_id=f"event-{repetition}", event_position=repetition + 1, uow=uow
                )

    async def library_committed(self, _: int) -> None:
        for doc in self.docs:
            await self.store.upsert(self.orders, doc["id"], doc)

    async def library_found(self, _: int) -> list[dict[str, Any] | None]:
        async with self.bench.unit_of_work() as uow:
            return [await self.store.find_one(self.orders, f"s{n}", uow=uow) for n in range(self.bench.size(READ))]

    async def library_many(self, _: int) -> list[list[dict[str, Any] | None]]:
        async with self.bench.unit_of_work() as uow:
            return [
                await self.store.find_many(self.orders, self.keys(call), uow=uow)
                for call in range(self.bench.size(READ // 10))
            ]


class _PostgreSQL(_Documents):
    """The driver's side on asyncpg."""

    INSERT = f"INSERT INTO {ORDERS}_{RAW} VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
    UPSERT = f"{INSERT} ON CONFLICT (id) DO UPDATE SET {CHANGES}"
    VERSIONED_INSERT = f"""
        INSERT INTO {GUARDED}_{RAW} ({", ".join(COLUMNS)}, _version) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        ON CONFLICT (id) DO UPDATE SET {CHANGES}, _version = excluded._version
        WHERE coalesce({GUARDED}_{RAW}._version, 0) = $9::bigint - 1
    """
    EVENTED = f"""
        INSERT INTO {GUARDED}_{RAW} ({", ".join(COLUMNS)}, _last_event_id, _last_event_position)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        ON CONFLICT (id) DO UPDATE SET {CHANGES}, _version = coalesce({GUARDED}_{RAW}._version, 0) + 1,
            _last_event_id = excluded._last_event_id, _last_event_position = excluded._last_event_position
        WHERE {GUARDED}_{RAW}._last_event_id IS DISTINCT FROM excluded._last_event_id
            AND ({GUARDED}_{RAW}._last_event_position IS NULL
                OR {GUARDED}_{RAW}._last_event_position < excluded._last_event_position)
    """

    async def upsert(self, _: int) -> None:
        async with self.raw.transaction():
            for doc in self.docs:
                await self.raw.execute(self.UPSERT, *doc.values())

    async def versioned(self, repetition: int) -> None:
        async with self.raw.transaction():
            for doc in self.docs:
                done = await self.raw.execute(self.VERSIONED_INSERT, *doc.values(), repetition + 1)
                assert done == "INSERT 0 1"

    async def evented(self, repetition: int) -> None:
        async with self.raw.transaction():
            for doc in self.docs:
                await self.raw.execute(self.EVENTED, *doc.values(), f"event-{repetition}", repetition + 1)

    async def committed(self, _: int) -> None:
        for doc in self.docs:
            await self.raw.execute("BEGIN")
            await self.raw.execute(self.UPSERT, *doc.values())
            await self.raw.execute("COMMIT")

    async def found(self, _: int) -> list[dict[str, Any]]:
        async with self.raw.transaction():
            statement = f"SELECT * FROM {ORDERS}_{RAW} WHERE id = $1"
            return [dict(await self.raw.fetchrow(statement, f"s{n}")) for n in range(self.bench.size(READ))]

    async def many(self, _: int) -> list[list[dict[str, Any] | None]]:
        statement, found = f"SELECT * FROM {ORDERS}_{RAW} WHERE id = ANY ($1)", []
        async with self.raw.transaction():
            for call in range(self.bench.size(READ // 10)):
                keys = self.keys(call)
                rows = {row["id"]: dict(row) for row in await self.raw.fetch(statement, keys)}
                found.append([rows.get(key) for key in keys])
        return found


class _SQLite(_Documents):
    """The driver's side on aiosqlite."""

    INSERT = f"INSERT INTO {ORDERS}_{RAW} VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
    UPSERT = f"{INSERT} ON CONFLICT (id) DO UPDATE SET {CHANGES}"
    VERSIONED = f"""
        INSERT INTO {GUARDED}_{RAW} ({", ".join(COLUMNS)}, _version) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (id) DO UPDATE SET {CHANGES}, _version = excluded._version
        WHERE coalesce({GUARDED}_{RAW}._version, 0) = excluded._version - 1
    """
    EVENTED = f"""
        INSERT INTO {GUARDED}_{RAW} ({", ".join(COLUMNS)}, _last_event_id, _last_event_position)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (id) DO UPDATE SET {CHANGES}, _version = coalesce({GUARDED}_{RAW}._version, 0) + 1,
            _last_event_id = excluded._last_event_id, _last_event_position = excluded._last_event_position
        WHERE {GUARDED}_{RAW}._last_event_id IS NOT excluded._last_event_id
            AND ({GUARDED}_{RAW}._last_event_position IS NULL
                OR {GUARDED}_{RAW}._last_event_position < excluded._last_event_position)
    """

    async def upsert(self, _: int) -> None:
        await self.raw.execute("BEGIN IMMEDIATE")
        for doc in self.docs:
            await self.raw.execute(self.UPSERT, on_sqlite(doc))
        await self.raw.execute("COMMIT")

    async def versioned(self, repetition: int) -> None:
        await self.raw.execute("BEGIN IMMEDIATE")
        for doc in self.docs:
            done = await self.raw.execute(self.VERSIONED, (*on_sqlite(doc), repetition + 1))
            assert done.rowcount == 1
        await self.raw.execute("COMMIT")

    async def evented(self, repetition: int) -> None:
        await self.raw.execute("BEGIN IMMEDIATE")
        for doc in self.docs:
            await self.raw.execute(self.EVENTED, (*on_sqlite(doc), f"event-{repetition}", repetition + 1))
        await self.raw.execute("COMMIT")

    async def committed(self, _: int) -> None:
        for doc in self.docs:
            await self.raw.execute("BEGIN IMMEDIATE")
            await self.raw.execute(self.UPSERT, on_sqlite(doc))
            await self.raw.execute("COMMIT")

    async def found(self, _: int) -> list[dict[str, Any]]:
        await self.raw.execute("BEGIN")
        statement, found = f"SELECT * FROM {ORDERS}_{RAW} WHERE id = ?", []
        for n in range(self.bench.size(READ)):
            found += [from_sqlite(row) for row in await self.raw.execute_fetchall(statement, (f"s{n}",))]
        await self.raw.execute("COMMIT")
        return found

    async def many(self, _: int) -> list[list[dict[str, Any] | None]]:
        await self.raw.execute("BEGIN")
        found = []
        for call in range(self.bench.size(READ // 10)):
            keys = self.keys(call)
            statement = f"SELECT * FROM {ORDERS}_{RAW} WHERE id IN ({', '.join('?' * len(keys))})"
            rows = {row[0]: from_sqlite(row) for row in await self.raw.execute_fetchall(statement, keys)}
            found.append([rows.get(key) for key in keys])
        await self.raw.execute("COMMIT")
        return found
