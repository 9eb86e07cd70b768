"""What is measured: one piece of work, done by several sides that start and end with the same rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LIBRARY, RAW = "library", "raw"


@dataclass(frozen=True)
class Side:
    """One way of doing the work.

    Attributes:
        name: "library", "raw" for the driver, or a peer's or another way's name.
        run: what is timed, given the number of the repetition; what it returns is what was read.
        prepare: what comes before, untimed, given the same number.
    """

    name: str
    run: Callable[[int], Awaitable[Any]]
    prepare: Callable[[int], Awaitable[Any]] | None = None


@dataclass(frozen=True)
class Workload:
    """One piece of work.

    Attributes:
        name: unique in its family.
        operations: how many of them a run does: times are shown for one.
        sides: the library first.
        compared: what the raw side does, for the reader of the figures.
        rows: SQL that reads what a side has left behind, with `{side}` for its name; None where the sides only read,
            and what they return is to be the same.
        at_most: repetitions, of what takes long.
        check: run once afterwards, untimed; returns a remark for the report.
    """

    name: str
    operations: int
    sides: tuple[Side, ...]
    compared: str
    rows: str | None = None
    at_most: int | None = None
    check: Callable[[], Awaitable[str]] | None = None

    def with_sides(self, *sides: Side) -> Workload:
        """Return the same work with further sides."""
        return replace(self, sides=(*self.sides, *sides))
