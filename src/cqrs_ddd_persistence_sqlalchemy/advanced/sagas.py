"""The saga repository: sagas of one class, and those that somebody has to look after."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from cqrs_ddd_advanced_core.ports import ISagaRepository
from cqrs_ddd_advanced_core.sagas.state import SagaState
from cqrs_ddd_advanced_core.sagas.status import SagaStatus
from cqrs_ddd_persistence_sqlalchemy.advanced.models import SagaStateModel
from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_of
from cqrs_ddd_persistence_sqlalchemy.core.mapping import VERSION
from cqrs_ddd_persistence_sqlalchemy.core.repository import UPDATED_AT, SQLAlchemyRepository
from cqrs_ddd_persistence_sqlalchemy.core.scope import repeated
from cqrs_ddd_persistence_sqlalchemy.core.undoing import on_rollback
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_count

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Mapping
    from datetime import timedelta

    from sqlalchemy.ext.asyncio import AsyncConnection

    from cqrs_ddd_persistence_sqlalchemy.core.uow import SessionFactory, SQLAlchemyUnitOfWork

Saga = TypeVar("Saga", bound=SagaState)

_AT_WORK = (SagaStatus.RUNNING, SagaStatus.COMPENSATING)


class SQLAlchemySagaRepository(SQLAlchemyRepository[Saga, str], ISagaRepository[Saga]):
    """Stores sagas of one class in the table `sagas`, which classes share without meeting each other.

    Times are the database's: when a saga was updated, when a suspended one expires, until when a claim holds. A claim
    counts the saga's version up, so whoever had loaded it before can save it no more.

    Args:
        saga_cls: of the sagas; its name is stored with them.
        uow_factory: returns the unit of work to use where none is given.
        stalled_after_seconds: how long a saga at work may go without being saved.
        services: bound to each saga that is loaded, for its compensations.
        session_factory: for operations without a unit of work, in place of a factory.
        schema: the database schema of the table; the connection's default when omitted.
    """

    def __init__(
        self,
        saga_cls: type[Saga] = SagaState,  # type: ignore[assignment]  # the default of a generic parameter
        uow_factory: Callable[[], SQLAlchemyUnitOfWork] | None = None,
        *,
        stalled_after_seconds: float = 300,
        services: Mapping[str, Any] | None = None,
        session_factory: SessionFactory | None = None,
        schema: str | None = None,
    ) -> None:
        super().__init__(saga_cls, SagaStateModel, uow_factory, session_factory=session_factory, schema=schema)
        if isinstance(stalled_after_seconds, bool) or not 0 <= stalled_after_seconds < float("inf"):
            raise ValueError(f"stalled_after_seconds is {stalled_after_seconds!r}: give seconds from 0")
        self._stalled_after_seconds = float(stalled_after_seconds)
        self._services = dict(services or {})
        self._type = saga_cls.__name__

    def to_model(self, entity: Saga) -> Any:
        """Return the saga's state, without the history, and the history in a column of its own."""
        return SagaStateModel(
            id=entity.id,
            saga_type=self._type,
            correlation_id=entity.correlation_id,
            status=entity.status,
            timeout_at=entity.timeout_at,
            state=entity.model_dump(mode="json", exclude={"step_history"}),
            events=[record.model_dump(mode="json") for record in entity.step_history],
            lease_until=None,  # whoever saves a saga has it; a runner claims it again
        )

    def from_model(self, model: Any) -> Saga:
        """Return the saga with its history; columns take precedence over what the state repeats of them."""
        values = {
            **(model.state or {}),
            "id": model.id,
            "correlation_id": model.correlation_id,
            "status": model.status.value,
            "timeout_at": model.timeout_at,
            "step_history": model.events or [],
        }
        saga = self._entity_cls.model_validate(values, strict=False)
        saga.bind(**self._services)
        return saga

    @repeated
    async def find_by_correlation_id(
        self, correlation_id: str, saga_type: str | None = None, *, uow: SQLAlchemyUnitOfWork | None = None
    ) -> Saga | None:
        """Return the saga with this correlation id, or None; `saga_type` may only name this repository's class."""
        if saga_type is not None and saga_type != self._type:
            raise ValueError(f"this repository has sagas of type {self._type!r}, not {saga_type!r}")
        found = await self._select(self._rows.columns["correlation_id"] == correlation_id, limit=1, uow=uow)
        return found[0] if found else None

    @repeated
    async def find_stalled_sagas(
        self, limit: int = 100, *, uow: SQLAlchemyUnitOfWork | None = None
    ) -> builtins.list[Saga]:
        """Return sagas that are at work and were not saved for `stalled_after_seconds`, nor are claimed."""
        async with self._scope.read(uow) as connection:
            stalled = self._stalled(connection)
        return await self._select(*stalled, order=(self._rows.columns[UPDATED_AT],), limit=limit, uow=uow)

    @repeated
    async def find_suspended_sagas(
        self, limit: int = 100, *, uow: SQLAlchemyUnitOfWork | None = None
    ) -> builtins.list[Saga]:
        """Return sagas that wait for something, oldest first."""
        return await self._select(self._rows.columns["status"] == SagaStatus.SUSPENDED, limit=limit, uow=uow)

    @repeated
    async def find_expired_suspended_sagas(
        self, limit: int = 100, *, uow: SQLAlchemyUnitOfWork | None = None
    ) -> builtins.list[Saga]:
        """Return sagas whose waiting has passed its deadline, those that are overdue longest first."""
        async with self._scope.read(uow) as connection:
            expired = self._expired(connection)
        return await self._select(*expired, order=(self._rows.columns["timeout_at"],), limit=limit, uow=uow)

    @repeated
    async def claim_stalled_sagas(
        self, limit: int = 1, *, lease: timedelta, uow: SQLAlchemyUnitOfWork | None = None
    ) -> builtins.list[Saga]:
        """Take stalled sagas, each for one worker only: nobody else is given them until the lease ends.

        Args:
            limit: at most so many.
            lease: by when the worker should have saved them.
            uow: joined when open; the claim is then the caller's to commit.
        """
        async with self._scope.write(uow) as connection:
            stalled = self._stalled(connection)
            return await self._claim(connection, stalled, self._rows.columns[UPDATED_AT], limit, lease)

    @repeated
    async def claim_expired_suspended_sagas(
        self, limit: int = 1, *, lease: timedelta, uow: SQLAlchemyUnitOfWork | None = None
    ) -> builtins.list[Saga]:
        """Take sagas whose waiting has passed its deadline, as `claim_stalled_sagas` does."""
        async with self._scope.write(uow) as connection:
            expired = self._expired(connection)
            return await self._claim(connection, expired, self._rows.columns["timeout_at"], limit, lease)

    async def _claim(
        self,
        connection: AsyncConnection,
        conditions: tuple[sa.ColumnElement[bool], ...],
        order: sa.ColumnElement[Any],
        limit: int,
        lease: timedelta,
    ) -> builtins.list[Saga]:
        seconds = lease.total_seconds()
        if seconds <= 0:
            raise ValueError(f"lease is {lease!r}: give a timedelta above 0")
        dialect, columns = dialect_of(connection), self._rows.columns
        wanted = sa.select(self._rows.key).where(*conditions, *self._conditions()).order_by(order, self._rows.key)
        # Materialized: planned as a subquery, PostgreSQL may run it once for each row, and take more than the limit.
        limited = dialect.skip_locked(wanted.limit(check_count("limit", limit))).cte("wanted")
        chosen = sa.select(limited.prefix_with("MATERIALIZED").c[self._rows.key.name])
        taken = {
            columns["lease_until"]: dialect.later(sa.literal(seconds, sa.Double())),
            columns[VERSION]: columns[VERSION] + 1,
            columns[UPDATED_AT]: dialect.now,
        }
        labelled = [column.label(name) for name, column in columns.items()]
        statement = sa.update(self._rows.table).where(self._rows.key.in_(chosen), *conditions).values(taken)
        rows = (await connection.execute(statement.returning(*labelled, order.label("0_order")))).mappings().all()
        rows = sorted(rows, key=lambda row: (row["created_at"], row["id"]))
        return [self._entity({name: row[name] for name in columns}) for row in rows]

    def _conditions(self) -> tuple[sa.ColumnElement[bool], ...]:
        return (self._rows.columns["saga_type"] == self._type,)

    def _stalled(self, connection: AsyncConnection) -> tuple[sa.ColumnElement[bool], ...]:
        dialect, columns = dialect_of(connection), self._rows.columns
        threshold = dialect.later(sa.literal(-self._stalled_after_seconds, sa.Double()))
        at_work, idle = columns["status"].in_(_AT_WORK), columns[UPDATED_AT] <= threshold
        return at_work, idle, self._unclaimed(connection)

    def _expired(self, connection: AsyncConnection) -> tuple[sa.ColumnElement[bool], ...]:
        columns = self._rows.columns
        due = columns["timeout_at"] <= dialect_of(connection).now
        return columns["status"] == SagaStatus.SUSPENDED, due, self._unclaimed(connection)

    def _unclaimed(self, connection: AsyncConnection) -> sa.ColumnElement[bool]:
        lease = self._rows.columns["lease_until"]
        return sa.or_(lease.is_(None), lease <= dialect_of(connection).now)

    def _computed(self, entity: Saga, connection: AsyncConnection) -> dict[str, Any]:
        if entity.timeout is None:
            return {}
        return {"timeout_at": dialect_of(connection).later(sa.literal(entity.timeout.total_seconds(), sa.Double()))}

    async def _written(self, connection: AsyncConnection, entity: Saga) -> None:
        if entity.timeout is not None:
            statement = sa.select(self._rows.columns["timeout_at"]).where(self._rows.key == entity.id)
            undo = partial(entity.set_deadline, None, timeout=entity.timeout)
            entity.set_deadline(await connection.scalar(statement))
            await connection.run_sync(on_rollback, undo)
