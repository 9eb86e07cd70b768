"""One interleaved run: each repetition goes through all workloads, and each workload through its sides in turn."""

from __future__ import annotations

import gc
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.workload import LIBRARY, RAW

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.workload import Side, Workload


@dataclass
class Result:
    """The times of one workload.

    Attributes:
        family: which workloads it belongs to.
        database: "postgresql" or "sqlite".
        name: the workload's.
        operations: in one run.
        compared: what the raw side does.
        seconds: of each run, by side.
        remarks: what else was found, such as the events that a reader missed.
    """

    family: str
    database: str
    name: str
    operations: int
    compared: str
    seconds: dict[str, list[float]]
    remarks: list[str] = field(default_factory=list)

    def microseconds(self, side: str) -> float:
        """Return the median time of one operation."""
        return statistics.median(self.seconds[side]) / self.operations * 1e6

    def spread(self, side: str) -> tuple[float, float]:
        """Return the shortest and the longest time of one operation."""
        each = [seconds / self.operations * 1e6 for seconds in self.seconds[side]]
        return min(each), max(each)

    def times(self, side: str = RAW, of: str = LIBRARY) -> float | None:
        """Return how many times as long as `side` the side `of` takes; None where one was not measured."""
        if not (self.seconds.get(side) and self.seconds.get(of)):
            return None
        return self.microseconds(of) / self.microseconds(side)

    @property
    def added(self) -> float | None:
        """The microseconds that an operation takes beyond the raw driver's."""
        return None if RAW not in self.seconds else self.microseconds(LIBRARY) - self.microseconds(RAW)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it, the figures that people look for beside the times they come from."""
        figures = {
            side: {"median_us": self.microseconds(side), "min_us": low, "max_us": high}
            for side in self.seconds
            for low, high in [self.spread(side)]
        }
        return {**vars(self), "figures": figures, "ratio": self.times(), "added_us": self.added}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Result:
        """Read it back."""
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})


async def measure(
    workloads: Sequence[Workload], repetitions: int, done: Callable[[str], object] = lambda _: None
) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of each run, by workload and side.

    One more repetition than asked for comes first and is not counted: it fills caches and connections of all sides.
    """
    times = {workload.name: {side.name: [] for side in workload.sides} for workload in workloads}
    for repetition in range(repetitions + 1):
        started = time.perf_counter()
        for workload in workloads:
            if workload.at_most is not None and repetition > workload.at_most:
                continue
            first = repetition % len(workload.sides)
            for side in (*workload.sides[first:], *workload.sides[:first]):
                seconds = await _timed(side, repetition)
                if repetition:
                    times[workload.name][side.name].append(seconds)
        done(f"repetition {repetition} of {repetitions} in {time.perf_counter() - started:.0f} s")
    return times


async def _timed(side: Side, repetition: int) -> float:
    if side.prepare is not None:
        await side.prepare(repetition)
    gc.collect()
    started = time.perf_counter()
    _kept = await side.run(repetition)  # what was read is freed after the clock has stopped
    return time.perf_counter() - started
