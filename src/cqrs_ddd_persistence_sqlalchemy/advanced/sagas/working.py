"""Working on one saga: its steps in their order, or what undoes them, until it has to wait or is over."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cqrs_ddd_advanced_core.arguments import arguments_of
from cqrs_ddd_advanced_core.cancellation import in_its_own_task, is_cancelled
from cqrs_ddd_advanced_core.error_text import described
from cqrs_ddd_advanced_core.exceptions import DomainError
from cqrs_ddd_advanced_core.sagas.state import SagaState
from cqrs_ddd_advanced_core.sagas.status import SagaStatus
from cqrs_ddd_persistence_sqlalchemy.advanced.running.patience import backoff_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cqrs_ddd_advanced_core.sagas.decorators import StepDefinition
    from cqrs_ddd_persistence_sqlalchemy.advanced.sagas.holding import HeldSaga

logger = logging.getLogger(__name__)

Saga = TypeVar("Saga", bound=SagaState)


@dataclass(frozen=True)
class SagaPolicy:
    """What happens when something fails.

    Attributes:
        backoff: before the second try; doubled before each further one, up to `max_backoff`.
        compensation_retries: how often a compensation is tried again.
    """

    backoff: timedelta
    max_backoff: timedelta
    compensation_retries: int

    def pause(self, failures: int) -> timedelta:
        """Return how long nobody tries again."""
        return timedelta(seconds=backoff_seconds(failures, self.backoff, self.max_backoff))


class SagaWork(Generic[Saga]):
    """Runs a held saga as far as it goes.

    Args:
        held: the saga.
        services: for the parameters of its methods, by name.
        policy: for failures.
        is_stopping: asked before each step: whether to give the saga back instead.
    """

    def __init__(
        self,
        held: HeldSaga[Saga],
        services: Mapping[str, Any],
        policy: SagaPolicy,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._held = held
        self._services = services
        self._policy = policy
        self._is_stopping = is_stopping

    async def run(self) -> None:
        """Go on until the saga is over, is suspended, has to pause, or the runner stops."""
        saga = self._held.saga
        if saga.status is SagaStatus.SUSPENDED:  # so it is claimed only when its deadline has passed
            saga.request_compensation(f"the deadline passed while it was suspended: {saga.reason}")
            await self._held.keep()
        while saga.status in {SagaStatus.PENDING, SagaStatus.RUNNING} and not self._is_stopping():
            step = saga.next_step()
            if step is None:
                saga.mark_as_completed()
            elif not await self._run_step(saga, step):
                return
        if saga.status is SagaStatus.COMPENSATING and not self._is_stopping():
            await self._compensate(saga)
        else:
            await self._held.give_back()

    async def _run_step(self, saga: Saga, step: StepDefinition) -> bool:
        """Run a step; False when the saga pauses before it is tried again.

        That a step has ended is saved with what comes next: the beginning of another one, or the end of the saga.
        """
        method = getattr(saga, step.name)
        arguments, missing = arguments_of(method, {**saga.services, **self._services})
        if missing:
            raise DomainError(
                f"saga {saga.id!r}: step {step.name!r} needs {', '.join(map(repr, missing))}: give services="
            )
        saga.begin_step(step)
        await self._held.keep()
        try:
            async with asyncio.timeout(step.timeout.total_seconds() if step.timeout else None):
                await in_its_own_task(method(**arguments))
        except asyncio.CancelledError as error:
            if is_cancelled():
                raise
            return await self._after_failure(saga, step, error)
        except Exception as error:  # noqa: BLE001  (whatever a step raises is its failure, and recorded)
            return await self._after_failure(saga, step, error)
        _stop_if_cancelled()
        return True

    async def _after_failure(self, saga: Saga, step: StepDefinition, error: BaseException) -> bool:
        _stop_if_cancelled()
        saga.fail_step(step.name, error)
        failures, told = saga.failures_of(step.name), described(error)
        logger.warning(
            "saga %r: step %r failed, try %d of %d: %s", *(saga.id, step.name, failures, step.retries + 1), told
        )
        if saga.status not in {SagaStatus.RUNNING, SagaStatus.COMPENSATING}:
            return True  # the step has said itself what is to become of the saga
        if failures <= step.retries:
            await self._held.put_off(self._policy.pause(failures))
            return False
        saga.request_compensation(f"step {step.name!r} failed: {told}")
        await self._held.keep()
        return True

    async def _compensate(self, saga: Saga) -> None:
        """Undo what is left, each step saved as it is undone; pause when something could not be."""
        unfinished = saga.unfinished_step()
        # Only its end tells what there is to be undone.
        if unfinished is not None and not await self._run_step(saga, unfinished):
            return None
        for record in saga.to_be_compensated():
            if self._is_stopping():
                return await self._held.give_back()
            step = saga.steps.get(record.name)
            try:
                await saga.compensate_step(record, self._services, timeout=step.timeout if step else None)
            except Exception as error:  # noqa: BLE001  (as in compensate_all: the other steps are undone all the same)
                logger.warning("saga %r: undoing %r failed: %s", saga.id, record.name, described(error))
            _stop_if_cancelled()
            await self._held.keep()
        left = saga.to_be_compensated()
        failures = max((record.compensation_failures for record in left), default=0)
        if left and failures <= self._policy.compensation_retries:
            return await self._held.put_off(self._policy.pause(failures))
        if left:
            saga.mark_as_failed(saga.compensation_failure())
            logger.error("saga %r has failed: %s", saga.id, saga.error)
        else:
            saga.mark_as_cancelled(saga.reason)
        return await self._held.give_back()


def _stop_if_cancelled() -> None:
    """Go no further where a step has taken its cancellation for something else: the saga may be another's by now."""
    if is_cancelled():
        raise asyncio.CancelledError
