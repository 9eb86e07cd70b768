"""What an append is about to do, worked out without the database: rows, claims and streams."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from cqrs_ddd_persistence_sqlalchemy.core.event_checks import check_events
from cqrs_ddd_persistence_sqlalchemy.core.event_objects import changed
from cqrs_ddd_persistence_sqlalchemy.core.json_documents import object_text, to_document_and_text
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_count
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from cqrs_ddd_advanced_core.events import StoredEvent


#: The columns of the rows that are copied, in their order in the table.
COPIED = (
    "position", "event_id", "aggregate_id", "aggregate_type", "event_type", "version", "payload", "metadata",
    "occurred_at", "recorded_at", "correlation_id", "causation_id", "schema_version",
)  # fmt: skip


@dataclass(slots=True)
class _Stream:
    """A stream that the batch appends to: the version it is claimed to be at, and how many events it gets."""

    name: str
    version: int | None
    appended: int = 0


class AppendPlan:
    """A batch of events, checked against itself.

    Args:
        events: in order.
        expected_version: of the one stream, or None.

    Raises:
        OptimisticConcurrencyError: when the batch's own versions or event ids contradict each other.
        ValueError: naming what cannot be appended.
    """

    def __init__(self, events: Sequence[StoredEvent], expected_version: int | None) -> None:
        check_events(events)
        self.events = events
        # Lists side by side: objects that hold each event's together are what the garbage collector goes through.
        self._documents: tuple[list[dict[str, Any]], list[dict[str, Any]]] = [], []
        self._texts: tuple[list[str], list[str]] = [], []
        for name, documents, texts in zip(("payload", "metadata"), self._documents, self._texts, strict=True):
            for event in events:
                document, text = to_document_and_text(getattr(event, name), name, of=event.event_type)
                documents.append(document)
                texts.append(text)
        self.streams: dict[str, _Stream] = {}
        self._positions_assigned: list[int] = []
        self._check_expected(expected_version)
        self._numbers = [self._count(event, expected_version) for event in self.events]
        self._check_event_ids()

    @property
    def needs_savepoint(self) -> bool:
        """Whether the statement could write some of the batch and not the rest."""
        return len(self.events) > 1 or self.claims_positions

    @property
    def claims_positions(self) -> bool:
        """Whether a second try would meet other positions: one that is drawn does not come back."""
        return any(event.position is not None for event in self.events)

    def batch(self, json_time: Callable[[datetime], str]) -> str:
        """Return the rows as the JSON array that the INSERT reads."""
        rows = []
        each = zip(self.events, *self._texts, self._numbers, strict=True)
        for row_number, (event, payload, metadata, row_in_stream) in enumerate(each):
            values = {
                "event_id": event.event_id,
                "aggregate_id": event.aggregate_id,
                "aggregate_type": event.aggregate_type,
                "event_type": event.event_type,
                "occurred_at": json_time(event.occurred_at),
                "correlation_id": event.correlation_id,
                "causation_id": event.causation_id,
                "schema_version": event.schema_version,
                "row_number": row_number,
                "row_in_stream": row_in_stream,
                "stream_version": self.streams[event.aggregate_id].version,
            }
            rows.append(object_text(values, payload=payload, metadata=metadata))
        return f"[{','.join(rows)}]"

    def stored(self, rows: Sequence[Sequence[Any]]) -> list[StoredEvent] | None:
        """Return the events as stored, or None when not all were, or not at the positions they claim."""
        found = {event_id: assigned for event_id, *assigned in rows}
        if len(found) < len(self.events):
            return None
        for event in self.events:
            if event.position not in (None, found[event.event_id][1]):
                self._positions_assigned = [found[each.event_id][1] for each in self.events]
                return None
        return self._as_stored(*zip(*(found[event.event_id] for event in self.events), strict=True))

    def to_copy(
        self, versions: Mapping[str, int], drawn: Sequence[Sequence[Any]]
    ) -> tuple[list[StoredEvent], list[Sequence[Any]]]:
        """Return the events as they will be stored, and their values for each of the columns COPIED.

        Args:
            versions: of the streams that the batch appends to, before it.
            drawn: position and time of each event.
        """
        numbered = zip(self.events, self._numbers, strict=True)
        counted = [versions[event.aggregate_id] + row_in_stream for event, row_in_stream in numbered]
        positions, times = zip(*drawn, strict=True)
        columns = dict(zip(("position", "version", "recorded_at"), (positions, counted, times), strict=True))
        columns |= dict(zip(("payload", "metadata"), self._texts, strict=True))
        values = [columns[name] if name in columns else list(map(attrgetter(name), self.events)) for name in COPIED]
        return self._as_stored(counted, positions, times), values

    def _as_stored(
        self, versions: Iterable[int], positions: Iterable[int], times: Iterable[datetime]
    ) -> list[StoredEvent]:
        changes = zip(*self._documents, versions, positions, times, strict=True)
        names = ("payload", "metadata", "version", "position", "recorded_at")
        return changed(self.events, names, changes)

    def fits(self, actual: Mapping[str, int]) -> bool:
        """Tell whether all streams are at the versions claimed for them."""
        return all(stream.version in (None, actual[name]) for name, stream in self.streams.items())

    def check_versions(self, actual: Mapping[str, int]) -> None:
        """Raise OptimisticConcurrencyError for a stream that is not at the version claimed for it."""
        for aggregate_id, version in actual.items():
            stream = self.streams[aggregate_id]
            if stream.version is not None and stream.version != version:
                raise OptimisticConcurrencyError(stream.name, aggregate_id, expected=stream.version, actual=version)

    def check_positions(self) -> None:
        """Raise OptimisticConcurrencyError when events claimed other positions than they would have got."""
        for event, position in zip(self.events, self._positions_assigned, strict=False):
            if event.position not in (None, position):
                raise OptimisticConcurrencyError(
                    "event", event.event_id, expected=event.position, actual=position,
                    reason=f"claims position {event.position}, the next is {position}; leave it None to be given one",
                )  # fmt: skip

    def _check_expected(self, expected_version: int | None) -> None:
        if expected_version is None:
            return
        check_count("expected_version", expected_version)
        names = list(dict.fromkeys(event.aggregate_id for event in self.events))
        if len(names) > 1:
            raise ValueError(f"expected_version is of one stream, the events are of {len(names)}: {names[:5]}")

    def _count(self, event: StoredEvent, expected_version: int | None) -> int:
        name = event.aggregate_type or "stream"
        stream = self.streams.setdefault(event.aggregate_id, _Stream(name, expected_version))
        stream.appended += 1
        if event.version is not None:
            claimed = event.version - stream.appended
            if stream.version is None and claimed >= 0:
                stream.version = claimed
            elif claimed != stream.version:
                at = (stream.version or 0) + stream.appended - 1
                raise OptimisticConcurrencyError(name, event.aggregate_id, expected=event.version - 1, actual=at)
        return stream.appended

    def _check_event_ids(self) -> None:
        seen: set[str] = set()
        for event in self.events:
            if event.event_id in seen:
                raise OptimisticConcurrencyError(
                    "event",
                    event.event_id,
                    expected=None,
                    actual=None,
                    reason="the batch has this event_id twice",
                )
            seen.add(event.event_id)
