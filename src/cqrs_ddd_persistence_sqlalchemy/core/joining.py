"""What a unit of work is to the stores that join it, beside what it is to an application."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from cqrs_ddd_persistence_sqlalchemy.core.bare import BareTransaction
from cqrs_ddd_persistence_sqlalchemy.core.transactions import connection_of, forget_commit, has_failed, is_spoilt
from cqrs_ddd_persistence_sqlalchemy.exceptions import UnitOfWorkError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

    from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError

TWO_TASKS = "two tasks use one open unit of work at once: give each task its own, or await them one by one"
SessionFactory: TypeAlias = "Callable[[], AsyncSession]"


def check_session_factory(of: str, factory: object) -> None:
    """Refuse what makes no sessions.

    Raises:
        UnitOfWorkError: naming whose it is.
    """
    if factory is not None and not callable(factory):
        raise UnitOfWorkError(
            f"{of}: session_factory is {type(factory).__name__}: give a factory, as async_sessionmaker(engine) is"
        )


class JoinedByStores:
    """Lets one task at a time in, and notes what operations leave for the end of the block.

    Public for the stores and their scope (`core/scope.py`); applications need none of it.
    """

    def __init__(self, session_factory: SessionFactory | None, given_session: AsyncSession | None) -> None:
        self.session_factory = session_factory
        self.given_session = given_session
        self._session: AsyncSession | None = None
        self._bare: BareTransaction | None = None
        self._is_beginning = False
        self._conflict: OptimisticConcurrencyError | None = None
        self._has_written = False
        self._before_commit: list[Callable[[], Awaitable[None]]] = []
        self._user: asyncio.Task[Any] | None = None
        self._unused = asyncio.Event()
        self._unused.set()
        self._closing = False

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """True inside the `async with` block."""

    @property
    @abstractmethod
    def session(self) -> AsyncSession:
        """The session of the open unit of work."""

    @property
    def _is_used_by_another_task(self) -> bool:
        return self._user is not None and self._user is not asyncio.current_task()

    @property
    def given_is_in_transaction(self) -> bool:
        """True where the caller's session is in a transaction, which stays the caller's to end."""
        return self.given_session is not None and self.given_session.in_transaction()

    async def connection(self) -> AsyncConnection:
        """Return the connection of the open unit of work's transaction, which begins now unless it has."""
        if self.is_open and self._session is None and self._bare is None and self.given_session is None:
            self._is_beginning = True
            try:
                self._bare = await BareTransaction.begin(self.session_factory)
            finally:
                self._is_beginning = False
        return await connection_of(self.session) if self._bare is None else self._bare.connection

    @property
    def is_fresh(self) -> bool:
        """Whether there is nothing in its transaction that would be lost with it."""
        session = self._session or self.given_session
        if session is not None:
            return not (session.in_transaction() or session.sync_session.identity_map)
        return self._bare is None

    async def begin_again(self) -> None:
        """Roll the transaction back, and nothing else."""
        session = self._session or self.given_session
        try:
            if session is not None:
                await session.rollback()
        finally:
            await self._end_bare()

    @property
    def has_failed(self) -> bool:
        """Whether the database has refused a statement, so that the transaction can only be rolled back."""
        if self._session is not None:
            return has_failed(self._session)
        return self._bare is not None and is_spoilt(self._bare.connection)

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
            raise UnitOfWorkError(TWO_TASKS)
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

    async def _commit_transaction(self) -> None:
        if self._session is not None:
            forget_commit(self._session)
            await self._session.commit()
        elif self._bare is not None:
            await self._bare.commit()

    async def _end_bare(self) -> None:
        bare, self._bare = self._bare, None
        if bare is not None:
            await bare.end()
