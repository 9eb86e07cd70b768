"""Jobs that are enqueued again and again, by the clock of the database, once a tick however many schedulers run."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any

from cqrs_ddd_advanced_core.cancellation import is_cancelled
from cqrs_ddd_persistence_sqlalchemy.advanced.running.patience import is_passing
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cqrs_ddd_advanced_core.background_jobs.entity import BaseBackgroundJob
    from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.repository import SQLAlchemyBackgroundJobRepository

logger = logging.getLogger(__name__)

_LONGEST_SLEEP = timedelta(minutes=1)


@dataclass(frozen=True)
class Periodic:
    """A job for each tick of a cron expression. Needs the extra `cron`.

    Attributes:
        expression: five fields, as in "*/5 * * * *"; six, with seconds last.
        job_factory: makes the job of a tick.
        name: under which the last tick is remembered; the factory's name and the expression unless given. The same in
            every process, and no other schedule's.
        timezone: in which the expression is meant.

    Raises:
        ValueError: the expression or the time zone makes no sense, or a name is missing.
        ImportError: the extra is not installed.
    """

    expression: str
    job_factory: Callable[[], BaseBackgroundJob]
    name: str = ""
    timezone: tzinfo = UTC

    def __post_init__(self) -> None:
        """Check the expression, and find a name."""
        if not isinstance(self.timezone, tzinfo):
            raise ValueError(f"Periodic: timezone is {self.timezone!r}: give a tzinfo, such as ZoneInfo('Europe/Rome')")
        try:
            self.last_tick(datetime.now(UTC))
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"Periodic: {self.expression!r} is no cron expression that ever comes, such as '*/5 * * * *'"
            ) from error
        factory = getattr(self.job_factory, "__qualname__", "<unnamed>")
        if not self.name and "<" in factory:
            raise ValueError("Periodic: give a name= under which the ticks are remembered; the factory has none itself")
        name = self.name or f"{factory} {self.expression}"
        object.__setattr__(self, "name", check_id("name", name))

    def last_tick(self, now: datetime) -> datetime:
        """Return the newest tick that is not in the future, in UTC."""
        # Ticks before a moment are asked for; one that falls on it counts.
        tick: datetime = self._ticks(now + timedelta(microseconds=1)).get_prev(datetime)
        return tick.astimezone(UTC)

    def next_tick(self, now: datetime) -> datetime:
        """Return the first tick in the future, in UTC."""
        tick: datetime = self._ticks(now).get_next(datetime)
        return tick.astimezone(UTC)

    def _ticks(self, moment: datetime) -> Any:
        return _croniter()(self.expression, moment.astimezone(self.timezone))


class Scheduler:
    """Enqueues the jobs of schedules, each tick's once: the transaction that enqueues a job remembers its tick.

    A schedule that is new begins with its next tick. Of ticks that were missed, as no scheduler ran, the newest one is
    made up for.

    Args:
        repository: to enqueue in.
        periodic: the schedules.

    Raises:
        ValueError: two schedules have one name.
    """

    def __init__(self, repository: SQLAlchemyBackgroundJobRepository[Any], periodic: Sequence[Periodic]) -> None:
        names = [each.name for each in periodic]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two schedules have the name {', '.join(map(repr, twice))}: give name=")
        self._repository = repository
        self._periodic = tuple(periodic)

    async def run(self) -> None:
        """Enqueue jobs as their ticks come, until cancelled."""
        while True:
            await self.enqueue_due()
            now = await self._repository.now()
            upcoming = min(periodic.next_tick(now) for periodic in self._periodic)
            await asyncio.sleep(min(upcoming - now, _LONGEST_SLEEP).total_seconds())

    async def enqueue_due(self) -> int:
        """Enqueue the jobs whose ticks have come, and return how many this call has enqueued."""
        now, enqueued = await self._repository.now(), 0
        for periodic in self._periodic:
            try:
                tick = periodic.last_tick(now)
                enqueued += await self._repository.enqueue_tick(periodic.name, tick, periodic.job_factory)
            except (Exception, asyncio.CancelledError) as error:  # whatever a factory raises: the others go on
                if is_cancelled() or is_passing(error):
                    raise
                logger.exception("periodic job %r: no job was enqueued", periodic.name)
        return enqueued


def _croniter() -> Any:
    try:
        from croniter import croniter  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise ImportError(
            "Periodic needs croniter; run: pip install 'cqrs-ddd-persistence-sqlalchemy[cron]'"
        ) from error
    return croniter
