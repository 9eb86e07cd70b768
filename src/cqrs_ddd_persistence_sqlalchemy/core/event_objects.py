"""Events as objects, made from values that were validated before: when they were appended, or by the caller's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cqrs_ddd_advanced_core.events import StoredEvent

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: The fields of an event, in the order in which they are selected.
FIELDS = tuple(StoredEvent.model_fields)
_ALL_SET = set(FIELDS)  # shared: events are frozen, and copies have their own
_set = object.__setattr__  # events are frozen


def restored(rows: Iterable[Sequence[Any]]) -> list[StoredEvent]:
    """Return the events of rows with the columns FIELDS, in a third of the time that `model_construct` takes."""
    return [_made(StoredEvent, dict(zip(FIELDS, row, strict=True)), _ALL_SET) for row in rows]


def changed(event: StoredEvent, values: dict[str, Any]) -> StoredEvent:
    """Return a copy with other values, as `model_copy(update=values)` does; what subclasses add is kept."""
    if event.__pydantic_private__ or event.__pydantic_extra__:
        return event.model_copy(update=values)
    return _made(type(event), {**event.__dict__, **values}, event.__pydantic_fields_set__ | values.keys())


def _made(cls: type[StoredEvent], values: dict[str, Any], fields_set: set[str]) -> StoredEvent:
    event = cls.__new__(cls)
    _set(event, "__dict__", values)
    _set(event, "__pydantic_fields_set__", fields_set)
    _set(event, "__pydantic_extra__", None)
    _set(event, "__pydantic_private__", None)
    return event
