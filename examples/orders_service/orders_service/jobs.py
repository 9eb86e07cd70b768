"""Work that nobody waits for: mails to customers, and each night the clearing away of jobs that are over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cqrs_ddd_advanced_core.background_jobs import BaseBackgroundJob
from cqrs_ddd_persistence_sqlalchemy.advanced import Periodic

if TYPE_CHECKING:
    from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyBackgroundJobRepository
    from orders_service.outside import Mailer

KEPT = timedelta(days=30)


class OrderMail(BaseBackgroundJob):
    """A mail about an order. It may be sent twice when a worker dies in between; that does no harm."""

    to: str
    text: str

    async def execute(self, mailer: Mailer) -> None:
        """Send it."""
        await mailer.send(self.to, self.text, key=self.id)


class ClearAway(BaseBackgroundJob):
    """Deletes the mails that were sent, or given up, long ago."""

    async def execute(self, mails: SQLAlchemyBackgroundJobRepository[OrderMail]) -> int:
        """Return how many there were: the job's result."""
        return await mails.purge(before=datetime.now(UTC) - KEPT)


def every_night() -> Periodic:
    """Return the schedule of ClearAway. A night's job that still waits makes the next night pass without one."""
    return Periodic("0 3 * * *", lambda: ClearAway(unique_key="clear away"), name="clear away")
