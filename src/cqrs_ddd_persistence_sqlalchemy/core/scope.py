"""Whose transaction is it? The one place that answers for every operation of every store."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeAlias, TypeVar, cast

from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_persistence_sqlalchemy.core.alone import engine_without_sessions
from cqrs_ddd_persistence_sqlalchemy.core.callbacks import run_callbacks
from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_named, dialect_of
from cqrs_ddd_persistence_sqlalchemy.core.joining import check_session_factory
from cqrs_ddd_persistence_sqlalchemy.core.opening import (
    JoinedOperation,
    OperationWithoutSession,
    in_given_session,
    in_session,
)
from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.exceptions import TableChangedError, UnitOfWorkError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy.ext.asyncio import AsyncConnection

    from cqrs_ddd_persistence_sqlalchemy.core.dialect import DatabaseDialect
    from cqrs_ddd_persistence_sqlalchemy.core.joining import SessionFactory

Params = ParamSpec("Params")
Result = TypeVar("Result")
Operation: TypeAlias = "Callable[Concatenate[Any, Params], Coroutine[Any, Any, Result]]"

# One migration costs one attempt; the next one of the same deploy may follow at once.
_ATTEMPTS = 5


def repeated(operation: Operation[Params, Result]) -> Operation[Params, Result]:
    """Try a store's operation again where a migration has changed a table under it.

    The transaction that met the change is lost. So this is for operations that began it; a unit of work in which
    something was done before is the caller's to repeat.
    """

    @wraps(operation)
    async def attempts(store: Any, *args: Params.args, **kwargs: Params.kwargs) -> Result:
        scope: SessionScope = store._scope  # noqa: SLF001  (every store has one)
        uow: Any = kwargs.get("uow")
        if not scope.begins(uow):
            return await operation(store, *args, **kwargs)
        for _ in range(_ATTEMPTS - 1):
            try:
                return await operation(store, *args, **kwargs)
            except TableChangedError:
                await scope.begin_again(uow)
        return await operation(store, *args, **kwargs)

    return cast("Operation[Params, Result]", attempts)


class SessionScope:
    """Gives an operation the connection to work on, inside the transaction it belongs to.

    With an open unit of work, given or made by the factory, that is its transaction and the caller commits. Otherwise
    the operation has a transaction of its own, committed before it returns.

    Args:
        owner: the store's name, for errors.
        session_factory: makes the sessions of transactions of its own.
        uow_factory: called for each operation; may return an open unit of work (joined) or an idle one.
    """

    def __init__(
        self,
        owner: str,
        *,
        session_factory: SessionFactory | None = None,
        uow_factory: Callable[[], SQLAlchemyUnitOfWork] | None = None,
    ) -> None:
        check_session_factory(owner, session_factory)
        if isinstance(uow_factory, async_sessionmaker):
            raise UnitOfWorkError(
                f"{owner}: uow_factory makes sessions, not units of work: give it as session_factory=, or give "
                "lambda: SQLAlchemyUnitOfWork(sessions)"
            )
        self._owner = owner
        self._session_factory = session_factory
        self._uow_factory = uow_factory

    def write(
        self, uow: SQLAlchemyUnitOfWork | None, *, single: bool | Callable[[DatabaseDialect], bool] = False
    ) -> AbstractAsyncContextManager[AsyncConnection]:
        """Open the scope of an operation that writes.

        With `single`, the operation needs no transaction of its own around it: each of its statements that writes may
        be committed by itself. A function tells of the database whether that is so.
        """
        unit = self._unit(uow)
        if unit is not None and unit.is_open:
            return JoinedOperation(unit, write=True)
        return self._own(unit, write=True, single=single)

    def read(
        self, uow: SQLAlchemyUnitOfWork | None, *, transaction: bool = False
    ) -> AbstractAsyncContextManager[AsyncConnection]:
        """Open the scope of an operation that only reads; on its own it takes no write lock.

        Its statements may see what others commit between them, unless it asks for a transaction and a level of
        isolation that keeps that out; a cursor needs one, too.
        """
        unit = self._unit(uow)
        if unit is not None and unit.is_open:
            return JoinedOperation(unit, write=False)
        return self._own(unit, write=False, single=not transaction)

    async def notify_after_commit(self, channel: str, uow: SQLAlchemyUnitOfWork | None) -> None:
        """Wake those who listen once the operation's transaction is committed, where the database can.

        Best effort: it is no part of that transaction, and a failure is logged. In a transaction of a caller's session
        it is left out, as nobody says when that commits.
        """
        unit = self._unit(uow)
        factory = (unit.session_factory if unit else None) or self._session_factory

        async def notify() -> None:
            if factory is None:
                return
            async with factory() as session:
                if dialect_named(session.get_bind().dialect.name).has_notifications:
                    connection = await session.connection()
                    await dialect_of(connection).notify(connection, channel)
                    await session.commit()

        if unit is not None and unit.is_open:
            unit.on_commit(notify)
        elif not self.joins(uow):
            await run_callbacks([notify])

    def joins(self, uow: SQLAlchemyUnitOfWork | None) -> bool:
        """Tell whether the operation would join a transaction that somebody else commits."""
        unit = self._unit(uow)
        return unit is not None and (unit.is_open or unit.given_is_in_transaction)

    def begins(self, uow: SQLAlchemyUnitOfWork | None) -> bool:
        """Tell whether the operation would begin its transaction, in a session that has nothing to lose."""
        unit = self._unit(uow)
        return unit is None or unit.is_fresh

    async def begin_again(self, uow: SQLAlchemyUnitOfWork | None) -> None:
        """Roll back what the operation has begun."""
        unit = self._unit(uow)
        if unit is not None:
            await unit.begin_again()

    def _unit(self, uow: SQLAlchemyUnitOfWork | None) -> SQLAlchemyUnitOfWork | None:
        unit = uow if uow is not None else self._uow_factory() if self._uow_factory else None
        if unit is not None and not isinstance(unit, SQLAlchemyUnitOfWork):
            where = "uow=" if uow is not None else "the uow_factory's result"
            raise UnitOfWorkError(f"{where} must be a SQLAlchemyUnitOfWork, not {type(unit).__name__}")
        return unit

    def _own(
        self, unit: SQLAlchemyUnitOfWork | None, *, write: bool, single: bool | Callable[[DatabaseDialect], bool]
    ) -> AbstractAsyncContextManager[AsyncConnection]:
        if unit is not None and unit.given_session is not None:
            return in_given_session(unit.given_session, write=write)
        factory = (unit.session_factory if unit else None) or self._session_factory
        engine = engine_without_sessions(factory, write=write, single=single is True)
        if engine is not None:
            by_themselves = single if isinstance(single, bool) else single(dialect_of(engine))
            return OperationWithoutSession(engine, write=write, single=by_themselves)
        if factory is None:
            raise UnitOfWorkError(
                f"{self._owner} has no transaction to work in: pass uow=, or give it a session_factory or uow_factory"
            )
        return in_session(factory, write=write)
