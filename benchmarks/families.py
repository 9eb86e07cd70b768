"""The families of workloads: each has a database to itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks import (
    appenders,
    appending,
    bulk,
    claiming,
    documents,
    enqueueing,
    positions,
    projecting,
    reading,
    sagas,
    snapshots,
    working,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.bench import Bench
    from benchmarks.workload import Workload

BOTH = ("postgresql", "sqlite")


@dataclass(frozen=True)
class Family:
    """Workloads that share a database.

    Attributes:
        name: for `--only`.
        workloads: makes them, and fills the database with what they need.
        databases: where they are measured.
    """

    name: str
    workloads: Callable[[Bench], Awaitable[list[Workload]]]
    databases: tuple[str, ...] = BOTH


FAMILIES = (
    Family("bulk", bulk.workloads),
    Family("documents", documents.workloads),
    Family("positions", positions.workloads),
    Family("append", appending.workloads),
    Family("concurrent-append", appenders.workloads, ("postgresql",)),
    Family("read", reading.workloads),
    Family("enqueue", enqueueing.workloads),
    Family("claim", claiming.workloads),
    Family("worker", working.workloads, ("postgresql",)),
    Family("snapshots", snapshots.workloads),
    Family("sagas", sagas.workloads),
    Family("project", projecting.workloads),
)
