"""eventsourcing: events and snapshots of the same content through its event store, on its own tables."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from eventsourcing.application import Application
from eventsourcing.domain import DomainEvent, Snapshot
from sqlalchemy.engine import make_url

if TYPE_CHECKING:
    from benchmarks.bench import Bench

TOPIC = "benchmarks.peers.eventsourcing_store:FineCreated"


class FineCreated(DomainEvent):
    """An event with the fields that the library's has."""

    payload: dict[str, Any]
    metadata: dict[str, Any]
    correlation_id: str


class Fines(Application[UUID]):
    """An application that keeps snapshots."""

    is_snapshotting_enabled = True


class EventSourcing:
    """Its synchronous API, called from the one task that runs: no event loop adds to its times."""

    name = "eventsourcing"

    def __init__(self, bench: Bench) -> None:
        url = make_url(bench.database.direct_url)
        self._application = Fines(
            env={
                "PERSISTENCE_MODULE": "eventsourcing.postgres",
                "POSTGRES_DBNAME": str(url.database),
                "POSTGRES_HOST": str(url.host),
                "POSTGRES_PORT": str(url.port),
                "POSTGRES_USER": str(url.username),
                "POSTGRES_PASSWORD": url.password or "",
            }
        )
        bench.stack.callback(self._application.close)

    def make(self, count: int, streams: int) -> list[FineCreated]:
        """Make new events of so many streams, in turn."""
        ids = [uuid4() for _ in range(streams)]
        return [
            FineCreated(
                originator_id=ids[n % streams],
                originator_version=n // streams + 1,
                timestamp=datetime(2026, 1, 1, tzinfo=UTC),
                payload={"amount": "35.00", "article": "157", "vehicle_class": "A", "number": n, "points": [1, 2, 3]},
                metadata={"user": "u-17", "source": "terminal"},
                correlation_id="request-1",
            )
            for n in range(count)
        ]

    def append(self, events: list[FineCreated]) -> None:
        """Append in one transaction, under its table lock."""
        self._application.events.put(events)

    def read(self, page_size: int) -> list[Any]:
        """Read all events by position into domain events."""
        events: list[Any] = []
        start = None
        while True:
            page = self._application.recorder.select_notifications(
                start=start, limit=page_size, inclusive_of_start=False
            )
            events += [self._application.mapper.to_domain_event(each) for each in page]
            if len(page) < page_size:
                return events
            start = page[-1].id

    def save_snapshot(self, aggregate_id: UUID, state: dict[str, Any], version: int) -> None:
        """Put a snapshot with so much state."""
        assert self._application.snapshots is not None
        now = datetime.now(UTC)
        snapshot = Snapshot(
            originator_id=aggregate_id, originator_version=version, timestamp=now, topic=TOPIC, state=state
        )
        self._application.snapshots.put([snapshot])

    def load_snapshot(self, aggregate_id: UUID) -> Any:
        """Get the newest snapshot."""
        assert self._application.snapshots is not None
        [found] = self._application.snapshots.get(aggregate_id, desc=True, limit=1)
        return found.state
