"""What the person on call sees of jobs, whatever their class, and can do about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from cqrs_ddd_advanced_core.background_jobs.status import JobStatus
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.statements import has_status, request_cancellation, spelled
from cqrs_ddd_persistence_sqlalchemy.advanced.models import BackgroundJobModel
from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_of
from cqrs_ddd_persistence_sqlalchemy.core.scope import repeated
from cqrs_ddd_persistence_sqlalchemy.core.table_store import TableStore
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_count

if TYPE_CHECKING:
    import builtins
    from collections.abc import Mapping
    from datetime import datetime

    from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork

_SHOWN = (
    "id", "job_type", "queue", "status", "priority", "due_at", "unique_key", "correlation_id", "total_items",
    "processed_items", "retry_count", "max_retries", "error", "worker_id", "lease_until", "cancellation_requested_at",
    "created_at", "started_at", "finished_at", "updated_at",
)  # fmt: skip


@dataclass(frozen=True)
class JobInfo:
    """A job as its row is, without its class.

    Attributes:
        due_at: when it may be taken, or might have been.
        worker_id: who has claimed it last; `lease_until` until when that holds.
        state: what the class has remembered beside the columns; None in lists.
    """

    id: str
    job_type: str
    queue: str
    status: JobStatus
    priority: int
    due_at: datetime
    unique_key: str | None
    correlation_id: str | None
    total_items: int
    processed_items: int
    retry_count: int
    max_retries: int
    error: str | None
    worker_id: str | None
    lease_until: datetime | None
    cancellation_requested_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime
    state: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class JobCounts:
    """The jobs of one class in one queue.

    Attributes:
        waiting_seconds: since when the job that is due longest could have been taken, by the database's clock; 0.0 when
            none is due.
    """

    job_type: str
    queue: str
    pending: int
    running: int
    completed: int
    failed: int
    cancelled: int
    waiting_seconds: float


class SQLAlchemyJobControl(TableStore):
    """Shows the jobs of all classes, cancels them, and lets failed ones run again.

    Args:
        session_factory: for operations without a unit of work.
        uow_factory: returns the unit of work to use where none is given.
        schema: the database schema of the table; the connection's default when omitted.
    """

    _of: ClassVar[sa.Table] = BackgroundJobModel.__table__  # type: ignore[assignment]

    @repeated
    async def list(
        self,
        *,
        status: JobStatus | None = None,
        job_type: str | None = None,
        queue: str | None = None,
        limit: int = 100,
        uow: SQLAlchemyUnitOfWork | None = None,
    ) -> builtins.list[JobInfo]:
        """Return jobs, those that were written last first."""
        columns = self._table.c
        statement = sa.select(*(columns[name] for name in _SHOWN))
        if status is not None:
            statement = statement.where(has_status(self._table, [status]))
        for column, wanted in ((columns.job_type, job_type), (columns.queue, queue)):
            if wanted is not None:
                statement = statement.where(column == wanted)
        statement = statement.order_by(columns.updated_at.desc(), columns.id).limit(check_count("limit", limit))
        async with self._scope.read(uow) as connection:
            return [JobInfo(**row) for row in (await connection.execute(statement)).mappings()]

    @repeated
    async def get(self, job_id: str, *, uow: SQLAlchemyUnitOfWork | None = None) -> JobInfo | None:
        """Return a job with its state, or None."""
        columns = self._table.c
        statement = sa.select(*(columns[name] for name in (*_SHOWN, "state"))).where(columns.id == job_id)
        async with self._scope.read(uow) as connection:
            row = (await connection.execute(statement)).mappings().one_or_none()
        return None if row is None else JobInfo(**row)

    @repeated
    async def stats(self, *, uow: SQLAlchemyUnitOfWork | None = None) -> builtins.list[JobCounts]:
        """Return how many jobs there are, by class and queue."""
        table = self._table
        async with self._scope.read(uow) as connection:
            dialect = dialect_of(connection)
            counts = [
                sa.func.count(sa.case((has_status(table, [status]), 1))).label(status.value.lower())
                for status in JobStatus
            ]
            first = sa.func.min(sa.case((has_status(table, [JobStatus.PENDING]), table.c.due_at)))
            waiting = sa.func.coalesce(dialect.seconds_since(first), 0.0)
            seconds = sa.case((waiting > 0, waiting), else_=0.0).label("waiting_seconds")
            key = (table.c.job_type, table.c.queue)
            statement = sa.select(*key, *counts, seconds).group_by(*key).order_by(*key)
            return [JobCounts(**row) for row in (await connection.execute(statement)).mappings()]

    @repeated
    async def retry(self, job_id: str, *, uow: SQLAlchemyUnitOfWork | None = None) -> bool:
        """Let a FAILED or CANCELLED job run again, with all its attempts; False where there is none of this id.

        Raises:
            ValueError: another job that waits or runs has its unique key.
        """
        table = self._table
        over = has_status(table, [JobStatus.CANCELLED, JobStatus.FAILED])
        async with self._scope.write(uow) as connection:
            values = {
                "status": spelled(table, JobStatus.PENDING),
                "retry_count": 0,
                "version": table.c.version + 1,
                **dict.fromkeys(("due_at", "updated_at"), dialect_of(connection).now),
                **dict.fromkeys(("run_at", "finished_at", "cancellation_requested_at", "lease_until")),
            }
            statement = sa.update(table).where(table.c.id == job_id, over).values(values)
            try:
                async with connection.begin_nested():
                    return bool((await connection.execute(statement)).rowcount)
            except IntegrityError as error:
                if dialect_of(connection).violated_columns(error, table) is None:
                    raise
                raise ValueError(f"job {job_id!r}: another one that waits or runs has its unique key") from error

    @repeated
    async def cancel(self, job_id: str, *, uow: SQLAlchemyUnitOfWork | None = None) -> bool:
        """Cancel a job that waits, ask one that runs to stop; False where there is none of this id that does."""
        table = self._table
        async with self._scope.write(uow) as connection:
            statement = request_cancellation(table, connection.dialect.name)
            return bool((await connection.execute(statement, {"job_id": job_id})).rowcount)
