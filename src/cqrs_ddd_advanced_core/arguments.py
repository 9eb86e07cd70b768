"""Finding what a method is to be called with, by the names of its parameters."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_VARIABLE = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


def arguments_of(method: Callable[..., Any], known: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the arguments for a bound method by its parameters' names, and the names that nothing is known for."""
    arguments, missing = {}, []
    for name, parameter in inspect.signature(method).parameters.items():
        if parameter.kind in _VARIABLE:
            continue
        if name in known:
            arguments[name] = known[name]
        elif parameter.default is inspect.Parameter.empty:
            missing.append(name)
    return arguments, missing
