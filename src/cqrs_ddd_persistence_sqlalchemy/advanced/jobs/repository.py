"""The job repository: jobs of one class, saved, found, put into the queue and cleared away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from cqrs_ddd_advanced_core.background_jobs.entity import BaseBackgroundJob
from cqrs_ddd_advanced_core.background_jobs.status import JobStatus
from cqrs_ddd_advanced_core.ports.jobs import IBackgroundJobRepository
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs import statements
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.claiming import ClaimedJobs
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.rows import IN_COLUMNS, Job
from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_of
from cqrs_ddd_persistence_sqlalchemy.core.json_documents import dumps
from cqrs_ddd_persistence_sqlalchemy.core.mapping import stored_version
from cqrs_ddd_persistence_sqlalchemy.core.repository import UPDATED_AT
from cqrs_ddd_persistence_sqlalchemy.core.scope import repeated
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_aware

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from cqrs_ddd_persistence_sqlalchemy.core.uow import SessionFactory, SQLAlchemyUnitOfWork

# Rows that one transaction of `purge` deletes: it holds others up for no longer.
_PURGED_AT_ONCE = 1000


class SQLAlchemyBackgroundJobRepository(ClaimedJobs[Job], IBackgroundJobRepository[Job]):
    """Stores jobs of one class in the table `jobs`, which classes share without meeting each other.

    One worker can load jobs, mark and save them; whoever has lost the race for one meets an
    OptimisticConcurrencyError. Many workers claim them.

    Args:
        job_cls: of the jobs; its name is stored with them.
        uow_factory: returns the unit of work to use where none is given.
        stale_job_timeout_seconds: how long a running job may go without being saved.
        session_factory: for operations without a unit of work, in place of a factory.
        schema: the database schema of the table; the connection's default when omitted.
    """

    def __init__(
        self,
        job_cls: type[Job] = BaseBackgroundJob,  # type: ignore[assignment]  # the default of a generic parameter
        uow_factory: Callable[[], SQLAlchemyUnitOfWork] | None = None,
        *,
        stale_job_timeout_seconds: float = 3600,
        session_factory: SessionFactory | None = None,
        schema: str | None = None,
    ) -> None:
        super().__init__(job_cls, uow_factory, session_factory, schema)
        self._stale_after_seconds = _check_seconds("stale_job_timeout_seconds", stale_job_timeout_seconds)

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
            seconds = _check_seconds("timeout_seconds", timeout_seconds)
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

    async def enqueue_many(self, jobs: Iterable[Job], *, uow: SQLAlchemyUnitOfWork | None = None) -> builtins.list[str]:
        """Save any number of new jobs in one statement, and return the ids of those that are in the queue now.

        A job is left out where one of its id is stored already, or a live one with its unique key (the first one of the
        batch that has it, too). The ids that are returned stand in the order given.

        Raises:
            ValueError: naming a job that is not new, or what cannot be stored. Nothing is written.
            TypeError: a job is of another class.
        """
        return await self._enqueue({job.id: job for job in self._checked(jobs)}, uow=uow)

    @repeated
    async def _enqueue(self, new: dict[str, Job], *, uow: SQLAlchemyUnitOfWork | None) -> builtins.list[str]:
        # Two batches that wait for each other's unique keys would be a deadlock, unless they ask in one order.
        ordered = sorted(new.values(), key=lambda job: job.unique_key or "")
        async with self._scope.write(uow) as connection:
            json_time = dialect_of(connection).json_time
            batch = dumps([self._as_json(job, number, json_time) for number, job in enumerate(ordered)])
            statement = statements.enqueue(self._rows.table, connection.dialect.name)
            rows = {row.id: row for row in await connection.execute(statement, {"batch": batch})}
            for job_id, row in rows.items():
                await connection.run_sync(self._stamp, new[job_id], 1)
                if new[job_id].delay is not None:
                    await connection.run_sync(self._tell, new[job_id], {"run_at": row.run_at})
        return [job_id for job_id in new if job_id in rows]

    @repeated
    async def request_cancellation(self, job_id: str, *, uow: SQLAlchemyUnitOfWork | None = None) -> bool:
        """Cancel a job that waits; ask one that runs to stop, of which its worker hears with the next heartbeat.

        One that runs and was asked to stop is not tried again: where it does not complete, it ends as CANCELLED.

        Returns:
            False where there is no such job, or it is over.
        """
        values = {"job_id": job_id, "of_type": self._type}
        async with self._scope.write(uow) as connection:
            statement = statements.request_cancellation(self._rows.table, connection.dialect.name)
            return bool((await connection.execute(statement, values)).rowcount)

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

    def _checked(self, jobs: Iterable[Job]) -> builtins.list[Job]:
        checked, ids = list(jobs), set()
        for job in checked:
            self._rows.check_class(job)
            if stored_version(job) is not None or job.status is not JobStatus.PENDING:
                raise ValueError(f"job {job.id!r} is stored already, or not PENDING: only new jobs can be enqueued")
            if job.id in ids:
                raise ValueError(f"job {job.id!r} is in the batch twice")
            ids.add(job.id)
        return checked

    def _as_json(self, job: Job, number: int, json_time: Callable[[datetime], str]) -> dict[str, Any]:
        given = vars(self.to_model(job))
        times = {"run_at", "started_at", "finished_at"}
        values = {name: given[name] for name in (*IN_COLUMNS, "job_type", "state") if name in given}
        values |= {name: json_time(values[name]) for name in times if values[name] is not None}
        return {**values, "row_number": number, "delay": job.delay and job.delay.total_seconds()}


def _statuses(status: JobStatus | Iterable[JobStatus]) -> tuple[JobStatus, ...]:
    given = [status] if isinstance(status, str) else list(status)
    if not given:
        raise ValueError(f"give at least one status of {', '.join(JobStatus)}")
    return tuple(sorted({JobStatus(each) for each in given}))


def _check_seconds(name: str, seconds: float) -> float:
    if isinstance(seconds, bool) or not 0 <= seconds < float("inf"):
        raise ValueError(f"{name} is {seconds!r}: give seconds from 0")
    return float(seconds)
