"""What an append is about to do, worked out without the database: rows, claims and streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cqrs_ddd_advanced_core.events import StoredEvent
from cqrs_ddd_advanced_core.storable import INTEGER_MAX
from cqrs_ddd_persistence_sqlalchemy.core.event_objects import changed
from cqrs_ddd_persistence_sqlalchemy.core.json_documents import object_text, to_document_and_text
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_aware, check_count, check_id
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime
    from typing import TypeAlias

    # Payload and metadata, each with its text.
    _Documents: TypeAlias = tuple[tuple[dict[str, Any], str], tuple[dict[str, Any], str]]


#: The columns of the rows that are copied, in their order in the table.
COPIED = (
    "position", "event_id", "aggregate_id", "aggregate_type", "event_type", "version", "payload", "metadata",
    "occurred_at", "recorded_at", "correlation_id", "causation_id", "schema_version",
)  # fmt: skip

_IDS = ("event_id", "aggregate_id", "event_type")
_LABELS = ("aggregate_type", "correlation_id", "causation_id")


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
        for event in events:
            if not isinstance(event, StoredEvent):
                raise TypeError(f"append takes StoredEvent objects, not {type(event).__name__}")
            # model_copy(update=) and model_construct() check nothing.
            for name in _IDS:
                check_id(name, getattr(event, name))
            for name in _LABELS:
                if (label := getattr(event, name)) not in (None, ""):
                    check_id(name, label)
            if check_count("schema_version", event.schema_version) > INTEGER_MAX:
                raise ValueError(f"schema_version is {event.schema_version}, at most {INTEGER_MAX} is stored")
            check_aware("occurred_at", event.occurred_at)
        self.events = events
        self._documents = [
            (
                to_document_and_text(event.payload, f"payload of {event.event_type}"),
                to_document_and_text(event.metadata, f"metadata of {event.event_type}"),
            )
            for event in events
        ]
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
        for row_number, (event, documents, row_in_stream) in enumerate(self._numbered()):
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
            (_, payload), (_, metadata) = documents
            rows.append(object_text(values, payload=payload, metadata=metadata))
        return f"[{','.join(rows)}]"

    def stored(self, rows: Sequence[Sequence[Any]]) -> list[StoredEvent] | None:
        """Return the events as stored, or None when not all were, or not at the positions they claim."""
        found = {event_id: assigned for event_id, *assigned in rows}
        if len(found) < len(self.events):
            return None
        stored = []
        for event, documents, _ in self._numbered():
            version, position, recorded_at = found[event.event_id]
            if event.position not in (None, position):
                self._positions_assigned = [found[each.event_id][1] for each in self.events]
                return None
            stored.append(_stored(event, documents, version, position, recorded_at))
        return stored

    def to_copy(
        self, versions: Mapping[str, int], drawn: Sequence[Sequence[Any]]
    ) -> tuple[list[StoredEvent], list[tuple[Any, ...]]]:
        """Return the events as they will be stored, and their rows with the columns COPIED.

        Args:
            versions: of the streams that the batch appends to, before it.
            drawn: position and time of each event.
        """
        events, rows = [], []
        for (event, documents, row_in_stream), (position, recorded_at) in zip(self._numbered(), drawn, strict=True):
            version = versions[event.aggregate_id] + row_in_stream
            events.append(_stored(event, documents, version, position, recorded_at))
            (_, payload), (_, metadata) = documents
            rows.append(
                (
                    position, event.event_id, event.aggregate_id, event.aggregate_type, event.event_type, version,
                    payload, metadata, event.occurred_at, recorded_at, event.correlation_id, event.causation_id,
                    event.schema_version,
                )
            )  # fmt: skip
        return events, rows

    def _numbered(self) -> Iterable[tuple[StoredEvent, _Documents, int]]:
        return zip(self.events, self._documents, self._numbers, strict=True)

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


def _stored(
    event: StoredEvent, documents: _Documents, version: int, position: int, recorded_at: datetime
) -> StoredEvent:
    (payload, _), (metadata, _) = documents
    values = {"version": version, "position": position, "recorded_at": recorded_at}
    return changed(event, {"payload": payload, "metadata": metadata, **values})
