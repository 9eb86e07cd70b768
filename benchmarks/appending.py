"""Appending events: one in its own transaction, and ten thousand in one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from benchmarks.peers import event_peer
from benchmarks.raw_events import (
    GIVEN,
    HOLD,
    HOLD_AND_INSERT,
    NOW_ON_SQLITE,
    SQLITE_INSERT,
    as_time,
    given_on_sqlite,
    given_values,
    stored,
)
from benchmarks.workload import LIBRARY, RAW, Side, Workload
from cqrs_ddd_advanced_core import StoredEvent
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.peers.eventsourcing_store import EventSourcing

ONE, MANY, STREAMS = 200, 10_000, 1000
OCCURRED_AT = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = """
    SELECT substr(aggregate_id, length('{side}') + 1), version, aggregate_type, event_type, payload, metadata,
        occurred_at, correlation_id, causation_id, schema_version
    FROM events WHERE aggregate_id LIKE '{side}-{kind}%' ORDER BY 1, 2
"""


def an_event(stream: str, number: int) -> StoredEvent:
    """Make an event of common size."""
    payload = {"amount": "35.00", "article": "157", "vehicle_class": "A", "number": number, "points": [1, 2, 3]}
    return StoredEvent(
        aggregate_id=stream,
        aggregate_type="Fine",
        event_type="FineCreated",
        payload=payload,
        metadata={"user": "u-17", "source": "terminal"},
        occurred_at=OCCURRED_AT,
        correlation_id="request-1",
    )


async def workloads(bench: Bench) -> list[Workload]:
    """Make the workloads."""
    side = _PostgreSQL(bench) if bench.is_postgresql else _SQLite(bench)
    locked = "the lock that keeps readers from missing it, " if bench.is_postgresql else ""
    holds = "takes the lock that keeps readers from missing it, " if bench.is_postgresql else ""
    way = "reserved positions, COPY" if bench.is_postgresql else "executemany"
    peer = event_peer(bench)
    alone = [Side("raw in one round trip", side.one_round_trip, side.make_one("raw-alone"))] if locked else []
    made = [
        Workload(
            "append 1 event, own transaction",
            bench.size(ONE),
            (Side(LIBRARY, side.library_one, side.make_one(LIBRARY)), Side(RAW, side.one, side.make_one(RAW))),
            f"BEGIN, an INSERT that {holds}checks the version and returns position and time, COMMIT; a StoredEvent",
            ROWS.replace("{kind}", "one"),
        ).with_sides(*alone),
        Workload(
            "append 10,000 events, one transaction",
            bench.size(MANY),
            (Side(LIBRARY, side.library_many, side.make_many(LIBRARY)), Side(RAW, side.many, side.make_many(RAW))),
            f"BEGIN, {locked}the versions of 1,000 streams, {way}, COMMIT; 10,000 StoredEvents",
            ROWS.replace("{kind}", "many"),
        ),
    ]
    if peer is None:
        return made
    one, many, streams = bench.size(ONE), bench.size(MANY), bench.size(STREAMS)
    return [
        made[0].with_sides(_peer_side(peer, one, one, one_by_one=True)),
        made[1].with_sides(_peer_side(peer, many, streams, one_by_one=False)),
    ]


def _peer_side(peer: EventSourcing, count: int, streams: int, *, one_by_one: bool) -> Side:
    events: list[list[Any]] = []

    async def make(_: int) -> None:
        made = peer.make(count, streams)
        events[:] = [[event] for event in made] if one_by_one else [made]

    async def run(_: int) -> None:
        for batch in events:
            peer.append(batch)

    return Side(peer.name, run, make)


class _Appending:
    """The library's side, the same on both databases."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.raw = bench.raw
        self.store = SQLAlchemyEventStore(bench.sessions)
        self.events: list[StoredEvent] = []

    def make_one(self, side: str) -> Any:
        async def prepare(repetition: int) -> None:
            count = self.bench.size(ONE)
            self.events = [an_event(f"{side}-one-{repetition}-{n}", n) for n in range(count)]
            await self.bench.settle()

        return prepare

    def make_many(self, side: str) -> Any:
        async def prepare(repetition: int) -> None:
            streams = self.bench.size(STREAMS)
            names = [f"{side}-many-{repetition}-{n % streams}" for n in range(self.bench.size(MANY))]
            self.events = [an_event(name, n) for n, name in enumerate(names)]
            await self.bench.settle()

        return prepare

    async def library_one(self, _: int) -> list[StoredEvent]:
        return [(await self.store.append([event], expected_version=0))[0] for event in self.events]

    async def library_many(self, _: int) -> list[StoredEvent]:
        return await self.store.append(self.events)

    def counted(self, versions: dict[str, int]) -> list[tuple[StoredEvent, int]]:
        """Give each event the next version of its stream."""
        numbered = []
        for event in self.events:
            version = versions.get(event.aggregate_id, 0) + 1
            versions[event.aggregate_id] = version
            numbered.append((event, version))
        return numbered


class _PostgreSQL(_Appending):
    """The driver's side on asyncpg."""

    async def one(self, _: int) -> list[StoredEvent]:
        appended = []
        for event in self.events:
            await self.raw.execute("BEGIN")
            position, recorded_at = await self.raw.fetchrow(HOLD_AND_INSERT, *given_values(event, 1))
            await self.raw.execute("COMMIT")
            appended.append(stored(event, 1, position, recorded_at))
        return appended

    async def one_round_trip(self, _: int) -> list[StoredEvent]:
        """Leave BEGIN and COMMIT to the server, as only a single statement can."""
        return [
            stored(event, 1, *await self.raw.fetchrow(HOLD_AND_INSERT, *given_values(event, 1)))
            for event in self.events
        ]

    async def many(self, _: int) -> list[StoredEvent]:
        raw, streams = self.raw, list({event.aggregate_id for event in self.events})
        await raw.execute("BEGIN")
        await raw.fetchval(HOLD)
        rows = await raw.fetch(
            "SELECT aggregate_id, max(version) FROM events WHERE aggregate_id = ANY ($1) GROUP BY 1", streams
        )
        numbered = self.counted(dict(rows))
        drawn = await raw.fetch(
            "SELECT nextval('events_position_seq'), clock_timestamp() FROM generate_series(1, $1)", len(numbered)
        )
        await raw.copy_records_to_table(
            "events",
            columns=("position", "recorded_at", *GIVEN),
            records=[
                (*row, *given_values(event, version)) for row, (event, version) in zip(drawn, numbered, strict=True)
            ],
        )
        await raw.execute("COMMIT")
        return [stored(event, version, *row) for row, (event, version) in zip(drawn, numbered, strict=True)]


class _SQLite(_Appending):
    """The driver's side on aiosqlite."""

    async def one(self, _: int) -> list[StoredEvent]:
        appended = []
        for event in self.events:
            await self.raw.execute("BEGIN IMMEDIATE")
            [(position, recorded_at)] = await self.raw.execute_fetchall(SQLITE_INSERT, given_on_sqlite(event, 1))
            await self.raw.execute("COMMIT")
            appended.append(stored(event, 1, position, as_time(recorded_at)))
        return appended

    async def many(self, _: int) -> list[StoredEvent]:
        raw, streams = self.raw, list({event.aggregate_id for event in self.events})
        await raw.execute("BEGIN IMMEDIATE")
        among = ", ".join("?" * len(streams))
        rows = await raw.execute_fetchall(
            f"SELECT aggregate_id, max(version) FROM events WHERE aggregate_id IN ({among}) GROUP BY 1", streams
        )
        numbered = self.counted(dict(rows))
        [(last, now)] = await raw.execute_fetchall(
            f"SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0), {NOW_ON_SQLITE}"
        )
        marks = ", ".join("?" * (len(GIVEN) + 2))
        await raw.executemany(
            f"INSERT INTO events (position, recorded_at, {', '.join(GIVEN)}) VALUES ({marks})",
            [
                (position, now, *given_on_sqlite(event, version))
                for position, (event, version) in enumerate(numbered, start=last + 1)
            ],
        )
        await raw.execute("COMMIT")
        recorded_at = as_time(now)
        return [
            stored(event, version, position, recorded_at)
            for position, (event, version) in enumerate(numbered, start=last + 1)
        ]
