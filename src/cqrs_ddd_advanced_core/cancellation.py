"""Cancellations: those of a task, and those that merely pass through it."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

Result = TypeVar("Result")


def is_cancelled() -> bool:
    """Tell whether somebody has cancelled this task, rather than something that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def in_its_own_task(work: Awaitable[Result]) -> Result:
    """Run somebody else's work, and return or raise what it does.

    What it does to its task is not done to this one, for which `is_cancelled` tells the truth afterwards: some work
    cancels itself, and a TaskGroup in which something has failed leaves its task cancelled on Python 3.11. Who cancels
    this task cancels the work, and waits for its end.
    """
    return await asyncio.ensure_future(work)
