"""SagaRunner: runs sagas step by step, and goes on with those of workers that have died."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cqrs_ddd_advanced_core.arguments import arguments_of
from cqrs_ddd_advanced_core.sagas.state import SagaState
from cqrs_ddd_persistence_sqlalchemy.advanced.running.patience import Outage, is_passing, wait_for_one, wait_until
from cqrs_ddd_persistence_sqlalchemy.advanced.running.settings import check_counts, check_durations
from cqrs_ddd_persistence_sqlalchemy.advanced.sagas.holding import HeldSaga
from cqrs_ddd_persistence_sqlalchemy.advanced.sagas.working import SagaPolicy, SagaWork
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_count
from cqrs_ddd_persistence_sqlalchemy.exceptions import LeaseLostError, OptimisticConcurrencyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cqrs_ddd_persistence_sqlalchemy.advanced.sagas.repository import SQLAlchemySagaRepository
    from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork

logger = logging.getLogger(__name__)

Saga = TypeVar("Saga", bound=SagaState)


class SagaRunner(Generic[Saga]):
    """Runs the sagas of one class: their steps in the order in which the class defines them.

    It takes sagas that are PENDING, those that a runner had before and that go on now (after a pause, a `resume()`, a
    crash), stalled ones, and suspended ones whose deadline has passed, which it undoes. However many runners there
    are, a saga is with one of them as long as its lease holds.

    Before each step it saves that the step begins, and with what follows it that it ended, in transactions of its own.
    So each step runs at least once and is recorded once: a step that was begun when its worker died is run again, with
    the same `saga.step_key(name)`. A step that fails is tried again as its decorator says; after the last try the
    completed steps are undone, last first, and the saga is CANCELLED, or FAILED where undoing fails, too.

    Args:
        repository: of the sagas.
        uow_factory: makes units of work that are not open yet; the repository's own unless given.
        services: for the parameters of steps and compensations, by name; beside those of the repository.
        concurrency: how many sagas it runs at once.
        lease: how long others wait for a runner that has died. It is renewed at each third of it.
        poll_interval: between looks for sagas, while there are none.
        backoff: before a step's second try; doubled before each further one, with some jitter.
        max_backoff: the longest pause between tries; also that of a saga on which something went wrong which is no
            step's failure, such as a state that cannot be stored.
        compensation_retries: how often a compensation that failed is tried again.

    Raises:
        ValueError: an argument makes no sense, or a step needs a service that nobody gives.
    """

    def __init__(  # noqa: PLR0913  (each is a setting that a deploy may want to change)
        self,
        repository: SQLAlchemySagaRepository[Saga],
        uow_factory: Callable[[], SQLAlchemyUnitOfWork] | None = None,
        *,
        services: Mapping[str, Any] | None = None,
        concurrency: int = 10,
        lease: timedelta = timedelta(seconds=30),
        poll_interval: timedelta = timedelta(seconds=0.5),
        backoff: timedelta = timedelta(seconds=1),
        max_backoff: timedelta = timedelta(minutes=5),
        compensation_retries: int = 5,
    ) -> None:
        check_counts(concurrency=concurrency)
        check_count("compensation_retries", compensation_retries)
        check_durations(lease=lease, poll_interval=poll_interval, backoff=backoff, max_backoff=max_backoff)
        self._repository = repository
        self._uow_factory = uow_factory
        self._services = {**repository.services, **(services or {})}
        self._concurrency = concurrency
        self._lease = lease
        self._poll_seconds = poll_interval.total_seconds()
        self._policy = SagaPolicy(backoff, max(backoff, max_backoff), compensation_retries)
        self._stopped = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_running = False
        _check_services(repository.saga_cls, self._services)

    async def run(self) -> None:
        """Run sagas until `stop()`; then let the steps under way end, and give their sagas back.

        When the task is cancelled, so are the steps: they count as begun, and are run again with the same key.
        """
        self._begin()
        outage = Outage()
        try:
            while not self._stopped.is_set():
                found = await outage.attempt(self._start_some, "sagas", logger)
                if len(self._tasks) == self._concurrency:
                    await wait_for_one(self._tasks, self._stopped)
                elif not found:
                    await wait_until(self._stopped, outage.pause_seconds or self._poll_seconds)
            await self._finish()
        finally:
            await self._end_whatever_comes()

    async def run_due(self) -> int:
        """Run what is due now, as far as it goes, and return how many sagas were taken. For tests and scheduled runs.

        What pauses before another try is left for later.
        """
        self._begin()
        taken = 0
        try:
            while not self._stopped.is_set():
                taken += await self._start_some()
                if not self._tasks:
                    break
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            await self._finish()
        finally:
            await self._end_whatever_comes()
        return taken

    def stop(self) -> None:
        """Let the steps under way end, and return from `run()`."""
        self._stopped.set()

    async def _start_some(self) -> int:
        """Claim as many sagas as there is room for, and begin to work on them."""
        room = self._concurrency - len(self._tasks)
        if room == 0:
            return 0
        uow = self._uow_factory() if self._uow_factory is not None else None
        begun = monotonic()
        sagas = await self._repository.claim_due_sagas(room, lease=self._lease, uow=uow)
        for saga in sagas:
            held = HeldSaga(saga, self._repository, self._lease, self._uow_factory, claimed_at=begun)
            task = asyncio.create_task(self._run_one(held))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return len(sagas)

    async def _run_one(self, held: HeldSaga[Saga]) -> None:
        saga_id = held.saga.id
        work = SagaWork(held, self._services, self._policy, self._stopped.is_set)
        try:
            await held.while_held(work.run())
        except (LeaseLostError, OptimisticConcurrencyError) as error:
            logger.warning("saga %r is left to whoever has it now: %s", saga_id, error)
        except asyncio.CancelledError:
            await self._release(held, timedelta(milliseconds=1))
            raise
        except Exception as error:
            if is_passing(error):
                logger.warning("saga %r is left until its lease ends: %s", saga_id, error)
                return
            logger.exception("saga %r is left for %s", saga_id, self._policy.max_backoff)
            await self._release(held, self._policy.max_backoff)

    async def _release(self, held: HeldSaga[Saga], pause: timedelta) -> None:
        try:
            await held.leave(pause)
        except (LeaseLostError, OptimisticConcurrencyError):
            pass
        except Exception as error:
            if not is_passing(error):
                raise

    async def _finish(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _end_whatever_comes(self) -> None:
        """End, also where the task is cancelled again meanwhile."""
        await asyncio.shield(asyncio.ensure_future(self._end()))

    async def _end(self) -> None:
        """Cancel what is left, and be ready to be run again, in another event loop perhaps."""
        for task in self._tasks:
            task.cancel()
        await self._finish()
        self._stopped = asyncio.Event()
        self._is_running = False

    def _begin(self) -> None:
        if self._is_running:
            raise RuntimeError("this SagaRunner runs already: make another one for another task")
        self._is_running = True


def _check_services(saga_cls: type[SagaState], services: Mapping[str, Any]) -> None:
    """Refuse to begin what would fail for want of a service.

    Raises:
        ValueError: naming the method and the parameter.
    """
    for step in saga_cls.steps.values():
        for name in (step.name, step.compensation):
            missing = [] if name is None else arguments_of(getattr(saga_cls, name), {"self": None, **services})[1]
            if missing:
                raise ValueError(
                    f"saga {saga_cls.__name__}: {name!r} needs {', '.join(map(repr, missing))}, which nobody gives: "
                    f"SagaRunner(..., services={{{missing[0]!r}: ...}})"
                )
