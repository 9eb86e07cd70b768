"""Checks at the edge that several stores share."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from cqrs_ddd_advanced_core.identifiers import check_identifier
from cqrs_ddd_advanced_core.storable import BIGINT_MAX, ID_LENGTH
from cqrs_ddd_persistence_sqlalchemy.core.json_documents import check_text

if TYPE_CHECKING:
    from datetime import datetime


def check_count(name: str, value: object) -> int:
    """Return a whole number from 0 to 2^63 - 1.

    Raises:
        ValueError: naming it, for anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= BIGINT_MAX:
        raise ValueError(f"{name} must be a whole number from 0 to {BIGINT_MAX}, not {value!r}")
    return value


def check_seconds(name: str, value: float) -> float:
    """Return seconds from 0, finite.

    Raises:
        ValueError: naming it, for anything else.
    """
    if isinstance(value, bool) or not 0 <= value < float("inf"):
        raise ValueError(f"{name} is {value!r}: give seconds from 0")
    return float(value)


def check_id(name: str, value: object, *, max_length: int = ID_LENGTH) -> str:
    """Return an id: text, not empty, at most `max_length` characters, storable on both databases.

    Raises:
        ValueError: naming it, for anything else.
    """
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} must be a text of at least one character, not {value!r}")
    if len(value) > max_length:
        raise ValueError(f"{name} has {len(value)} characters, at most {max_length} are stored")
    return check_text(value, name)


def check_aware(name: str, value: datetime) -> datetime:
    """Return a point in time that has a time zone.

    Raises:
        ValueError: naming it, for a naive one, and one that UTC has no year for.
    """
    if value.tzinfo is None or value.utcoffset() is None:
        raise ValueError(f"{name} is the naive datetime {value!r}: give it a time zone, for example datetime.now(UTC)")
    try:
        value.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{name} is {value!r}, which is outside the years 1 to 9999 in UTC") from None
    return value


def check_schema(schema: str | None) -> str | None:
    """Return a schema's name, None for the connection's default.

    Raises:
        ValueError: for what is no identifier.
    """
    return None if schema is None else check_identifier(schema, kind="schema")
