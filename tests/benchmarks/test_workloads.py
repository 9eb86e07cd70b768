"""The benchmarks measure the same work on all sides."""

from __future__ import annotations

import asyncio
import json

import pytest

from benchmarks.bench import opened
from benchmarks.families import FAMILIES
from benchmarks.workload import LIBRARY, RAW

# Each family, on each of its databases, once.
SMALLER = 1000


def _families(kind):
    return [family for family in FAMILIES if kind in family.databases]


CASES = [(kind, family) for kind in ("postgresql", "sqlite") for family in _families(kind)]


@pytest.mark.parametrize(("kind", "family"), CASES, ids=lambda value: getattr(value, "name", value))
def test_library_and_driver_do_the_same(kind, family, databases):
    """After a run of each side the same rows are there, or the same values were returned."""
    with databases.fresh(kind) as database:
        asyncio.run(_compare(family, database))


async def _compare(family, database):
    async with opened(database, smaller=SMALLER, log=None, peers=False) as bench:
        for workload in await family.workloads(bench):
            done = {
                side.name: await _done(bench, workload, side) for side in workload.sides if side.name in {LIBRARY, RAW}
            }
            assert done[LIBRARY], f"{workload.name} leaves nothing behind"
            assert done.get(RAW, done[LIBRARY]) == done[LIBRARY], workload.name


async def _done(bench, workload, side):
    """Return what a side has left in the database, or else what it has returned."""
    if side.prepare is not None:
        await side.prepare(0)
    returned = await side.run(0)
    if workload.rows is None:
        return repr(returned).replace(side.name, "side")
    statement = workload.rows.format(side=side.name)
    fetch = bench.raw.fetch if bench.is_postgresql else bench.raw.execute_fetchall
    return [[_plain(value, side.name) for value in row] for row in await fetch(statement)]


def _plain(value, side):
    """Return a value without its side's name in it, and JSON whatever the order of its keys."""
    if not isinstance(value, str):
        return value
    text = value.replace(side, "side")
    return json.loads(text) if text.startswith(("{", "[")) else text
