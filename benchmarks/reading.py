"""Reading a hundred thousand events by position, a page at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.appending import an_event
from benchmarks.peers import event_peer
from benchmarks.raw_events import read_page, read_page_from_sqlite
from benchmarks.workload import LIBRARY, RAW, Side, Workload
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from cqrs_ddd_advanced_core import StoredEvent

EVENTS, PAGE, AT_ONCE = 100_000, 1000, 10_000


async def workloads(bench: Bench) -> list[Workload]:
    """Append the events, and make the workload."""
    store = SQLAlchemyEventStore(bench.sessions)
    count, page_size = bench.size(EVENTS), bench.size(PAGE)
    for first in range(0, count, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, count))
        await store.append([an_event(f"stream-{n % 1000}", n) for n in numbers])
    await bench.settle("events")
    read = read_page if bench.is_postgresql else read_page_from_sqlite

    async def library(_: int) -> list[StoredEvent]:
        return [event async for event in store.stream_after(0, page_size=page_size)]

    async def raw(_: int) -> list[StoredEvent]:
        events: list[StoredEvent] = []
        position = 0
        while True:
            page = await read(bench.raw, position, page_size)
            events += page
            if len(page) < page_size:
                return events
            position = page[-1].position or 0

    sides = [Side(LIBRARY, library), Side(RAW, raw)]
    peer = event_peer(bench)
    if peer is not None:
        for first in range(0, count, AT_ONCE):
            peer.append(peer.make(min(AT_ONCE, count - first), bench.size(1000)))

        async def with_peer(_: int) -> list[Any]:
            return peer.read(page_size)

        sides.append(Side(peer.name, with_peer))
    three = "three statements a page, so that no event is missed; " if bench.is_postgresql else "one SELECT a page; "
    return [
        Workload(
            "read 100,000 events in pages of 1,000",
            count,
            tuple(sides),
            f"{three}both parsed JSON documents and a StoredEvent of each row, made without validation",
            at_most=3,
        )
    ]
