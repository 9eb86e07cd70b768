"""Work under a lease: it goes on while the lease is renewed, and not a moment longer."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING, Any

from cqrs_ddd_persistence_sqlalchemy.advanced.running.patience import is_passing
from cqrs_ddd_persistence_sqlalchemy.exceptions import LeaseLostError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable
    from datetime import timedelta

    Write = Callable[[], Awaitable[object]]

logger = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.1


class Guard:
    """Keeps a lease while some work is done under it.

    How long the lease still holds is told by this process's monotonic clock, begun before each statement: it ends a
    little earlier than the lease in the database. Writes and renewals take turns, as a write may change what a renewal
    goes by.

    Args:
        kind: of what is leased, such as "saga".
        name: which one.
        lease: how long it holds without renewal.
        claimed_at: a moment of the monotonic clock before the statement that began it.
    """

    def __init__(self, kind: str, name: str, lease: timedelta, claimed_at: float) -> None:
        self._kind = kind
        self._name = name
        self._lease_seconds = lease.total_seconds()
        self._begun = claimed_at
        self._writing = asyncio.Lock()
        self._is_let_go = self._is_left = False

    async def run(self, work: Coroutine[None, None, None], renew: Write, *, every_seconds: float | None = None) -> None:
        """Run some work, renew its lease beside it, and cancel the work when the lease is lost.

        The work runs in the task that calls, as with `asyncio.timeout`, and has ended when this returns. So somebody
        else's code in it needs a task of its own (`in_its_own_task`).

        Args:
            work: whatever it raises passes, unless the lease is lost or the task cancelled.
            renew: raises LeaseLostError when somebody else has the lease.
            every_seconds: between renewals; a third of the lease unless given.

        Raises:
            LeaseLostError: somebody else has taken it, or it could not be renewed in time.
            RuntimeError: the work was cancelled from inside, by itself.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (a coroutine is run by one)
        cancelled_before = task.cancelling()
        every = every_seconds or self._lease_seconds / 3
        renewals = _Renewals(task, lambda: self._keep_renewing(renew, every), min(every, self._seconds_left))
        error: BaseException | None = None
        try:
            await work
        except GeneratorExit:  # it is thrown away together with this
            renewals.stop()
            raise
        except BaseException as raised:  # noqa: BLE001  (it is raised below)
            error = raised
        lost = await renewals.end()
        if task.cancelling() > cancelled_before:
            raise error if isinstance(error, asyncio.CancelledError) else asyncio.CancelledError() from error
        if lost is not None:
            raise lost from error
        if isinstance(error, asyncio.CancelledError):
            raise RuntimeError(f"{self._kind} {self._name!r}: the work was cancelled from inside") from error
        if error is not None:
            raise error

    async def write(self, write: Write, *, last: bool = False) -> None:
        """Write under the lease; what the database could not take just now is tried again as long as the lease holds.

        Args:
            write: whatever it raises passes.
            last: whether it gives the lease up, so that nothing may renew it any more.
        """
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                await self._write_once(write, last=last)
            except Exception as error:
                if not is_passing(error) or self._seconds_left <= pause:
                    raise
                logger.warning("%s %r: trying again in %g s: %s", self._kind, self._name, pause, error)
            else:
                return
            await asyncio.sleep(pause)
            pause *= 2

    def leave(self) -> None:
        """Let the lease end, though the work goes on: it does not stop when it is cancelled."""
        self._is_left = True

    @property
    def _seconds_left(self) -> float:
        return max(0.0, self._begun + self._lease_seconds - monotonic())

    async def _write_once(self, write: Write, *, last: bool = False) -> None:
        async with self._writing:
            if self._is_let_go:
                return
            begun = monotonic()
            await write()
            self._begun = begun
            self._is_let_go = last

    async def _keep_renewing(self, renew: Write, every_seconds: float) -> None:
        """Renew at once, and again and again, until the lease is lost or left.

        Raises:
            LeaseLostError: it is lost.
            Exception: what `renew` has raised that will not pass.
        """
        while not self._is_left:
            try:
                async with asyncio.timeout(self._seconds_left):
                    await self._write_once(renew)
            except TimeoutError:
                raise LeaseLostError(self._kind, (self._name,)) from None
            except Exception as error:
                if not is_passing(error):
                    raise  # LeaseLostError, too
                logger.warning("%s %r: the lease could not be renewed: %s", self._kind, self._name, error)
                if self._seconds_left <= 0:
                    raise LeaseLostError(self._kind, (self._name,)) from error
            await asyncio.sleep(min(every_seconds, self._seconds_left))


class _Renewals:
    """Renews beside a task, from some seconds on, and cancels it where the lease is lost.

    Args:
        task: whose work goes on as long as the lease holds.
        renew: does so until it is lost.
        after_seconds: most work ends before its lease is to be renewed, and a timer is cheaper than a task.
    """

    def __init__(
        self, task: asyncio.Task[Any], renew: Callable[[], Coroutine[None, None, None]], after_seconds: float
    ) -> None:
        self._task = task
        self._renew = renew
        self._lost: BaseException | None = None
        self._is_over = False
        self._renewing: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(after_seconds, self._begin)

    def stop(self) -> None:
        """Renew no more, without waiting for what is under way."""
        self._is_over = True
        self._timer.cancel()
        if self._renewing is not None:
            self._renewing.cancel()

    async def end(self) -> BaseException | None:
        """Renew no more; return what has ended the lease, and therefore cancelled the task, which is taken back."""
        self.stop()
        if self._lost is not None:
            self._task.uncancel()
        if self._renewing is not None:
            await cancel_and_wait([self._renewing])
        return self._lost

    def _begin(self) -> None:
        self._renewing = asyncio.create_task(self._renew())
        self._renewing.add_done_callback(self._lose)

    def _lose(self, renewing: asyncio.Task[None]) -> None:
        error = None if renewing.cancelled() else renewing.exception()
        if error is not None and not self._is_over and self._task.cancel():
            self._lost = error


async def cancel_and_wait(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait for their ends."""
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
