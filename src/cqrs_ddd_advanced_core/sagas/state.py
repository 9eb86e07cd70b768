"""SagaState: the class under every saga, which knows how to undo what its steps have done."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import PrivateAttr

from cqrs_ddd_advanced_core.arguments import arguments_of
from cqrs_ddd_advanced_core.cancellation import cancellations, in_its_own_task, is_cancelled
from cqrs_ddd_advanced_core.exceptions import CompensationError, DomainError, InvalidTransitionError
from cqrs_ddd_advanced_core.sagas.recording import SagaSteps
from cqrs_ddd_advanced_core.sagas.status import SagaStatus
from cqrs_ddd_advanced_core.sagas.steps import StepRecord, StepStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from datetime import timedelta


class SagaState(SagaSteps):
    """A long-running process: subclass it with fields for what it has to remember, and methods for its steps.

    Attributes:
        id: of this run of the process.
        correlation_id: what it is about, such as an order's id; unique among the sagas of one type. None for nothing.
        status: SagaStatus; a subclass may begin as RUNNING.
        step_history: the runs of its steps, oldest first.
        timeout_at: the deadline, aware; None for none.
        reason: why it is suspended, or was cancelled.
        error: why it failed.
    """

    _undone: StepRecord | None = PrivateAttr(default=None)

    def step_key(self, name: str) -> str:
        """Return a key that is the same whenever the same run of a step, or of a compensation, is tried again.

        After a crash too. Pass it on to where a repetition would do harm, such as a payment provider, to be recognised
        there.

        Args:
            name: of a step, or of a method that undoes one: then the key is that of the step which is being undone.
        """
        if name in self.steps:
            number = sum(record.name == name and record.has_been_completed for record in self.step_history)
        elif any(step.compensation == name for step in self.steps.values()):
            of_name = [each for each in self.step_history if each.compensation == name and each.has_been_completed]
            undone = self._undone if self._undone is not None and self._undone.compensation == name else None
            left = undone or next((each for each in reversed(of_name) if each.is_to_be_compensated), None)
            number = len(of_name) if left is None else next(n for n, each in enumerate(of_name) if each is left)
        else:
            raise DomainError(
                f"saga {self.saga_type} has no step {name!r}; its steps: {', '.join(self.steps) or 'none'}"
            )
        return f"{self.saga_type}:{self.id}:{name}:{number}"

    def request_compensation(self, reason: str | None = None) -> None:
        """Say that the saga is to be undone; one that has failed gets all its retries again."""
        if self.status is SagaStatus.FAILED:
            for record in self.to_be_compensated():
                record.compensation_failures = 0
        super().request_compensation(reason)

    def to_be_compensated(self) -> list[StepRecord]:
        """Return the completed steps that are not undone yet, last first."""
        return [record for record in reversed(self.step_history) if record.is_to_be_compensated]

    async def compensate_all(self, **services: Any) -> None:
        """Undo the completed steps that are not undone yet, last first.

        The parameters of a compensation are looked up by name: in the keywords given here, in what is bound, and in the
        arguments that its step was called with in this process. On success no terminal status is entered:
        `mark_as_cancelled(reason)` comes next. A saga in which nothing is left to undo only becomes COMPENSATING.

        Raises:
            InvalidTransitionError: the saga is completed or cancelled.
            CompensationError: a parameter is missing: nothing is undone. Or a compensation has failed: it is recorded,
                the others have run, and the saga is FAILED; calling again goes on with what is left.
        """
        calls = [(record, self._undoing(record, services)) for record in self.to_be_compensated()]
        if self.status is not SagaStatus.COMPENSATING:
            self._enter(SagaStatus.COMPENSATING)
        failures: list[Exception] = []
        for record, call in calls:
            try:
                await self._undo(record, call)
            except Exception as error:  # noqa: BLE001  (the other steps are to be undone all the same)
                failures.append(error)
        if failures:
            failure = self.compensation_failure(failures)
            self.mark_as_failed(failure)
            raise failure from ExceptionGroup(f"compensations of saga {self.id!r}", failures)

    async def compensate_step(
        self,
        record: StepRecord,
        services: Mapping[str, Any],
        *,
        timeout: timedelta | None = None,
    ) -> None:
        """Undo one of `to_be_compensated()`, and record how that ended; what the compensation raises passes.

        Args:
            record: of the step.
            services: beside what is bound, as in `compensate_all`.
            timeout: how long it may take.

        Raises:
            InvalidTransitionError: the saga is not COMPENSATING: call request_compensation() first.
            CompensationError: a parameter is missing.
        """
        if self.status is not SagaStatus.COMPENSATING:
            raise InvalidTransitionError(
                f"saga {self.id!r} is {self.status}: call request_compensation() before its steps are undone",
                current=self.status,
                target=SagaStatus.COMPENSATING,
            )

        async def call() -> None:
            await self._undoing(record, services)()

        self._is_settled = True  # the other steps are to be undone, whatever this compensation says
        try:
            await self._undo(record, call, timeout=timeout)
        finally:
            self._is_settled = False

    def compensation_failure(self, causes: Sequence[Exception] = ()) -> CompensationError:
        """Return the error that names the steps which could not be undone."""
        failed = [each for each in self.to_be_compensated() if each.status is StepStatus.COMPENSATION_FAILED]
        names = ", ".join(repr(each.name) for each in failed)
        hint = "mend the cause, then call compensate_all() again, or have a SagaRunner do it: request_compensation()"
        return CompensationError(f"saga {self.id!r}: undoing {names} failed; {hint}", causes=causes)

    async def _undo(
        self,
        record: StepRecord,
        call: Callable[[], Awaitable[Any]],
        *,
        timeout: timedelta | None = None,
    ) -> None:
        self._undone = record
        before = cancellations()
        try:
            async with asyncio.timeout(None if timeout is None else timeout.total_seconds()):
                await in_its_own_task(call())
        except asyncio.CancelledError as error:
            if is_cancelled(before=before):
                raise
            record.not_undone(error)
            raise RuntimeError(f"{record.compensation!r} was cancelled from inside") from error
        except Exception as error:
            record.not_undone(error)
            raise
        finally:
            self._undone = None
        record.undone()

    def _undoing(self, record: StepRecord, services: Mapping[str, Any]) -> Callable[[], Awaitable[Any]]:
        assert record.compensation is not None  # noqa: S101  (is_to_be_compensated)
        method = getattr(self, record.compensation, None)
        if method is None:
            raise CompensationError(
                f"saga {self.id!r}: step {record.name!r} is undone by {record.compensation!r}, which this class does "
                "not have any more; nothing is undone"
            )
        known = {**self._arguments.get(record.name, {}), **self._services, **services}
        arguments, missing = arguments_of(method, known)
        if missing:
            raise CompensationError(
                f"saga {self.id!r}: {record.compensation!r} needs {', '.join(map(repr, missing))}, which nobody has "
                f"given: saga.bind({missing[0]}=...), or compensate_all({missing[0]}=...); nothing is undone"
            )
        return partial(method, **arguments)
