"""The machine: one core for the server, one for the client, and the facts that belong beside any figure."""

from __future__ import annotations

import os
import platform
import sqlite3
import sys
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from tests.support.postgres import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgres import Server

PACKAGES = ("sqlalchemy", "asyncpg", "aiosqlite", "pydantic", "procrastinate", "pgqueuer", "eventsourcing", "psycopg")
# Durable as it comes; autovacuum and timed checkpoints would come at some side's cost and not at another's.
SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "autovacuum": "off",
    "checkpoint_timeout": "1h",
    "max_wal_size": "8GB",
    "shared_buffers": "512MB",
}
SHOWN = (*SETTINGS, "server_version", "wal_sync_method", "jit")


@contextmanager
def pinned_server() -> Iterator[tuple[Server, str]]:
    """Yield a durable server on the first core, with this process on the second, and a sentence that says so.

    A round trip takes some 20 microseconds on one core and 100 across two: where the scheduler moves client and server
    about, the same code measures twice as fast in one run as in the next.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if os.environ.get("TEST_POSTGRES_URL"):
        with running_server() as server:
            yield server, "The server is not ours (TEST_POSTGRES_URL): nothing is pinned to a core."
    elif len(cores) < 2:
        with running_server(SETTINGS, in_memory=False) as server:
            yield server, "One core only, or no way to choose one: nothing is pinned."
    else:
        everywhere = set(cores)
        try:
            os.sched_setaffinity(0, {cores[0]})  # the server is forked with it, and its processes from the server
            with running_server(SETTINGS, in_memory=False) as server:
                os.sched_setaffinity(0, {cores[1]})
                yield server, f"The server is pinned to core {cores[0]}, the client to core {cores[1]}."
        finally:
            os.sched_setaffinity(0, everywhere)


def machine_facts() -> dict[str, str]:
    """Return what the client runs on and with."""
    facts = {
        "cpu": _cpu(),
        "cores": str(os.cpu_count()),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": sys.version.split()[0],
        "sqlite": sqlite3.sqlite_version,
    }
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    return facts


async def server_facts(dsn: str) -> dict[str, str]:
    """Return the server's settings that decide about its speed."""
    connection = await asyncpg.connect(dsn)
    try:
        return {name: str(await connection.fetchval(f"SHOW {name}")) for name in SHOWN}
    finally:
        await connection.close()


def _cpu() -> str:
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
