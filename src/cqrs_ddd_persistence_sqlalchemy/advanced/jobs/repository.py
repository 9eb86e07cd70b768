"""The job repository: jobs of one class, saved, found, put into the queue and cleared away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from cqrs_ddd_advanced_core.background_jobs.entity import BaseBackgroundJob
from cqrs_ddd_advanced_core.background_jobs.status import JobStatus
from cqrs_ddd_advanced_core.ports.jobs import IBackgroundJobRepository
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs import statements
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.enqueueing import QueuedJobs
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.rows import Job
from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_of
from cqrs_ddd_persistence_sqlalchemy.core.repository_statements import UPDATED_AT
from cqrs_ddd_persistence_sqlalchemy.core.scope import repeated
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_aware, check_seconds

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from cqrs_ddd_persistence_sqlalchemy.core.joining import SessionFactory
    from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork

# Rows that one transaction of `purge` deletes: it holds others up for no longer.
_PURGED_AT_ONCE = 1000


class SQLAlchemyBackgroundJobRepository(QueuedJobs[Job], IBackgroundJobRepository[Job]):
    """Stores jobs of one class in the table `jobs`, which classes share without meeting each other.

    One worker can load jobs, mark and save them; whoever has lost the race for one meets an
    OptimisticConcurrencyError. Many workers claim them.

    Args:
        job_cls: of the jobs; its name is stored with them.
        uow_factory: returns the unit of work to use where none is given.
        stale_job_timeout_seconds: how long a running job may go without being saved.
        session_factory: for operations without a unit of work, in place of a factory.
        schema: the database schema of the table; the connection's default when omitted.
        notify: wake workers after each commit that put jobs into a queue, on PostgreSQL. One short transaction more.
    """

    def __init__(
        self,
        job_cls: type[Job] = BaseBackgroundJob,  # type: ignore[assignment]  # the default of a generic parameter
        uow_factory: Callable[[], SQLAlchemyUnitOfWork] | None = None,
        *,
        stale_job_timeout_seconds: float = 3600,
        session_factory: SessionFactory | None = None,
        schema: str | None = None,
        notify: bool = False,
    ) -> None:
        super().__init__(job_cls, uow_factory, session_factory, schema, notify=notify)
        self._stale_after_seconds = check_seconds("stale_job_timeout_seconds", stale_job_timeout_seconds)

    @repeated
    async def find_by_status(
        self,
        status: JobStatus | Iterable[JobStatus],
        limit: int = 100,
        offset: int = 0,
        *,
        uow: SQLAlchemyUnitOfWork | None = None,
    ) -> builtins.list[Job]:
        """Return jobs with one status or one of several, whatever their `run_at`, oldest first."""
        condition = statements.has_status(self._rows.table, _statuses(status))
        return await self._select(condition, limit=limit, offset=offset, uow=uow)

    @repeated
    async def get_stale_jobs(
        self,
        timeout_seconds: float | None = None,
        limit: int = 100,
        *,
        uow: SQLAlchemyUnitOfWork | None = None,
    ) -> builtins.list[Job]:
        """Return jobs that run and were not saved for so long, nor are claimed, those that wait longest first."""
        seconds = self._stale_after_seconds
        if timeout_seconds is not None:
            seconds = check_seconds("timeout_seconds", timeout_seconds)
        columns = self._rows.columns
        async with self._scope.read(uow) as connection:
            dialect = dialect_of(connection)
        is_old = columns[UPDATED_AT] <= dialect.later(sa.literal(-seconds, sa.Double()))
        is_free = sa.or_(columns["lease_until"].is_(None), columns["lease_until"] <= dialect.now)
        is_running = statements.has_status(self._rows.table, [JobStatus.RUNNING])
        return await self._select(is_running, is_old, is_free, order=(columns[UPDATED_AT],), limit=limit, uow=uow)

    @repeated
    async def count_by_status(self, *, uow: SQLAlchemyUnitOfWork | None = None) -> dict[JobStatus, int]:
        """Return how many jobs there are of each status, 0 included."""
        status = self._rows.columns["status"]
        statement = sa.select(status, sa.func.count()).where(*self._conditions()).group_by(status)
        async with self._scope.read(uow) as connection:
            rows = (await connection.execute(statement)).all()
        return dict.fromkeys(JobStatus, 0) | {row[0]: row[1] for row in rows}

    @repeated
    async def request_cancellation(self, job_id: str, *, uow: SQLAlchemyUnitOfWork | None = None) -> bool:
        """Cancel a job that waits; ask one that runs to stop, of which its worker hears with the next heartbeat.

        One that runs and was asked to stop is not tried again: where it does not complete, it ends as CANCELLED.

        Returns:
            False where there is no such job, or it is over.
        """
        async with self._scope.write(uow) as connection:
            statement = statements.request_cancellation(self._rows.table, connection.dialect.name)
            return bool((await connection.execute(statement.where(*self._conditions()), {"job_id": job_id})).rowcount)

    async def purge(
        self,
        before: datetime,
        statuses: Iterable[JobStatus] = statements.OVER,
        *,
        uow: SQLAlchemyUnitOfWork | None = None,
    ) -> int:
        """Delete jobs that are over, and return how many they were.

        Without an open unit of work each thousand of them are deleted in a transaction of their own.

        Args:
            before: aware; jobs go that were written last before it.
            statuses: terminal ones.
            uow: joined when open.

        Raises:
            ValueError: `before` is naive, or a status is not terminal. Nothing is deleted.
        """
        check_aware("before", before)
        wanted = _statuses(statuses)
        live = [status.value for status in wanted if not status.is_terminal]
        if live:
            raise ValueError(f"statuses has {', '.join(live)}: only jobs that are over can be purged")
        table = self._rows.table
        # The first condition is the index's own, which has to be repeated for the index to be used.
        is_over = (statements.has_status(table, statements.OVER), statements.has_status(table, wanted))
        chosen = sa.select(self._rows.key).where(*is_over, *self._conditions(), table.c.updated_at < before)
        chosen = chosen.order_by(table.c.updated_at).limit(_PURGED_AT_ONCE)
        statement = sa.delete(table).where(self._rows.key.in_(chosen), *is_over)
        purged = 0
        while True:
            deleted = await self._delete(statement, uow=uow)
            purged += deleted
            if deleted < _PURGED_AT_ONCE:
                return purged

    @repeated
    async def _delete(self, statement: sa.Delete, *, uow: SQLAlchemyUnitOfWork | None) -> int:
        async with self._scope.write(uow) as connection:
            return (await connection.execute(statement)).rowcount


def _statuses(status: JobStatus | Iterable[JobStatus]) -> tuple[JobStatus, ...]:
    given = [status] if isinstance(status, str) else list(status)
    if not given:
        raise ValueError(f"give at least one status of {', '.join(JobStatus)}")
    return tuple(sorted({JobStatus(each) for each in given}))
