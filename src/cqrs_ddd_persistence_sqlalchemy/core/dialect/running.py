"""What runners and workers need of a database, beside what the stores need."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    import sqlalchemy as sa
    from sqlalchemy.ext.asyncio import AsyncConnection


class RunningDialect(ABC):
    """How a database's clock is asked, and how its clients hear of news and of its end. Stateless."""

    #: Whether it can wake those who listen.
    has_notifications: bool
    #: Whether a transaction that writes keeps all other writers out until it ends.
    has_one_writer: bool

    @abstractmethod
    def later(self, seconds: sa.ColumnElement[float]) -> sa.ColumnElement[datetime]:
        """Return the time on the database's clock so many seconds from now."""

    @abstractmethod
    def seconds_since(self, moment: sa.ColumnElement[datetime]) -> sa.ColumnElement[float]:
        """Return how many seconds ago that was on the database's clock."""

    @abstractmethod
    def passes(self, error: BaseException, *, of_handler: bool = False) -> bool:
        """Tell whether the same may succeed a little later, as it was not the statement's fault.

        So it is with a lost connection, a server that starts, stops or changes its role, a deadlock, a lock that was
        not to be had. Of a handler, a statement that takes too long counts as its own fault, and so does an
        OSError, which comes from elsewhere, say a service that it calls.
        """

    @abstractmethod
    async def notify(self, connection: AsyncConnection, channel: str) -> None:
        """Wake those who listen, once the transaction is committed; where it can."""

    @abstractmethod
    async def listen(
        self, connection: AsyncConnection, channel: str, wake: Callable[[], Any], lost: Callable[[], Any]
    ) -> bool:
        """Call `wake` at each notification, on a connection that leaves its pool for that, and `lost` at its end.

        Returns:
            False where the database has no notifications, or none would come through.
        """
