"""What an event must be like to be appended: `model_copy(update=)` and `model_construct()` check nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from cqrs_ddd_advanced_core.events import StoredEvent
from cqrs_ddd_advanced_core.storable import ID_LENGTH, INTEGER_MAX
from cqrs_ddd_persistence_sqlalchemy.core.json_documents import are_plain_texts
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_aware, check_count, check_id

if TYPE_CHECKING:
    from collections.abc import Sequence

_FEW = 5  # are checked one by one in less time
_IDS = ("event_id", "aggregate_id", "event_type")
_LABELS = ("aggregate_type", "correlation_id", "causation_id")


def check_events(events: Sequence[StoredEvent]) -> None:
    """Refuse what cannot be stored.

    Raises:
        TypeError: for what is no event.
        ValueError: naming the first field that is wrong.
    """
    if len(events) < _FEW or not _are_plain(events):
        for event in events:
            _check(event)


def _are_plain(events: Sequence[StoredEvent]) -> bool:
    """Tell of nearly all events, and of none that is to be refused, that they are right: field by field."""
    if set(map(type, events)) != {StoredEvent}:
        return False
    versions = _values(events, "schema_version")
    times = _values(events, "occurred_at")
    return (
        set(map(type, versions)) == {int}
        and min(versions) >= 0
        and max(versions) <= INTEGER_MAX
        and set(map(type, times)) == {datetime}
        and all(time.tzinfo is UTC for time in times)
        and all(_are_plain_ids(_values(events, name)) for name in _IDS)
        and all(
            _are_plain_ids([each for each in _values(events, name) if each is not None and each != ""])
            for name in _LABELS
        )
    )


def _values(events: Sequence[StoredEvent], name: str) -> list[Any]:
    return list(map(attrgetter(name), events))


def _are_plain_ids(values: Sequence[Any]) -> bool:
    if not values:
        return True
    if set(map(type, values)) != {str}:
        return False
    lengths = set(map(len, values))
    return min(lengths) > 0 and max(lengths) <= ID_LENGTH and are_plain_texts(values)


def _check(event: StoredEvent) -> None:
    if not isinstance(event, StoredEvent):
        raise TypeError(f"append takes StoredEvent objects, not {type(event).__name__}")
    for name in _IDS:
        check_id(name, getattr(event, name))
    for name in _LABELS:
        if (label := getattr(event, name)) not in (None, ""):
            check_id(name, label)
    if check_count("schema_version", event.schema_version) > INTEGER_MAX:
        raise ValueError(f"schema_version is {event.schema_version}, at most {INTEGER_MAX} is stored")
    check_aware("occurred_at", event.occurred_at)
