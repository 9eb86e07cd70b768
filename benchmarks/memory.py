"""The peak memory of a process that writes or reads ten times as many rows."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from benchmarks.orders import ORDERS, an_order, schemas
from benchmarks.workload import LIBRARY
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, configure_engine
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionStore

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = 20_000
WORKS = {
    "bulk": "bulk_upsert of a generator",
    "documents": "stream of documents",
    "events": "stream_after of events",
}


def peaks(url: str, smaller: int = 1) -> Iterator[str]:
    """Run each work in a process of its own, with rows and ten times the rows, and tell their peaks."""
    few = max(ROWS // smaller, 200)
    for work, name in WORKS.items():
        first, last = (_peak_megabytes(work, count, url) for count in (few, few * 10))
        yield f"{name}: peak of {first:.0f} MB with {few:,}, {last:.0f} MB with {few * 10:,}"


def _peak_megabytes(work: str, count: int, url: str) -> float:
    command = [sys.executable, "-m", "benchmarks.memory", work, str(count), url]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    return float(done.stdout)


async def _do(work: str, count: int, url: str) -> None:
    engine = configure_engine(create_async_engine(url))
    sessions = async_sessionmaker(engine)
    store = SQLAlchemyProjectionStore(sessions, allow_auto_ddl=True, schemas=schemas())
    collection = f"{ORDERS}_{LIBRARY}"
    await store.ensure_collection(collection, schema=next(each for each in schemas() if each.collection == collection))
    seen = 0
    if work == "bulk":
        seen = await store.bulk_upsert(collection, (an_order(f"m{n}", n) for n in range(count)))
    elif work == "documents":
        async for _ in store.stream(collection):
            seen += 1
            if seen == count:
                break
    else:
        async for _ in SQLAlchemyEventStore(sessions).stream_after(0):
            seen += 1
            if seen == count:
                break
    await engine.dispose()
    if seen != count:
        raise SystemExit(f"{work}: {seen} rows instead of {count}")


def _own_peak_megabytes() -> float:
    """Return the peak of this program alone: what the system counts for a process includes what started it."""
    status = Path("/proc/self/status")
    if status.exists():
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    asyncio.run(_do(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
    print(_own_peak_megabytes())
