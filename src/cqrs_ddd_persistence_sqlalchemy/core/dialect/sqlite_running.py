"""What runners and workers need of SQLite."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from cqrs_ddd_persistence_sqlalchemy.core.dialect.running import RunningDialect

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection


_PASSING = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL})


class SQLiteRunning(RunningDialect):
    """No server, so no notifications; one writer at a time."""

    has_one_writer = True
    has_notifications = False

    def later(self, seconds: sa.ColumnElement[float]) -> sa.ColumnElement[datetime]:
        """Write the time in the form in which SQLAlchemy stores times."""
        modifier = sa.cast(seconds, sa.Text()) + " seconds"
        moment = sa.func.strftime("%Y-%m-%d %H:%M:%f", "now", modifier) + "000"
        return sa.type_coerce(moment, sa.DateTime(timezone=True))

    def seconds_since(self, moment: sa.ColumnElement[datetime]) -> sa.ColumnElement[float]:
        """Take the difference of days."""
        days = sa.func.julianday("now") - sa.func.julianday(sa.type_coerce(moment, sa.Text()))
        return sa.type_coerce(days * 86400.0, sa.Double())

    def passes(self, error: BaseException, *, of_handler: bool = False) -> bool:
        """Recognise a lock that was held for longer than the busy timeout, and a full disk."""
        if isinstance(error, sa.exc.TimeoutError):
            return True
        code = getattr(error.orig, "sqlite_errorcode", None) if isinstance(error, DBAPIError) else None
        return code is not None and code & 0xFF in _PASSING  # the rest of an extended code says more of the same

    async def notify(self, connection: AsyncConnection, channel: str) -> None:
        """Do nothing."""

    async def listen(
        self, connection: AsyncConnection, channel: str, wake: Callable[[], Any], lost: Callable[[], Any]
    ) -> bool:
        """Return False: readers poll."""
        return False
