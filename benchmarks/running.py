"""A run: every family on every database, each with a database to itself, on one server."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.bench import opened
from benchmarks.families import FAMILIES
from benchmarks.machine import machine_facts, pinned_server, server_facts
from benchmarks.measuring import Result, measure
from tests.support.databases import Databases

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.families import Family
    from tests.support.databases import Database

QUICK = 100  # so many times smaller


@dataclass(frozen=True)
class Options:
    """What to run.

    Attributes:
        only: "family" or "family/part of a workload's name", several of them; all when empty.
        databases: "postgresql", "sqlite".
        repetitions: counted ones.
        quick: a hundredth of the sizes, to see that everything runs.
        peers: whether peers that are installed take part.
        log: of the traffic fines, None for a made-up one.
    """

    only: tuple[str, ...] = ()
    databases: tuple[str, ...] = ("postgresql", "sqlite")
    repetitions: int = 5
    quick: bool = False
    peers: bool = True
    log: Path | None = None

    def wants(self, family: str, workload: str | None = None) -> bool:
        """Tell whether a family, or one of its workloads, takes part."""
        if not self.only:
            return True
        for each in self.only:
            of, _, part = each.partition("/")
            if family.startswith(of) and (workload is None or part in workload):
                return True
        return False


def run(options: Options, say: Callable[[str], object]) -> tuple[dict[str, str], list[Result]]:
    """Measure; return the facts and the results.

    Args:
        options: what.
        say: told how far it is.
    """
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as folder, pinned_server() as (server, pinned):
        databases = Databases(server, Path(folder))
        sizes = " A quick run: a hundredth of the sizes, whose figures say little." if options.quick else ""
        facts = {
            **machine_facts(),
            **asyncio.run(server_facts(server.url.replace("+asyncpg", ""))),
            "pinned": pinned,
            "run": f"Medians of up to {options.repetitions} interleaved repetitions.{sizes}",
        }
        try:
            for kind in options.databases:
                for family in FAMILIES:
                    if kind in family.databases and options.wants(family.name):
                        with databases.fresh(kind) as database:
                            results += asyncio.run(measure_family(family, database, options, say))
        finally:
            databases.close()
    return facts, results


async def measure_family(
    family: Family, database: Database, options: Options, say: Callable[[str], object]
) -> list[Result]:
    """Measure the workloads of a family."""
    smaller = QUICK if options.quick else 1
    async with opened(database, smaller=smaller, log=options.log, peers=options.peers) as bench:
        workloads = [each for each in await family.workloads(bench) if options.wants(family.name, each.name)]
        times = await measure(
            workloads, options.repetitions, lambda text: say(f"{database.kind}, {family.name}: {text}")
        )
        results = []
        for each in workloads:
            remarks = [await each.check()] if each.check is not None else []
            result = Result(family.name, database.kind, each.name, each.operations, each.compared, times[each.name])
            results.append(replace(result, remarks=remarks))
        return results
