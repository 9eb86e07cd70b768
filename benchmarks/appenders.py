"""Eight appenders at once, with and without work before the commit, and a reader that follows them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from benchmarks.appending import ROWS, an_event
from benchmarks.raw_events import HOLD_AND_INSERT, INSERT, given_values, stored
from benchmarks.workload import LIBRARY, RAW, Side, Workload
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from cqrs_ddd_advanced_core import StoredEvent

APPENDERS, EACH, WORK_SECONDS = 8, 50, 0.002
LOCK = "LOCK TABLE events IN EXCLUSIVE MODE"


async def workloads(bench: Bench) -> list[Workload]:
    """Make the workloads, with a connection for each appender of the driver's sides."""
    connections = [bench.raw, *[await bench.connect() for _ in range(APPENDERS - 1)]]
    made = []
    for seconds, name in ((0.0, "without work"), (WORK_SECONDS, "with 2 ms of work before the commit")):
        work = _Appenders(bench, connections, seconds)
        sides = (
            Side(LIBRARY, work.library, work.make(LIBRARY)),
            Side(RAW, work.unprotected, work.make(RAW)),
            Side("raw with the same lock", work.protected, work.make("protected")),
            Side("table lock", work.locked, work.make("table-lock")),
        )
        made.append(
            Workload(
                f"8 concurrent appenders, {name}",
                APPENDERS * work.each,
                sides,
                "BEGIN, an INSERT that checks the version, COMMIT, and nothing that keeps a reader from missing it",
                ROWS.replace("{kind}", f"at{seconds}"),
                check=work.follow,
            )
        )
    return made


class _Appenders:
    def __init__(self, bench: Bench, connections: list[Any], seconds: float) -> None:
        self.bench = bench
        self.connections = connections
        self.seconds = seconds
        self.each = bench.size(EACH)
        self.store = SQLAlchemyEventStore(bench.sessions)
        self.events: list[list[StoredEvent]] = []

    def make(self, side: str) -> Any:
        async def prepare(repetition: int) -> None:
            prefix = f"{side}-at{self.seconds}-{repetition}"
            self.events = [
                [an_event(f"{prefix}-{appender}-{n}", n) for n in range(self.each)] for appender in range(APPENDERS)
            ]
            await self.bench.settle()

        return prepare

    async def library(self, _: int) -> None:
        await asyncio.gather(*(self._append(events) for events in self.events))

    async def _append(self, events: list[StoredEvent]) -> None:
        for event in events:
            async with self.bench.unit_of_work() as uow:
                await self.store.append([event], expected_version=0, uow=uow)
                if self.seconds:
                    await asyncio.sleep(self.seconds)

    async def unprotected(self, _: int) -> None:
        await self._all(INSERT)

    async def protected(self, _: int) -> None:
        """Hold readers as the library does: what it costs to miss nothing, whoever does it."""
        await self._all(HOLD_AND_INSERT)

    async def locked(self, _: int) -> None:
        await self._all(INSERT, LOCK)

    async def _all(self, insert: str, *first: str) -> None:
        pairs = zip(self.connections, self.events, strict=True)
        await asyncio.gather(*(self._raw(connection, events, insert, *first) for connection, events in pairs))

    async def _raw(self, connection: Any, events: list[StoredEvent], insert: str, *first: str) -> None:
        for event in events:
            for statement in ("BEGIN", *first):
                await connection.execute(statement)
            stored(event, 1, *await connection.fetchrow(insert, *given_values(event, 1)))
            if self.seconds:
                await asyncio.sleep(self.seconds)
            await connection.execute("COMMIT")

    async def follow(self) -> str:
        """Let a reader follow the appenders, and count what it has missed."""
        await self.make("followed")(0)
        position, seen = await self.store.last_position(), set()
        ended = asyncio.Event()

        async def read() -> None:
            nonlocal position
            while True:
                was_over = ended.is_set()
                page = await self.store.get_events_after(position)
                seen.update(event.event_id for event in page)
                position = page[-1].position or position if page else position
                if was_over and not page:
                    return

        reader = asyncio.create_task(read())
        await self.library(0)
        ended.set()
        await reader
        appended = {event.event_id for events in self.events for event in events}
        return f"a reader that followed by position missed {len(appended - seen)} of {len(appended)} events"
