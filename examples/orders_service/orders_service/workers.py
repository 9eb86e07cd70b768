"""The work in the background: the projection's runner, the sagas' runner, the workers of jobs."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol, Self

from cqrs_ddd_persistence_sqlalchemy.advanced import JobWorker, ProjectionRunner, SagaRunner
from orders_service.jobs import every_night
from orders_service.read_models import orders_projection

if TYPE_CHECKING:
    from types import TracebackType

    from orders_service.wiring import Parts

logger = logging.getLogger(__name__)


class Runner(Protocol):
    """What the library's runners and workers have in common."""

    async def run(self) -> None:
        """Work until told to stop."""

    def stop(self) -> None:
        """End what is under way, and return from `run`."""


class Workers:
    """Runs everything in the background of an `async with` block, and lets it end in order when the block does.

    Lost connections and restarts of the database are waited for by the runners themselves. One that ends all the same
    has met a bug: it is logged, and `dead` names it, so that whoever started the process can start another one.
    """

    def __init__(self, parts: Parts) -> None:
        outside = parts.outside
        services = {
            "orders": parts.orders,
            "warehouse": outside.warehouse,
            "payments": outside.payments,
            "carrier": outside.carrier,
        }
        self._runners: dict[str, Runner] = {
            "projection": ProjectionRunner(parts.events, orders_projection, parts.unit_of_work),
            "sagas": SagaRunner(parts.fulfilments, services=services),
            "mails": JobWorker(parts.mails, services={"mailer": outside.mailer}),
            "clearings": JobWorker(parts.clearings, services={"mails": parts.mails}, periodic=[every_night()]),
        }
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def dead(self) -> list[str]:
        """The names of those that have ended though nobody told them to."""
        return [task.get_name() for task in self._tasks if task.done()]

    async def wait_for_death(self) -> None:
        """Return when the first one has ended."""
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(runner.run(), name=name) for name, runner in self._runners.items()]
        for task in self._tasks:
            task.add_done_callback(_log_failure)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for runner in self._runners.values():
            runner.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.error("%s has ended with an error", task.get_name(), exc_info=task.exception())
