"""How fast is fast enough: limits of time as a multiple of the raw driver's, and how far ahead of the peers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.workload import LIBRARY, RAW

if TYPE_CHECKING:
    from benchmarks.measuring import Result

PROTECTED = 1 / 0.9  # nine tenths of the throughput without protection


@dataclass(frozen=True)
class Target:
    """What a workload is to reach.

    Attributes:
        ratio: at most so many times the raw driver's time.
        added: at most so many microseconds more than the raw driver.
        ahead: at least so many times as fast as another side.
    """

    ratio: float | None = None
    added: float | None = None
    ahead: dict[str, float] = field(default_factory=dict)

    def judged(self, result: Result) -> list[tuple[str, bool | None]]:
        """Return each limit in words and whether it is kept; None where the other side was not measured."""
        ratio, judged = result.times(), []
        if self.ratio is not None:
            judged.append((f"≤ {self.ratio:.2f}", None if ratio is None else ratio <= self.ratio))
        if self.added is not None:
            judged.append((f"≤ +{self.added:g} µs", None if result.added is None else result.added <= self.added))
        for side, times in self.ahead.items():
            faster = result.times(LIBRARY, side)
            judged.append((f"{times:g} times {side}", None if faster is None else faster >= times))
        return judged


_ON_BOTH = {"project the traffic fines log, 500 events at once": Target(1.5)}
_CLAIMS = {
    f"claim and complete, batches of {batch}, {workers}": Target(0.95)
    for batch in (1, 10)
    for workers in ("1 worker", "2 workers", "4 workers")
}
TARGETS: dict[str, dict[str, Target]] = {
    "postgresql": {
        **{f"bulk_upsert 1,000 documents, {how}": Target(1.15) for how in ("fresh", "again")},
        **{f"bulk_upsert 10,000 documents, {how}": Target(1.10) for how in ("fresh", "again")},
        **{f"bulk_upsert 100,000 documents, {how}": Target(1.10) for how in ("fresh", "again")},
        "upsert in a unit of work": Target(1.6),
        "upsert with expected_version, in a unit of work": Target(1.6),
        "upsert with event_id and event_position, in a unit of work": Target(1.6),
        "upsert, own transaction": Target(1.15),
        "find_one in a unit of work": Target(1.9),
        "find_many of 100 in a unit of work": Target(2.0),
        "save_position, own transaction": Target(1.2),
        "append 1 event, own transaction": Target(1.6, ahead={"eventsourcing": 1.3}),
        "append 10,000 events, one transaction": Target(1.2, ahead={"eventsourcing": 3}),
        "8 concurrent appenders, without work": Target(PROTECTED, ahead={"table lock": 2}),
        "8 concurrent appenders, with 2 ms of work before the commit": Target(PROTECTED, ahead={"table lock": 5}),
        "read 100,000 events in pages of 1,000": Target(1.2, ahead={"eventsourcing": 1}),
        "enqueue one, own transaction": Target(1.8, ahead={"procrastinate": 1.8}),
        "enqueue_many 10,000": Target(1.2, ahead={"procrastinate": 10, "pgqueuer": 2.5}),
        **_CLAIMS,
        "JobWorker, 1,000 no-op jobs, 10 at once": Target(ahead={"procrastinate": 3, "pgqueuer": 1.5}),
        "save_snapshot of 1 kB": Target(1.6),
        "save_snapshot of 10 kB": Target(1.3),
        "save_snapshot of 100 kB": Target(1.2),
        "get_latest_snapshot of 1 kB": Target(added=130),
        "get_latest_snapshot of 10 kB": Target(added=150),
        "get_latest_snapshot of 100 kB": Target(added=300),
        "save a saga of 4 kB and 50 steps": Target(1.2),
        "load a saga of 4 kB and 50 steps": Target(1.75),
        **_ON_BOTH,
    },
    "sqlite": {
        **{f"bulk_upsert 1,000 documents, {how}": Target(1.4) for how in ("fresh", "again")},
        **{f"bulk_upsert 10,000 documents, {how}": Target(1.10) for how in ("fresh", "again")},
        **{f"bulk_upsert 100,000 documents, {how}": Target(1.10) for how in ("fresh", "again")},
        **_ON_BOTH,
    },
}


def target_of(result: Result) -> Target:
    """Return the target of a workload, without any limit where none is set."""
    return TARGETS[result.database].get(result.name, Target())


def shown(result: Result) -> str:
    """Return the limits in words, each with whether it is kept."""
    words = {True: "met", False: "missed", None: "not measured"}
    return "; ".join(f"{limit} {words[kept]}" for limit, kept in target_of(result).judged(result))


def others(result: Result) -> list[str]:
    """Return the sides beside the library and the raw driver."""
    return [side for side in result.seconds if side not in {LIBRARY, RAW}]
