"""A document on its way into its row: key filled in, values converted, guards added."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cqrs_ddd_persistence_sqlalchemy.advanced.projections.collection import (
    LAST_EVENT_ID,
    LAST_EVENT_POSITION,
    VERSION,
    Collection,
)
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

    from cqrs_ddd_persistence_sqlalchemy.advanced.projections.statements import Guards


def complete(
    collection: Collection, doc_id: object, doc: Mapping[str, Any] | BaseModel, exact_digits: int | None
) -> dict[str, Any]:
    """Return the values of a row, key columns first.

    Args:
        collection: where it goes.
        doc_id: the key, or None where the document itself must have it.
        doc: the document.
        exact_digits: as for `to_column`.

    Raises:
        ValueError: when the document contradicts the key, or has none.
    """
    # Names as plain text: a member of a (str, Enum) equals its text but is formatted as something else.
    values = {str.__str__(name): value for name, value in collection.values(doc, exact_digits=exact_digits).items()}
    if values.get(VERSION, 0) is None:
        del values[VERSION]  # no version is no wish for one
    if doc_id is None:
        missing = [name for name in collection.key if values.get(name) is None]
        if missing:
            raise ValueError(f"a document for {collection.name!r} has no {', '.join(missing)}, which identifies it")
        key = {name: values[name] for name in collection.key}
    else:
        key = collection.key_values(doc_id, exact_digits=exact_digits)
        for name, value in key.items():
            if name in values and values[name] != value:
                raise ValueError(f"column {name!r} is {values[name]!r} in the document, but doc_id says {value!r}")
    return key | values


def guarded(collection: Collection, values: dict[str, Any], guards: Guards) -> dict[str, Any]:
    """Return the values with what the guards add to them.

    Raises:
        ValueError: when a guard's column is missing, a value contradicts a guard, or the version would not grow.
    """
    for name in guards.names:
        if name not in collection.types:
            raise ValueError(f"collection {collection.name!r} has no column {name!r}, which this guard needs")
    if guards.expected_version is not None:
        expected = check_count("expected_version", guards.expected_version)
        if values.get(VERSION) is not None and values[VERSION] <= expected:
            raise ValueError(f"column {VERSION!r} would go from {expected} to {values[VERSION]}: versions grow")
    if guards.event_position is not None:
        check_count("event_position", guards.event_position)
    brought = {LAST_EVENT_ID: guards.event_id, LAST_EVENT_POSITION: guards.event_position}
    added = {name: value for name, value in brought.items() if value is not None}
    converted = collection.values(added, exact_digits=None)
    for name, value in converted.items():
        if values.get(name) not in (None, value):
            raise ValueError(f"column {name!r} is {values[name]!r} in the document, but the event's is {value!r}")
    return values | converted
