"""The steps of a saga, and the history of their runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from typing import Any, ClassVar

from pydantic import Field, PrivateAttr

from cqrs_ddd_advanced_core.exceptions import InvalidTransitionError
from cqrs_ddd_advanced_core.sagas.decorators import StepDefinition, check_compensation, steps_of
from cqrs_ddd_advanced_core.sagas.lifecycle import SagaLifecycle
from cqrs_ddd_advanced_core.sagas.status import SagaStatus
from cqrs_ddd_advanced_core.sagas.steps import StepRecord, StepStatus


class SagaSteps(SagaLifecycle):
    """Which steps there are and how their runs went; `SagaState`, which undoes them, is the class to derive from."""

    step_history: list[StepRecord] = Field(default_factory=list)

    #: The steps by name, in the order of their definition.
    steps: ClassVar[Mapping[str, StepDefinition]] = {}

    _services: dict[str, Any] = PrivateAttr(default_factory=dict)
    _arguments: dict[str, dict[str, Any]] = PrivateAttr(default_factory=dict)
    _announced: str | None = PrivateAttr(default=None)
    _running: set[str] = PrivateAttr(default_factory=set)

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Find the steps, and make sure that what undoes them is there."""
        cls.steps = steps_of(cls)
        for step in cls.steps.values():
            check_compensation(cls, step)

    def bind(self, **services: Any) -> None:
        """Say which services steps and compensations get, by the names of their parameters."""
        self._services |= services

    @property
    def services(self) -> Mapping[str, Any]:
        """What is bound."""
        return self._services

    def next_step(self) -> StepDefinition | None:
        """Return the first step, in the order of their definition, that is not completed; None when all are."""
        completed = {record.name for record in self.step_history if record.status is StepStatus.COMPLETED}
        return next((step for name, step in self.steps.items() if name not in completed), None)

    def unfinished_step(self) -> StepDefinition | None:
        """Return the step that was begun, that nobody saw end, and that something undoes; None when there is none.

        One that has failed since counts as long as it has retries left: the run that nobody saw end may have succeeded.
        """
        for step in self.steps.values():
            records = [each for each in self.step_history if each.name == step.name]
            since = list(takewhile(lambda each: not each.has_been_completed, reversed(records)))
            if step.compensation is None or not since:
                continue
            is_begun = since[0].status is StepStatus.RUNNING
            if is_begun or (any(each.attempts > 1 for each in since) and self.failures_of(step.name) <= step.retries):
                return step
        return None

    def failures_of(self, name: str) -> int:
        """Return how often a step has failed since it was completed last."""
        failures = 0
        for record in self.step_history:
            if record.name == name:
                failures = failures + 1 if record.status is StepStatus.FAILED else 0
        return failures

    def begin_step(self, definition: StepDefinition) -> StepRecord:
        """Record that a step begins, or is tried again after a run that nobody saw end.

        The method itself does so when it is called. Who wants it recorded before, in a database say, calls this first.
        In a saga that is COMPENSATING a step that was begun may be brought to its end, to be undone then.

        Raises:
            InvalidTransitionError: the saga does not run.
        """
        if self.status is SagaStatus.PENDING:
            self._enter(SagaStatus.RUNNING)
        ends = self.status is SagaStatus.COMPENSATING and self.unfinished_step() == definition
        if self.status is not SagaStatus.RUNNING and not ends:
            raise InvalidTransitionError(
                f"saga {self.id!r} is {self.status}: step {definition.name!r} runs only in a saga that is RUNNING",
                current=self.status,
                target=SagaStatus.RUNNING,
            )
        self._announced = definition.name
        begun = self._begun(definition.name)
        if begun is not None:
            begun.attempts += 1
            return begun
        record = StepRecord(name=definition.name, compensation=definition.compensation)
        self.step_history.append(record)
        return record

    @contextmanager
    def recording(self, definition: StepDefinition, arguments: Mapping[str, Any]) -> Iterator[None]:
        """Record a run of a step; what it raises passes."""
        if definition.name in self._running:  # a step that calls the one that it overrides is one run
            yield
            return
        announced = self._begun(definition.name) if self._announced == definition.name else None
        record = announced or self.begin_step(definition)
        self._announced = None
        self._arguments[definition.name] = {name: value for name, value in arguments.items() if name != "self"}
        self._running.add(definition.name)
        self._is_settled = self.status is SagaStatus.COMPENSATING
        before = self.reason, self.timeout_at, self._timeout
        try:
            yield
        except BaseException as error:
            if self.status is SagaStatus.SUSPENDED:  # a try that has failed suspends nothing
                self.status = SagaStatus.RUNNING
                self.reason, self.timeout_at, self._timeout = before
            # A task that is cancelled leaves its step begun: it may be tried again with the same key.
            if isinstance(error, Exception):
                record.end(StepStatus.FAILED, error)
            raise
        finally:
            self._is_settled = False
            self._running.discard(definition.name)
        record.end(StepStatus.COMPLETED)

    def fail_step(self, name: str, error: BaseException) -> None:
        """Record that a step was given up by whoever ran it, such as one that took too long."""
        record = self._begun(name)
        if record is not None:
            record.end(StepStatus.FAILED, error)

    def _begun(self, name: str) -> StepRecord | None:
        """Return the last record of a step, if nobody has seen it end."""
        record = next((each for each in reversed(self.step_history) if each.name == name), None)
        return record if record is not None and record.status is StepStatus.RUNNING else None
