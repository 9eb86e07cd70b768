"""bulk_upsert of a thousand to a hundred thousand documents of eight columns, into an empty table and again."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

from benchmarks.orders import COLUMNS, ORDERS, an_order, on_sqlite, tables
from benchmarks.raw_events import dumps
from benchmarks.workload import LIBRARY, RAW, Side, Workload

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionStore

SIZES = (1000, 10_000, 100_000)
BY_JSON = 1000  # up to here json_to_recordset is the quickest, beyond it COPY
CHANGES = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS[1:])
TABLE = f"{ORDERS}_{RAW}"
NAMES = ", ".join(COLUMNS)
JSON_UPSERT = f"""
    INSERT INTO {TABLE} ({NAMES})
    SELECT {NAMES} FROM json_to_recordset($1::json) AS r(id varchar(50), customer_id varchar(50), status varchar(20),
        total numeric(10, 2), items integer, paid boolean, placed_at timestamptz, note text)
    ON CONFLICT (id) DO UPDATE SET {CHANGES}
"""
COPIED = f"""
    INSERT INTO {TABLE} ({NAMES}) SELECT {NAMES} FROM copied ON CONFLICT (id) DO UPDATE SET {CHANGES}
"""
SQLITE_UPSERT = f"INSERT INTO {TABLE} VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET {CHANGES}"
ROWS = f"SELECT * FROM {ORDERS}_{{side}} ORDER BY id"


async def workloads(bench: Bench) -> list[Workload]:
    """Make a table for each side, and the workloads."""
    store = await tables(bench, 0)
    await store.bulk_upsert(TABLE, [an_order(f"d{n}", n) for n in range(bench.size(SIZES[-1]))])
    await bench.execute(f"CREATE TABLE bench_source AS SELECT * FROM {TABLE}")
    made = []
    for size in SIZES:
        work = _Bulk(bench, store, bench.size(size), size)
        for again in (False, True):
            sides = [work.side(LIBRARY, work.library, again=again), work.side(RAW, work.raw, again=again)]
            if not bench.is_postgresql:
                sides.append(work.side("sqlite3", work.without_thread, again=again))
            name = f"bulk_upsert {size:,} documents, {'again' if again else 'fresh'}"
            at_most = 3 if size == SIZES[-1] else None
            made.append(Workload(name, work.count, tuple(sides), work.compared, ROWS, at_most))
    return made


class _Bulk:
    """All sides of one size."""

    def __init__(self, bench: Bench, store: SQLAlchemyProjectionStore, count: int, size: int) -> None:
        self.bench = bench
        self.store = store
        self.count = count
        self.docs: list[dict[str, Any]] = []
        if not bench.is_postgresql:
            self.raw, self.compared = self.executemany, "BEGIN, executemany of INSERT ... ON CONFLICT, COMMIT"
        elif size <= BY_JSON:
            self.raw, self.compared = self.from_json, "BEGIN, INSERT ... SELECT FROM json_to_recordset, COMMIT"
        else:
            self.raw = self.copied
            self.compared = "BEGIN, COPY into a temporary table, INSERT ... SELECT ... ON CONFLICT, COMMIT"

    def side(self, name: str, run: Any, *, again: bool) -> Side:
        table = f"{ORDERS}_{LIBRARY if name == LIBRARY else RAW}"

        async def prepare(repetition: int) -> None:
            await self.bench.empty(table)
            if again:
                below = f"CAST(substr(id, 2) AS integer) < {self.count}"
                await self.bench.execute(f"INSERT INTO {table} SELECT * FROM bench_source WHERE {below}")
                await self.bench.settle(table)
            self.docs = [an_order(f"d{n}", n + 1 + repetition) for n in range(self.count)]

        return Side(name, run, prepare)

    async def library(self, _: int) -> None:
        await self.store.bulk_upsert(f"{ORDERS}_{LIBRARY}", self.docs)

    async def from_json(self, _: int) -> None:
        rows = [{**doc, "total": str(doc["total"]), "placed_at": doc["placed_at"].isoformat()} for doc in self.docs]
        raw = self.bench.raw
        await raw.execute("BEGIN")
        await raw.execute(JSON_UPSERT, dumps(rows))
        await raw.execute("COMMIT")

    async def copied(self, _: int) -> None:
        raw = self.bench.raw
        await raw.execute("BEGIN")
        # Made for each transaction: one that stays would be a session's, which pooling by transaction does not keep.
        await raw.execute(f"CREATE TEMPORARY TABLE copied (LIKE {TABLE}) ON COMMIT DROP")
        await raw.copy_records_to_table("copied", columns=COLUMNS, records=(tuple(doc.values()) for doc in self.docs))
        await raw.execute(COPIED)
        await raw.execute("COMMIT")

    async def executemany(self, _: int) -> None:
        raw = self.bench.raw
        await raw.execute("BEGIN IMMEDIATE")
        await raw.executemany(SQLITE_UPSERT, [on_sqlite(doc) for doc in self.docs])
        await raw.execute("COMMIT")

    async def without_thread(self, _: int) -> None:
        """Use sqlite3 itself, in a thread for the whole batch, where aiosqlite has one for each call."""

        def work() -> None:
            connection = sqlite3.connect(self.bench.database.path, isolation_level=None)
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(SQLITE_UPSERT, [on_sqlite(doc) for doc in self.docs])
            connection.execute("COMMIT")
            connection.close()

        await asyncio.to_thread(work)
