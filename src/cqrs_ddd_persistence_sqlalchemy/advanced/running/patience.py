"""What runners wait for, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING

from cqrs_ddd_persistence_sqlalchemy.core.dialect import DIALECTS
from cqrs_ddd_persistence_sqlalchemy.exceptions import CollectionNotFoundError, SchemaOutOfDateError

if TYPE_CHECKING:
    import logging
    from collections.abc import Awaitable, Callable, Collection
    from datetime import timedelta

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 10.0


class Outage:
    """Trouble that passes, such as a database that restarts: each failure in a row makes the next pause twice as long.

    Attributes:
        pause_seconds: before the next try; 0.0 where the last one has succeeded.
    """

    def __init__(self) -> None:
        self.pause_seconds = 0.0

    def failed(self) -> float:
        """Note a failure, and return the pause."""
        self.pause_seconds = min(_LONGEST_PAUSE_SECONDS, max(_FIRST_PAUSE_SECONDS, self.pause_seconds * 2))
        return self.pause_seconds

    def succeeded(self) -> None:
        """Note a success."""
        self.pause_seconds = 0.0

    async def attempt(self, look: Callable[[], Awaitable[int]], what: str, logger: logging.Logger) -> int:
        """Look for work, and return how much was found: none while the trouble lasts, which is logged.

        Args:
            look: whatever else it raises passes.
            what: is looked for, for the log.
            logger: of whoever looks.
        """
        try:
            found = await look()
        except Exception as error:
            if not is_passing(error):
                raise
            logger.warning("%s: trying again in %g s: %s", what, self.failed(), error)
            return 0
        self.succeeded()
        return found


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


async def wait_until(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, for so long at most."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


async def wait_for_one(tasks: Collection[asyncio.Task[None]], stopped: asyncio.Event) -> None:
    """Wait until one of some tasks has ended, or the event."""
    stopping = asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
