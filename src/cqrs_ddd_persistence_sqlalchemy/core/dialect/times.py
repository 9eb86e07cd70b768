"""Points in time, as both databases keep and return them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Dialect


class UTCDateTime(sa.TypeDecorator[datetime]):
    """A point in time: aware going in, aware and in UTC coming out.

    SQLite has no such type and keeps the UTC wall time as text, which sorts in time's order.
    """

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times: the database would guess their zone."""
        return None if value is None else in_utc(value)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return UTC whatever the session's time zone is."""
        return _in_utc(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None] | None:
        """Do the same in one step where it is known what the driver returns: half the time of reading many rows."""
        if dialect.driver == "asyncpg":
            return _in_utc
        if dialect.driver == "aiosqlite":
            return _utc_from_text
        return super().result_processor(dialect, coltype)


def in_utc(value: datetime) -> datetime:
    """Return a time in UTC.

    Raises:
        ValueError: it is naive, and the machine's zone would be taken for its own.
    """
    if value.tzinfo is None:
        raise ValueError(f"naive datetime {value!r}: give it a time zone, for example datetime.now(UTC)")
    return value.astimezone(UTC)


_STORED = len("2026-01-02 03:04:05.000006")


def _in_utc(value: datetime | None) -> datetime | None:
    if value is None or value.tzinfo is UTC:  # as asyncpg returns nearly all
        return value
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _utc_from_text(text: str | None) -> datetime | None:
    if text is None:
        return None
    if len(text) == _STORED:
        return datetime.fromisoformat(f"{text}+00:00")
    return _in_utc(datetime.fromisoformat(text))
