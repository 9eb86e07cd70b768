"""What a unit of work is to the stores that join it, beside what it is to an application."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cqrs_ddd_persistence_sqlalchemy.exceptions import UnitOfWorkError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError


class JoinedByStores:
    """Lets one task at a time in, and notes what operations leave for the end of the block.

    Public for the stores and their scope (`core/scope.py`); applications need none of it.
    """

    def __init__(self) -> None:
        self._conflict: OptimisticConcurrencyError | None = None
        self._has_written = False
        self._before_commit: list[Callable[[], Awaitable[None]]] = []
        self._user: asyncio.Task[Any] | None = None
        self._unused = asyncio.Event()
        self._unused.set()
        self._closing = False

    @contextmanager
    def used_by_this_task(self) -> Iterator[None]:
        """Refuse what would interleave two tasks' statements in one transaction.

        Raises:
            UnitOfWorkError: while another task's operation is under way.
        """
        outer = self.begin_use()
        try:
            yield
        finally:
            self.end_use(outer)

    def begin_use(self) -> asyncio.Task[Any] | None:
        """Begin what `used_by_this_task` does; returns what `end_use` needs."""
        task = asyncio.current_task()
        other = self._user is not task and (self._user is not None or self._closing)
        if other:
            raise UnitOfWorkError(
                "two tasks use one open unit of work at once: give each task its own, or await them one by one"
            )
        outer, self._user = self._user, task
        self._unused.clear()
        return outer

    def end_use(self, outer: asyncio.Task[Any] | None) -> None:
        """End it."""
        self._user = outer
        if outer is None:
            self._unused.set()

    @contextmanager
    def calling_before_commit(self, callback: Callable[[], Awaitable[None]]) -> Iterator[None]:
        """Call back before each commit inside the block."""
        self._before_commit.append(callback)
        try:
            yield
        finally:
            self._before_commit.remove(callback)

    def note_write(self) -> None:
        """Remember that there is something to lose."""
        self._has_written = True

    def note_conflict(self, conflict: OptimisticConcurrencyError) -> None:
        """Remember a conflict: unless the caller commits or rolls back knowingly, the block ends in a rollback."""
        self._conflict = conflict

    async def _other_task_has_straggled(self) -> bool:
        """Let an operation that another task has under way end: a rollback under it would corrupt the connection."""
        if self._user is None or self._user is asyncio.current_task():
            return False
        self._closing = True
        cancelled: asyncio.CancelledError | None = None
        while self._user is not None:
            try:
                await self._unused.wait()
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
        return True
