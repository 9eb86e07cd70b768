"""Cancellations: those of a task, and those that merely pass through it."""

import asyncio


def is_cancelled() -> bool:
    """Tell whether somebody has cancelled this task, rather than something that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
