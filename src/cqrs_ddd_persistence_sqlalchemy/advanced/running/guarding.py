"""Work under a lease: it goes on while the lease is renewed, and not a moment longer."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from datetime import timedelta


class LeaseClock:
    """How long a lease still holds, by this process's monotonic clock: a little shorter than by the database's.

    Args:
        lease: its length.
        begun: a moment before the statement that began it was sent.
    """

    def __init__(self, lease: timedelta, begun: float) -> None:
        self.seconds = lease.total_seconds()
        self._begun = begun

    def begin_again(self, begun: float) -> None:
        """Note that the lease was renewed by a statement sent after `begun`."""
        self._begun = begun

    @property
    def seconds_left(self) -> float:
        """Seconds until it ends, 0.0 when it has."""
        return max(0.0, self._begun + self.seconds - monotonic())


async def run_while_renewed(work: Coroutine[None, None, None], renewal: Coroutine[None, None, None]) -> bool:
    """Run some work beside the renewal of its lease, and cancel it when the renewal returns before.

    Whatever one of them raises is raised here, and the other one is cancelled.

    Returns:
        Whether the work has come to its end.

    Raises:
        RuntimeError: the work was cancelled from inside, by itself.
    """
    working, renewing = asyncio.create_task(work), asyncio.create_task(renewal)
    try:
        await asyncio.wait({working, renewing}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        has_ended = working.done()
        working.cancel()
        renewing.cancel()
        await asyncio.wait({working, renewing})
    if not renewing.cancelled():
        renewing.result()
    if not has_ended:
        return False
    if working.cancelled():
        raise RuntimeError("the work was cancelled from inside")
    working.result()
    return True
