"""What runners and workers need of PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from cqrs_ddd_persistence_sqlalchemy.core.dialect.direct import TRANSACTION_POOLING
from cqrs_ddd_persistence_sqlalchemy.core.dialect.running import RunningDialect

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

_CANCELED = "57014"  # statement_timeout

# serialization_failure, deadlock_detected, lock_not_available, read_only; classes 08 and 53
# (connection) and 57P (the server stops or starts) as a whole.
_PASSING = frozenset({"40001", "40P01", "55P03", "25006"})


class PostgreSQLRunning(RunningDialect):
    """LISTEN and NOTIFY, clock_timestamp(), SQLSTATEs."""

    has_one_writer = False
    has_notifications = True

    def later(self, seconds: sa.ColumnElement[float]) -> sa.ColumnElement[datetime]:
        """Add an interval to the clock, not to the beginning of the transaction."""
        nothing: list[sa.ColumnElement[int]] = [sa.literal_column("0")] * 6
        return sa.func.clock_timestamp(type_=sa.DateTime(timezone=True)) + sa.func.make_interval(*nothing, seconds)

    def seconds_since(self, moment: sa.ColumnElement[datetime]) -> sa.ColumnElement[float]:
        """Take the difference to the clock."""
        return sa.cast(sa.extract("epoch", sa.func.clock_timestamp() - moment), sa.Double())

    def passes(self, error: BaseException, *, of_handler: bool = False) -> bool:
        """Go by the SQLSTATE; before a connection stands, the driver's errors come as they are."""
        if isinstance(error, DBAPIError):
            if error.connection_invalidated:
                return True
            error = getattr(error.orig, "__cause__", None) or error
        if isinstance(error, sa.exc.TimeoutError):
            return True
        if isinstance(error, OSError | asyncpg.InterfaceError):
            return not of_handler
        state = str(getattr(error, "sqlstate", None) or "")
        if state == _CANCELED:
            return not of_handler
        return state in _PASSING or state.startswith(("08", "53", "57P"))

    async def notify(self, connection: AsyncConnection, channel: str) -> None:
        """Use pg_notify, which takes the channel as a value."""
        await connection.execute(sa.text("SELECT pg_notify(:channel, '')"), {"channel": channel})

    async def listen(
        self, connection: AsyncConnection, channel: str, wake: Callable[[], Any], lost: Callable[[], Any]
    ) -> bool:
        """Take the driver's connection for good: it must not go back to the pool, nor hold one of its places.

        Through a proxy that pools by transaction nothing would ever be heard, and the server's session, which is lent
        to other clients, would go on listening.
        """
        if TRANSACTION_POOLING.items() <= connection.sync_engine.get_execution_options().items():
            return False
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await connection.run_sync(lambda sync: sync.detach())
        await driver.add_listener(channel, lambda *_: wake())
        driver.add_termination_listener(lambda *_: lost())
        return True
