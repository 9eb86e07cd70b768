"""Snapshots of 1, 10 and 100 kilobytes, saved and loaded."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from benchmarks.peers import event_peer
from benchmarks.raw_events import as_time
from benchmarks.workload import LIBRARY, RAW, Side, Workload
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemySnapshotStore

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.peers.eventsourcing_store import EventSourcing

#: How many are saved and loaded, by their kilobytes.
SAVED, LOADED = {1: 100, 10: 100, 100: 30}, {1: 200, 10: 200, 100: 60}
_LINE_BYTES = 100
NOW_ON_SQLITE = "strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'"
SAVE = """
    INSERT INTO snapshots (aggregate_type, aggregate_id, version, snapshot_data, schema_version, created_at)
    VALUES ({values}, {now})
    ON CONFLICT (aggregate_type, aggregate_id, version) DO UPDATE SET snapshot_data = excluded.snapshot_data,
        schema_version = excluded.schema_version, created_at = excluded.created_at
"""
ON_POSTGRESQL = SAVE.format(values="$1, $2, $3, $4, $5", now="clock_timestamp()")
ON_SQLITE = SAVE.format(values="?, ?, ?, ?, ?", now=NOW_ON_SQLITE)
COLUMNS = ("aggregate_type", "aggregate_id", "version", "snapshot_data", "schema_version", "created_at")
LOAD = f"""
    SELECT {", ".join(COLUMNS)} FROM snapshots
    WHERE aggregate_type = {{0}} AND aggregate_id = {{1}} AND schema_version IS {{null}}
    ORDER BY version DESC LIMIT 1
"""
LOAD_ON_POSTGRESQL = LOAD.format("$1", "$2", null="NULL")
LOAD_ON_SQLITE = LOAD.format("?", "?", null="NULL")
ROWS = """
    SELECT aggregate_id, version, snapshot_data, schema_version FROM snapshots
    WHERE aggregate_type = 'Order {kilobytes} {{side}}' ORDER BY 1, 2
"""


def a_state(kilobytes: int) -> dict[str, Any]:
    """Make the state of an aggregate, so large as JSON: lines with text, numbers and a Decimal each."""
    lines = [
        {"product": f"product {n:06}", "quantity": n % 9, "price": Decimal(n) / 100, "notes": ["gift", "fragile"]}
        for n in range(1000, 1000 + kilobytes * 1000 // _LINE_BYTES)
    ]
    return {"id": "order-1", "status": "open", "lines": lines}


async def workloads(bench: Bench) -> list[Workload]:
    """Make the workloads: what is saved is what is loaded."""
    made = []
    peer = event_peer(bench)
    for kilobytes in SAVED:
        work = _Snapshots(bench, kilobytes)
        compared = (
            "one upsert, committed by itself; json.dumps with str for decimals"
            if bench.is_postgresql
            else ("BEGIN, an upsert, COMMIT; json.dumps with str for decimals")
        )
        made += [
            Workload(
                f"save_snapshot of {kilobytes} kB", work.saved,
                (Side(LIBRARY, work.library_save), Side(RAW, work.save)), compared,
                ROWS.format(kilobytes=kilobytes),
            ).with_sides(*_saved_by(peer, work)),
            Workload(
                f"get_latest_snapshot of {kilobytes} kB", work.loaded,
                (Side(LIBRARY, work.library_load), Side(RAW, work.load)),
                "SELECT of the newest one; json.loads into a dict",
            ).with_sides(*_loaded_by(peer, work)),
        ]  # fmt: skip
    return made


def _saved_by(peer: EventSourcing | None, work: _Snapshots) -> list[Side]:
    if peer is None:
        return []

    async def save(repetition: int) -> None:
        for aggregate_id in work.peer_ids:
            peer.save_snapshot(aggregate_id, work.state, repetition + 1)

    return [Side(peer.name, save)]


def _loaded_by(peer: EventSourcing | None, work: _Snapshots) -> list[Side]:
    if peer is None:
        return []

    async def load(_: int) -> list[Any]:
        return [peer.load_snapshot(work.peer_ids[n % work.saved]) for n in range(work.loaded)]

    return [Side(peer.name, load)]


class _Snapshots:
    """All sides of one size."""

    def __init__(self, bench: Bench, kilobytes: int) -> None:
        self.bench = bench
        self.raw = bench.raw
        self.store = SQLAlchemySnapshotStore(session_factory=bench.sessions)
        self.state = a_state(kilobytes)
        self.saved, self.loaded = bench.size(SAVED[kilobytes]), bench.size(LOADED[kilobytes])
        self.peer_ids = [uuid4() for _ in range(self.saved)]
        self.library_type, self.raw_type = f"Order {kilobytes} {LIBRARY}", f"Order {kilobytes} {RAW}"
        self.save = self.save_on_postgresql if bench.is_postgresql else self.save_on_sqlite
        self.load = self.load_on_postgresql if bench.is_postgresql else self.load_on_sqlite

    async def library_save(self, repetition: int) -> None:
        for n in range(self.saved):
            await self.store.save_snapshot(self.library_type, f"order-{n}", self.state, repetition + 1)

    async def library_load(self, _: int) -> list[Any]:
        loaded = []
        for n in range(self.loaded):
            found = await self.store.get_latest_snapshot(self.library_type, f"order-{n % self.saved}")
            loaded.append(found and found["snapshot_data"])
        return loaded

    def _values(self, number: int, repetition: int) -> tuple[Any, ...]:
        text = json.dumps(self.state, ensure_ascii=False, separators=(",", ":"), default=str)
        return self.raw_type, f"order-{number}", repetition + 1, text, None

    async def save_on_postgresql(self, repetition: int) -> None:
        for n in range(self.saved):
            await self.raw.execute(ON_POSTGRESQL, *self._values(n, repetition))

    async def load_on_postgresql(self, _: int) -> list[Any]:
        loaded = []
        for n in range(self.loaded):
            row = await self.raw.fetchrow(LOAD_ON_POSTGRESQL, self.raw_type, f"order-{n % self.saved}")
            found = dict(row)
            found["snapshot_data"] = json.loads(found["snapshot_data"])
            loaded.append(found["snapshot_data"])
        return loaded

    async def save_on_sqlite(self, repetition: int) -> None:
        for n in range(self.saved):
            await self.raw.execute("BEGIN IMMEDIATE")
            await self.raw.execute(ON_SQLITE, self._values(n, repetition))
            await self.raw.execute("COMMIT")

    async def load_on_sqlite(self, _: int) -> list[Any]:
        loaded = []
        for n in range(self.loaded):
            key = (self.raw_type, f"order-{n % self.saved}")
            [row] = await self.raw.execute_fetchall(LOAD_ON_SQLITE, key)
            found = dict(zip(COLUMNS, row, strict=True))
            found["snapshot_data"] = json.loads(found["snapshot_data"])
            found["created_at"] = as_time(found["created_at"])
            loaded.append(found["snapshot_data"])
        return loaded
