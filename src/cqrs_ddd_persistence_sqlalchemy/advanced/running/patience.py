"""What runners wait for, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING

from cqrs_ddd_persistence_sqlalchemy.core.dialect import DIALECTS
from cqrs_ddd_persistence_sqlalchemy.exceptions import CollectionNotFoundError, SchemaOutOfDateError

if TYPE_CHECKING:
    from datetime import timedelta


def is_passing(error: BaseException, *, of_handler: bool = False) -> bool:
    """Tell whether the next attempt may succeed though nothing about the work has changed.

    Args:
        error: that was raised.
        of_handler: whether a handler has raised it, to whom more counts as a failure.
    """
    if isinstance(error, SchemaOutOfDateError | CollectionNotFoundError):
        return True
    return any(dialect.passes(error, of_handler=of_handler) for dialect in DIALECTS.values())


def backoff_seconds(failures: int, backoff: timedelta, longest: timedelta) -> float:
    """Return how long to wait after so many failures: doubled each time, with jitter of up to a fifth less."""
    seconds = min(longest.total_seconds(), backoff.total_seconds() * 2.0 ** min(failures - 1, 60))
    return seconds * random.uniform(0.8, 1.0)  # noqa: S311  (no secret)


async def first(event: asyncio.Event, seconds: float) -> None:
    """Wait so long, or until the event."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
