"""@saga_step: a method of a saga that is recorded as it runs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from cqrs_ddd_advanced_core.exceptions import DomainError

if TYPE_CHECKING:
    from cqrs_ddd_advanced_core.sagas.state import SagaState

Params = ParamSpec("Params")
Result = TypeVar("Result")
StepMethod = Callable[Concatenate[Any, Params], Awaitable[Result]]

_DEFINITION = "__saga_step__"


@dataclass(frozen=True)
class StepDefinition:
    """What the decorator says of a step.

    Attributes:
        name: of the method.
        compensation: the method that undoes the step, None for none.
        retries: how often a runner tries again after a failure.
        timeout: how long a runner lets one try take, None for as long as it takes.
    """

    name: str
    compensation: str | None
    retries: int
    timeout: timedelta | None


def saga_step(
    *, compensation: str | None = None, retries: int = 0, timeout: timedelta | None = None
) -> Callable[[StepMethod[Params, Result]], StepMethod[Params, Result]]:
    """Record the runs of an async method of a saga: when it began and ended, and how.

    What the method takes, returns and raises stays as it is. `retries` and `timeout` are for runners: called by itself,
    the method runs once.

    Args:
        compensation: the name of the saga's method that undoes the step once it is completed.
        retries: after the first try.
        timeout: of each try.

    Raises:
        DomainError: the method is not async, or an argument makes no sense.
    """
    if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
        raise DomainError(f"saga_step(retries={retries!r}): give a whole number from 0")
    if timeout is not None and (not isinstance(timeout, timedelta) or timeout <= timedelta(0)):
        raise DomainError(f"saga_step(timeout={timeout!r}): give a timedelta above 0")

    def decorate(method: StepMethod[Params, Result]) -> StepMethod[Params, Result]:
        if not inspect.iscoroutinefunction(method):
            raise DomainError(f"saga step {method!r} is not an async method")
        name = method.__name__
        signature = inspect.signature(method)

        @functools.wraps(method)
        async def recorded(self: SagaState, *args: Params.args, **kwargs: Params.kwargs) -> Result:
            arguments = signature.bind(self, *args, **kwargs).arguments  # a wrong call is no try
            with self.recording(definition, arguments):
                return await method(self, *args, **kwargs)

        definition = StepDefinition(name, compensation, retries, timeout)
        setattr(recorded, _DEFINITION, definition)
        return cast("StepMethod[Params, Result]", recorded)

    return decorate


def steps_of(saga_class: type) -> dict[str, StepDefinition]:
    """Return the steps of a saga class by name, in the order of their definition; those of base classes come first.

    Raises:
        DomainError: a step of a base class is overridden by what is no step.
    """
    bases = reversed(saga_class.__mro__)
    names = dict.fromkeys(name for base in bases for name, value in vars(base).items() if _definition(value))
    found = {}
    for name in names:
        definition = _definition(getattr(saga_class, name))
        if definition is None:
            raise DomainError(
                f"saga {saga_class.__name__}: {name!r} overrides a step and is none: decorate it with @saga_step, too"
            )
        if definition.name == name:  # another name for a step is no further step
            found[name] = definition
    return found


def check_compensation(saga_class: type, step: StepDefinition) -> None:
    """Make sure that what undoes a step can be called.

    Raises:
        DomainError: it is no async method, or is a step itself.
    """
    if step.compensation is None:
        return
    method = getattr(saga_class, step.compensation, None)
    which = f"saga {saga_class.__name__}: step {step.name!r} is undone by {step.compensation!r}, which is"
    if method is None or not callable(method):
        raise DomainError(f"{which} no method of it")
    if not inspect.iscoroutinefunction(method):
        raise DomainError(f"{which} not an async method")
    if _definition(method) is not None:
        raise DomainError(f"{which} a step itself: give the compensation a method of its own")


def _definition(method: object) -> StepDefinition | None:
    definition = getattr(method, _DEFINITION, None) if inspect.isfunction(method) else None
    return definition if isinstance(definition, StepDefinition) else None
