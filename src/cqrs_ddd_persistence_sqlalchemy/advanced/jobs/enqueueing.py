"""Jobs on their way into a queue: one by one, by the thousand, and tick by tick."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from cqrs_ddd_advanced_core.background_jobs.status import JobStatus
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs import statements
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.claiming import ClaimedJobs
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.rows import Job, check_columns
from cqrs_ddd_persistence_sqlalchemy.advanced.models import job_schedules
from cqrs_ddd_persistence_sqlalchemy.advanced.running.listening import Listener
from cqrs_ddd_persistence_sqlalchemy.core.channels import JOBS_CHANNEL
from cqrs_ddd_persistence_sqlalchemy.core.dialect import UTCDateTime, dialect_of, execute_kept
from cqrs_ddd_persistence_sqlalchemy.core.json_documents import DocumentText, dumps
from cqrs_ddd_persistence_sqlalchemy.core.mapping import stored_version
from cqrs_ddd_persistence_sqlalchemy.core.models import ID_LENGTH, in_schema
from cqrs_ddd_persistence_sqlalchemy.core.repository import SQLAlchemyRepository
from cqrs_ddd_persistence_sqlalchemy.core.scope import repeated
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_aware, check_id

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from cqrs_ddd_persistence_sqlalchemy.core.joining import SessionFactory
    from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork


class QueuedJobs(ClaimedJobs[Job]):
    """Puts jobs into queues, and wakes those who wait for them."""

    def __init__(
        self,
        job_cls: type[Job],
        uow_factory: Callable[[], SQLAlchemyUnitOfWork] | None,
        session_factory: SessionFactory | None,
        schema: str | None,
        *,
        notify: bool,
    ) -> None:
        super().__init__(job_cls, uow_factory, session_factory, schema)
        self._notify = notify
        self._schedules = in_schema(job_schedules, schema)

    async def add(self, entity: Job, *, uow: SQLAlchemyUnitOfWork | None = None) -> Job:
        """Insert a new job, or update one that was loaded or saved before, as every repository does."""
        added = await super().add(entity, uow=uow)
        if added.status is JobStatus.PENDING:
            await self._wake(uow)
        return added

    async def enqueue_many(self, jobs: Iterable[Job], *, uow: SQLAlchemyUnitOfWork | None = None) -> builtins.list[str]:
        """Save any number of new jobs in one statement, and return the ids of those that are in the queue now.

        A job is left out where one of its id is stored already, or a live one with its unique key (the first one of the
        batch that has it, too). The ids that are returned stand in the order given.

        Raises:
            ValueError: naming a job that is not new, or what cannot be stored. Nothing is written.
            TypeError: a job is of another class.
        """
        enqueued = await self._enqueue(self._checked(jobs), uow=uow)
        if enqueued:
            await self._wake(uow)
        return enqueued

    async def enqueue_tick(
        self, schedule: str, tick: datetime, job_factory: Callable[[], Job], *, uow: SQLAlchemyUnitOfWork | None = None
    ) -> bool:
        """Enqueue the job of a schedule's tick, once however many ask for it; the tick is remembered with the job.

        Args:
            schedule: its name. One that is new remembers the tick without a job: it begins with the next one.
            tick: aware; the newest that has come.
            job_factory: called where the job is to be made.
            uow: joined when open.

        Returns:
            Whether a job was enqueued; also False where its unique key belongs to one that waits or runs.
        """
        check_aware("tick", tick)
        check_id("schedule", schedule, max_length=ID_LENGTH)
        last = await self._last_tick(schedule, uow=uow)  # spares other writers a transaction
        if last is not None and last >= tick:
            return False
        enqueued = await self._enqueue_tick(schedule, tick, job_factory, is_new=last is None, uow=uow)
        if enqueued:
            await self._wake(uow)
        return bool(enqueued)

    @repeated
    async def now(self, *, uow: SQLAlchemyUnitOfWork | None = None) -> datetime:
        """Return the time by the database's clock."""
        async with self._scope.read(uow) as connection:
            clock = sa.type_coerce(dialect_of(connection).now, UTCDateTime())
            return (await connection.execute(sa.select(clock))).scalar_one()

    def listener(self, wake: Callable[[], object]) -> Listener:
        """Return a context in which `wake` is called when jobs have been put into a queue, where the database can."""
        return Listener(self._scope, JOBS_CHANNEL, wake)

    async def _wake(self, uow: SQLAlchemyUnitOfWork | None) -> None:
        if self._notify:
            await self._scope.notify_after_commit(JOBS_CHANNEL, uow)

    @repeated
    async def _enqueue(self, jobs: builtins.list[Job], *, uow: SQLAlchemyUnitOfWork | None) -> builtins.list[str]:
        async with self._scope.write(uow, single=True) as connection:
            return await self._insert_new(connection, jobs)

    @repeated
    async def _last_tick(self, schedule: str, *, uow: SQLAlchemyUnitOfWork | None) -> datetime | None:
        async with self._scope.read(uow) as connection:
            answer = await execute_kept(connection, statements.last_tick(self._schedules), {"schedule": schedule})
        found: datetime | None = answer.scalar()
        return found

    @repeated
    async def _enqueue_tick(
        self,
        schedule: str,
        tick: datetime,
        job_factory: Callable[[], Job],
        *,
        is_new: bool,
        uow: SQLAlchemyUnitOfWork | None,
    ) -> builtins.list[str]:
        values = {"schedule": schedule, "tick": tick}
        async with self._scope.write(uow) as connection:
            if is_new:
                await execute_kept(
                    connection, statements.begin_schedule(self._schedules, connection.dialect.name), values
                )
            elif (await execute_kept(connection, statements.advance_schedule(self._schedules), values)).rowcount:
                return await self._insert_new(connection, self._checked([job_factory()]))
        return []

    async def _insert_new(self, connection: AsyncConnection, jobs: builtins.list[Job]) -> builtins.list[str]:
        if not jobs:
            return []
        new = {job.id: job for job in jobs}
        # Two batches that wait for each other's unique keys would be a deadlock, unless they ask in one order.
        ordered = sorted(jobs, key=lambda job: job.unique_key or "")
        dialect = dialect_of(connection)
        columns, one = self._new_columns(ordered), len(ordered) == 1
        batch = {name: values[0] for name, values in columns.items()} if one else dialect.batch(columns)
        answer = await execute_kept(connection, statements.enqueue(self._rows.table, dialect.name, one=one), batch)
        rows = dict(map(tuple, answer.rows))
        for job_id, run_at in rows.items():
            self._stamp(connection, new[job_id], 1)
            if new[job_id].delay is not None:
                self._tell(connection, new[job_id], {"run_at": run_at})
        return [job_id for job_id in new if job_id in rows]

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

    def _new_columns(self, jobs: builtins.list[Job]) -> dict[str, Sequence[Any]]:
        """Return what the statement takes, column by column."""
        if type(self).to_model is SQLAlchemyRepository.to_model:
            columns: dict[str, Sequence[Any]] = self._quick_columns(jobs)
        else:  # a subclass has its own way to make rows
            rows = list(map(self._row_values, jobs))
            columns = {name: [row.get(name) for row in rows] for name in (*statements.NEW, "run_at")}
            columns["state"] = [DocumentText(dumps(state)) for state in columns["state"]]
        check_columns(columns)
        delays = [None if job.delay is None else job.delay.total_seconds() for job in jobs]
        return columns | {"row_number": range(len(jobs)), "delay": delays}
