"""The peers: libraries from the package index that do the same work. Those that are not installed are left out."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.peers.eventsourcing_store import EventSourcing

NAMES = ("procrastinate", "pgqueuer", "eventsourcing")
HOW_TO_INSTALL = "pip install --editable '.[bench]'"


def missing() -> list[str]:
    """Return the peers that are not installed."""
    return [name for name in (*NAMES, "psycopg") if find_spec(name) is None]


async def job_peers(bench: Bench) -> list[Any]:
    """Return the job queues that are installed, opened on the bench's database."""
    peers: list[Any] = []
    if not (bench.peers and bench.is_postgresql):
        return peers
    if find_spec("procrastinate") and find_spec("psycopg"):
        from benchmarks.peers.procrastinate_queue import Procrastinate

        peers.append(await Procrastinate.opened(bench))
    if find_spec("pgqueuer"):
        from benchmarks.peers.pgqueuer_queue import PgQueuer

        peers.append(await PgQueuer.opened(bench))
    return peers


def event_peer(bench: Bench) -> EventSourcing | None:
    """Return eventsourcing on the bench's database, None where it is not installed."""
    if not (bench.peers and bench.is_postgresql and find_spec("eventsourcing") and find_spec("psycopg")):
        return None
    from benchmarks.peers.eventsourcing_store import EventSourcing

    return EventSourcing(bench)
