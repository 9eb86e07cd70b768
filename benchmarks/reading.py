"""Reading a hundred thousand events by position, a page at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.appending import an_event
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

    three = "three statements a page, so that no event is missed; " if bench.is_postgresql else "one SELECT a page; "
    return [
        Workload(
            "read 100,000 events in pages of 1,000",
            count,
            (Side(LIBRARY, library), Side(RAW, raw)),
            f"{three}both parsed JSON documents and a StoredEvent of each row, made without validation",
        )
    ]
