"""SagaState: the state machine under every saga, with the history of its steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from uuid import uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PrivateAttr

from cqrs_ddd_advanced_core.exceptions import CompensationError, DomainError, InvalidTransitionError
from cqrs_ddd_advanced_core.sagas.compensation import arguments_of
from cqrs_ddd_advanced_core.sagas.decorators import StepDefinition, steps_of
from cqrs_ddd_advanced_core.sagas.status import TRANSITIONS, SagaStatus
from cqrs_ddd_advanced_core.sagas.steps import StepRecord, StepStatus


class SagaState(BaseModel):
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

    model_config = ConfigDict(validate_assignment=True)

    id: str = Field(default_factory=lambda: str(uuid4()), min_length=1, max_length=255)
    correlation_id: str | None = Field(default=None, max_length=255)
    status: SagaStatus = SagaStatus.PENDING
    step_history: list[StepRecord] = Field(default_factory=list)
    timeout_at: AwareDatetime | None = None
    reason: str | None = None
    error: str | None = None

    #: The steps by name, in the order of their definition.
    steps: ClassVar[Mapping[str, StepDefinition]] = {}

    _timeout: timedelta | None = PrivateAttr(default=None)
    _services: dict[str, Any] = PrivateAttr(default_factory=dict)
    _arguments: dict[str, dict[str, Any]] = PrivateAttr(default_factory=dict)

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Find the steps, and make sure that what undoes them is there."""
        cls.steps = steps_of(cls)
        for step in cls.steps.values():
            if step.compensation is not None and not callable(getattr(cls, step.compensation, None)):
                raise DomainError(
                    f"saga {cls.__name__}: step {step.name!r} is undone by {step.compensation!r}, "
                    "which is no method of it"
                )

    @property
    def saga_type(self) -> str:
        """The name of the saga's class, which tells it from others in the table that all share."""
        return type(self).__name__

    @property
    def timeout(self) -> timedelta | None:
        """How long a suspended saga waits, from when it is saved: by the database's clock, not by this machine's."""
        return self._timeout

    def suspend(self, reason: str, *, timeout: timedelta | None = None, until: datetime | None = None) -> None:
        """Wait for something outside.

        Args:
            reason: for people.
            timeout: after which it has expired, counted from when it is saved.
            until: the same as a point in time, aware.

        Raises:
            InvalidTransitionError: the saga is over, or being compensated.
            ValueError: both are given, or one makes no sense.
        """
        if timeout is not None and until is not None:
            raise ValueError("suspend: give timeout or until, not both")
        if timeout is not None and (not isinstance(timeout, timedelta) or timeout < timedelta(0)):
            raise ValueError(f"suspend: timeout is a timedelta from 0, not {timeout!r}")
        if until is not None and (not isinstance(until, datetime) or until.utcoffset() is None):
            raise ValueError(f"suspend: until is an aware datetime, such as datetime.now(UTC), not {until!r}")
        self._enter(SagaStatus.SUSPENDED)
        self.reason = reason
        self._timeout = timeout
        self.timeout_at = None if until is None else until.astimezone(UTC)

    def set_deadline(self, timeout_at: datetime | None, *, timeout: timedelta | None = None) -> None:
        """Let a repository replace the duration by the point in time that the database has made of it."""
        self.timeout_at = timeout_at
        self._timeout = timeout

    def resume(self) -> None:
        """Go on after waiting; the deadline is cleared. Harmless on a saga that runs.

        Raises:
            InvalidTransitionError: the saga is over, or being compensated.
        """
        if self.status is not SagaStatus.RUNNING:
            self._enter(SagaStatus.RUNNING)
        self.reason = self._timeout = self.timeout_at = None

    def mark_as_completed(self) -> None:
        """End well.

        Raises:
            InvalidTransitionError: the saga is suspended, being compensated, or over in another way.
        """
        self._end(SagaStatus.COMPLETED)

    def mark_as_cancelled(self, reason: str | None = None) -> None:
        """End without having done it, after compensate_all() where there was something to undo.

        Raises:
            InvalidTransitionError: the saga is over in another way.
        """
        if self._end(SagaStatus.CANCELLED):
            self.reason = reason

    def mark_as_failed(self, error: str | BaseException) -> None:
        """End badly: what is done is neither complete nor undone.

        Raises:
            InvalidTransitionError: the saga is over in another way.
        """
        if self._end(SagaStatus.FAILED):
            self.error = error if isinstance(error, str) else described(error)

    def bind(self, **services: Any) -> None:
        """Say which services steps and compensations get, by the names of their parameters."""
        self._services |= services

    @property
    def services(self) -> Mapping[str, Any]:
        """What is bound."""
        return self._services

    def step_key(self, name: str) -> str:
        """Return a key that is the same whenever the same run of a step is tried again, after a crash too.

        Pass it on to where a repetition would do harm, such as a payment provider, to be recognised there.
        """
        if name not in self.steps:
            raise DomainError(
                f"saga {self.saga_type} has no step {name!r}; its steps: {', '.join(self.steps) or 'none'}"
            )
        ended = sum(record.name == name and record.status is not StepStatus.RUNNING for record in self.step_history)
        failed = sum(record.name == name and record.status is StepStatus.FAILED for record in self.step_history)
        return f"{self.saga_type}:{self.id}:{name}:{ended - failed}"

    def begin_step(self, definition: StepDefinition) -> StepRecord:
        """Record that a step begins, or is tried again after a run that nobody saw end.

        Raises:
            InvalidTransitionError: the saga does not run.
        """
        if self.status is SagaStatus.PENDING:
            self._enter(SagaStatus.RUNNING)
        if self.status is not SagaStatus.RUNNING:
            raise InvalidTransitionError(
                f"saga {self.id!r} is {self.status}: step {definition.name!r} runs only in a saga that is RUNNING",
                current=self.status,
                target=SagaStatus.RUNNING,
            )
        begun = [each for each in self.step_history if each.name == definition.name]
        if begun and begun[-1].status is StepStatus.RUNNING:
            return begun[-1]
        record = StepRecord(name=definition.name, compensation=definition.compensation)
        self.step_history.append(record)
        return record

    @contextmanager
    def recording(self, definition: StepDefinition, arguments: Mapping[str, Any]) -> Iterator[None]:
        """Record a run of a step; what it raises passes."""
        record = self.begin_step(definition)
        self._arguments[definition.name] = {name: value for name, value in arguments.items() if name != "self"}
        try:
            yield
        except BaseException as error:
            # A task that is cancelled leaves its step begun: it may be tried again with the same key.
            if isinstance(error, Exception):
                record.status, record.error = StepStatus.FAILED, described(error)
                record.finished_at = datetime.now(UTC)
            raise
        record.status, record.error = StepStatus.COMPLETED, None
        record.finished_at = datetime.now(UTC)

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
        left = [record for record in reversed(self.step_history) if record.is_to_be_compensated]
        available = {**self._services, **services}
        calls = [(record, self._undoing(record, available)) for record in left]
        if self.status is not SagaStatus.COMPENSATING:
            self._enter(SagaStatus.COMPENSATING)
        failures: list[Exception] = []
        for record, (method, arguments) in calls:
            try:
                await method(**arguments)
            except Exception as error:  # noqa: BLE001  (the other steps are to be undone all the same)
                record.status, record.error = StepStatus.COMPENSATION_FAILED, described(error)
                failures.append(error)
            else:
                record.status, record.error = StepStatus.COMPENSATED, None
                record.compensated_at = datetime.now(UTC)
        if failures:
            names = ", ".join(repr(each.name) for each, _ in calls if each.status is StepStatus.COMPENSATION_FAILED)
            message = f"saga {self.id!r}: undoing {names} failed; mend the cause and call compensate_all() again"
            failure = CompensationError(message, causes=failures)
            self.mark_as_failed(failure)
            raise failure from ExceptionGroup(f"compensations of saga {self.id!r}", failures)

    def _undoing(self, record: StepRecord, available: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        assert record.compensation is not None  # noqa: S101  (is_to_be_compensated)
        method = getattr(self, record.compensation, None)
        if method is None:
            raise CompensationError(
                f"saga {self.id!r}: step {record.name!r} is undone by {record.compensation!r}, which this class does "
                "not have any more; nothing is undone"
            )
        known = {**self._arguments.get(record.name, {}), **available}
        arguments, missing = arguments_of(method, known)
        if missing:
            raise CompensationError(
                f"saga {self.id!r}: {record.compensation!r} needs {', '.join(map(repr, missing))}, which nobody has "
                f"given: saga.bind({missing[0]}=...), or compensate_all({missing[0]}=...); nothing is undone"
            )
        return method, arguments

    def _enter(self, status: SagaStatus) -> None:
        if status not in TRANSITIONS[self.status]:
            message = f"saga {self.id!r} is {self.status}, and cannot become {status}"
            raise InvalidTransitionError(message, current=self.status, target=status)
        self.status = status

    def _end(self, status: SagaStatus) -> bool:
        """Enter a terminal status; False for the one it is in already."""
        if self.status is status:
            return False
        self._enter(status)
        self._timeout = self.timeout_at = None
        return True


def described(error: BaseException) -> str:
    """Return an error in one line."""
    return f"{type(error).__name__}: {error}"
