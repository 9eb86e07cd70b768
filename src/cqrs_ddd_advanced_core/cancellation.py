"""Cancellations: those of a task, and those that merely pass through it."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

Result = TypeVar("Result")


def is_cancelled(*, before: int = 0) -> bool:
    """Tell whether somebody has cancelled this task, rather than something that it awaits.

    Args:
        before: how often that had happened before, as `cancellations` tells.
    """
    return cancellations() > before


def cancellations() -> int:
    """Return how often this task was cancelled."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


async def in_its_own_task(work: Awaitable[Result]) -> Result:
    """Run somebody else's work, and return or raise what it does.

    What it does to its task is not done to this one, for which `is_cancelled` tells the truth afterwards: some work
    cancels itself, and a TaskGroup in which something has failed leaves its task cancelled on Python 3.11. Who cancels
    this task cancels the work, and waits for its end.

    Raises:
        RuntimeError: the work has raised what is no Exception, such as GeneratorExit, which would close this task.
    """
    return await asyncio.ensure_future(_with_exceptions_only(work))


async def _with_exceptions_only(work: Awaitable[Result]) -> Result:
    try:
        return await work
    except (Exception, asyncio.CancelledError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise RuntimeError(f"{type(error).__name__} was raised: {error}") from error
