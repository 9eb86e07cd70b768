"""Finding what a method is to be called with, by the names of its parameters."""

from __future__ import annotations

import inspect
from functools import lru_cache
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_VARIABLE = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


def arguments_of(method: Callable[..., Any], known: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the arguments for a bound method by its parameters' names, and the names that nothing is known for."""
    arguments, missing = {}, []
    for parameter in _parameters(method):
        name = parameter.name
        if parameter.kind in _VARIABLE:
            continue
        if name in known:
            arguments[name] = known[name]
        elif parameter.default is inspect.Parameter.empty:
            missing.append(name)
    return arguments, missing


def _parameters(method: Callable[..., Any]) -> tuple[inspect.Parameter, ...]:
    if isinstance(method, MethodType) and isinstance(method.__func__, FunctionType):
        of_function = _kept_parameters(method.__func__)
        bound = 0 if of_function and of_function[0].kind in _VARIABLE else 1
        return of_function[bound:]
    return tuple(inspect.signature(method).parameters.values())


@lru_cache(maxsize=256)
def _kept_parameters(function: FunctionType) -> tuple[inspect.Parameter, ...]:
    """Return a function's parameters; to find them out takes longer than many a job."""
    return tuple(inspect.signature(function).parameters.values())
