"""What runs a job: its own method, with services by name, or a handler."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from cqrs_ddd_advanced_core.arguments import arguments_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from cqrs_ddd_advanced_core.background_jobs.entity import BaseBackgroundJob


def runnable(
    job_cls: type[BaseBackgroundJob],
    handler: Callable[[Any], Awaitable[Any]] | None,
    services: Mapping[str, Any],
) -> Callable[[Any], Awaitable[Any]]:
    """Return what runs a job.

    Raises:
        ValueError: it is not async, or a job's own method is missing, or a service that it needs.
    """
    if handler is not None:
        if inspect.isfunction(handler) and not inspect.iscoroutinefunction(handler):
            raise ValueError(f"the handler {handler.__qualname__} is not an async function")
        return handler
    execute = getattr(job_cls, "execute", None)
    if not inspect.iscoroutinefunction(execute):
        raise ValueError(f"{job_cls.__name__} has no async method execute(): write one, or give the worker a handler")
    missing = arguments_of(execute, {"self": None, **services})[1]
    if missing:
        needed = ", ".join(map(repr, missing))
        raise ValueError(
            f"{job_cls.__name__}.execute() needs {needed}: JobWorker(..., services={{{missing[0]!r}: ...}})"
        )

    async def run(job: Any) -> Any:
        return await job.execute(**arguments_of(job.execute, services)[0])

    return run
