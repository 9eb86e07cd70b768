"""What the person on call sees of sagas, whatever their class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy as sa

from cqrs_ddd_advanced_core.sagas.status import SagaStatus
from cqrs_ddd_persistence_sqlalchemy.advanced.models import SagaStateModel
from cqrs_ddd_persistence_sqlalchemy.core.scope import repeated
from cqrs_ddd_persistence_sqlalchemy.core.table_store import TableStore
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_count

if TYPE_CHECKING:
    import builtins
    from collections.abc import Mapping
    from datetime import datetime

    from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork


@dataclass(frozen=True)
class SagaInfo:
    """A saga as its row is, without its class.

    Attributes:
        step: the run of a step that was recorded last, with its status, as in "pay: FAILED"; None before the first.
        reason: why it is suspended, or was cancelled.
        error: why it failed, or what its last step raised.
        lease_until: until when no other worker takes it: one has it, or it pauses before the next try.
        state: what its class remembers; None in lists, as `history` is.
    """

    id: str
    saga_type: str
    correlation_id: str | None
    status: SagaStatus
    step: str | None
    reason: str | None
    error: str | None
    timeout_at: datetime | None
    lease_until: datetime | None
    created_at: datetime
    updated_at: datetime
    state: Mapping[str, Any] | None = None
    history: builtins.list[Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class SagaCounts:
    """How many sagas of a class have each status."""

    saga_type: str
    pending: int
    running: int
    suspended: int
    compensating: int
    completed: int
    cancelled: int
    failed: int


class SQLAlchemySagaControl(TableStore):
    """Shows the sagas of all classes.

    Args:
        session_factory: for operations without a unit of work.
        uow_factory: returns the unit of work to use where none is given.
        schema: the database schema of the table; the connection's default when omitted.
    """

    _of: ClassVar[sa.Table] = SagaStateModel.__table__  # type: ignore[assignment]  # a Table, declared wider

    @repeated
    async def list(
        self,
        *,
        status: SagaStatus | None = None,
        saga_type: str | None = None,
        limit: int = 100,
        uow: SQLAlchemyUnitOfWork | None = None,
    ) -> builtins.list[SagaInfo]:
        """Return sagas, those that were written last first."""
        columns = self._table.c
        statement = sa.select(self._table)
        for column, wanted in ((columns.status, status), (columns.saga_type, saga_type)):
            if wanted is not None:
                statement = statement.where(column == wanted)
        statement = statement.order_by(columns.updated_at.desc(), columns.id).limit(check_count("limit", limit))
        async with self._scope.read(uow) as connection:
            return [_info(row) for row in (await connection.execute(statement)).mappings()]

    @repeated
    async def get(self, saga_id: str, *, uow: SQLAlchemyUnitOfWork | None = None) -> SagaInfo | None:
        """Return a saga with its state and history, or None."""
        statement = sa.select(self._table).where(self._table.c.id == saga_id)
        async with self._scope.read(uow) as connection:
            row = (await connection.execute(statement)).mappings().one_or_none()
        return None if row is None else _info(row, state=row["state"], history=row["events"])

    @repeated
    async def stats(self, *, uow: SQLAlchemyUnitOfWork | None = None) -> builtins.list[SagaCounts]:
        """Return how many sagas there are, by class."""
        columns = self._table.c
        counts = [
            sa.func.count(sa.case((columns.status == status, 1))).label(status.value.lower()) for status in SagaStatus
        ]
        statement = sa.select(columns.saga_type, *counts).group_by(columns.saga_type).order_by(columns.saga_type)
        async with self._scope.read(uow) as connection:
            return [SagaCounts(**row) for row in (await connection.execute(statement)).mappings()]


def _info(row: Any, **further: Any) -> SagaInfo:
    state, last = row["state"] or {}, (row["events"] or [None])[-1]
    names = ("id", "saga_type", "correlation_id", "status", "timeout_at", "lease_until", "created_at", "updated_at")
    return SagaInfo(
        **{name: row[name] for name in names},
        step=None if last is None else f"{last['name']}: {last['status']}",
        reason=state.get("reason"),
        error=state.get("error") or (None if last is None else last.get("error")),
        **further,
    )
