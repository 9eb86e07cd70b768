"""Ending what workers have been given: completed, failed, or given back; each only while the claim holds."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cqrs_ddd_advanced_core.background_jobs.entity import BaseBackgroundJob
from cqrs_ddd_advanced_core.background_jobs.status import JobStatus
from cqrs_ddd_advanced_core.error_text import described, shortened
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs import statements
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.claims import JobClaim
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.rows import Job
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.taking import TakenJobs
from cqrs_ddd_persistence_sqlalchemy.core.dialect import execute_kept
from cqrs_ddd_persistence_sqlalchemy.core.json_documents import object_text
from cqrs_ddd_persistence_sqlalchemy.core.scope import repeated
from cqrs_ddd_persistence_sqlalchemy.exceptions import LeaseLostError

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable, Mapping

    from sqlalchemy.ext.asyncio import AsyncConnection

    from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork


class EndedJobs(TakenJobs[Job]):
    """Lets workers end the jobs that they have been given."""

    async def complete(
        self, claims: JobClaim[Job] | Iterable[JobClaim[Job]], *, uow: SQLAlchemyUnitOfWork | None = None
    ) -> None:
        """Save jobs as completed, with their results and all that they have remembered.

        A job that has ended itself in another way, by `cancel()` say, is saved as that. One that has asked to be tried
        again is not complete: `fail` it.

        Args:
            claims: one or several.
            uow: joined when open.

        Raises:
            ValueError: a job has asked to be tried again, or holds what cannot be stored. Nothing is written.
            LeaseLostError: naming the jobs whose claims are lost; nothing is written of them. The others are complete,
                in an open unit of work if that is committed.
        """
        given = [claims] if isinstance(claims, JobClaim) else list(claims)
        completed = await self._complete(given, uow=uow)
        lost = tuple(claim.id for claim in given if claim.id not in completed)
        if lost:
            raise LeaseLostError("job", lost)

    @repeated
    async def _complete(
        self, claims: builtins.list[JobClaim[Job]], *, uow: SQLAlchemyUnitOfWork | None
    ) -> builtins.list[str]:
        """Complete those whose claims hold, and return their ids."""
        values, ends = self._to_complete(claims)
        async with self._scope.write(uow, single=True) as connection:
            statement = statements.complete(self._rows.table, connection.dialect.name)
            answer = await execute_kept(connection, statement, values)
            return self._completed(connection, claims, ends, answer.mappings())

    def _to_complete(
        self, claims: builtins.list[JobClaim[Job]]
    ) -> tuple[dict[str, Any], builtins.list[dict[str, Any]]]:
        """Return what the statement takes, and what each job is to be told."""
        endings = [self._ending(claim.job) for claim in claims]
        pairs = zip(claims, endings, strict=True)
        batch = ",".join([self._outcome(ended, end, claim.token) for claim, (ended, end) in pairs])
        return {"batch": f"[{batch}]", "of_type": self._type}, [end for _, end in endings]

    def _completed(
        self,
        connection: AsyncConnection,
        claims: builtins.list[JobClaim[Job]],
        ends: builtins.list[dict[str, Any]],
        rows: builtins.list[dict[str, Any]],
    ) -> builtins.list[str]:
        """Let the jobs know that are saved as completed, and return their ids."""
        saved = {row["id"]: row for row in rows}
        for claim, end in zip(claims, ends, strict=True):
            row = saved.get(claim.id)
            if row is not None:
                told = end | {name: row[name] for name in ("version", "finished_at")}
                self._end_of_claim(connection, claim.job, told, *end, "finished_at")
        return list(saved)

    @repeated
    async def fail(
        self,
        claim: JobClaim[Job],
        error: str | BaseException,
        *,
        retry_in: timedelta | None = None,
        uow: SQLAlchemyUnitOfWork | None = None,
    ) -> JobStatus:
        """End an attempt that has come to nothing, and keep the error and what the job has remembered.

        Args:
            claim: of the job.
            error: what went wrong.
            retry_in: how long it waits for the next attempt; `job.next_delay()` unless given.
            uow: joined when open.

        Returns:
            What the job is now: PENDING while attempts are left, else FAILED; CANCELLED where that was asked for.

        Raises:
            LeaseLostError: the claim is lost. Nothing is written.
        """
        delay = claim.job.next_delay() if retry_in is None else retry_in
        text = shortened(error) if isinstance(error, str) else described(error)
        values = {"seconds": seconds_of("retry_in", delay, least=0), "text": text}
        async with self._scope.write(uow, single=True) as connection:
            statement = statements.fail(self._rows.table, connection.dialect.name)
            return await self._give_back(connection, statement, claim, values)

    @repeated
    async def release(self, claim: JobClaim[Job], *, uow: SQLAlchemyUnitOfWork | None = None) -> JobStatus:
        """Give a job back unfinished, as a worker does that has to stop: the attempt does not count.

        Returns:
            What the job is now: PENDING, or CANCELLED where that was asked for.

        Raises:
            LeaseLostError: the claim is lost. Nothing is written.
        """
        async with self._scope.write(uow, single=True) as connection:
            statement = statements.release(self._rows.table, connection.dialect.name)
            return await self._give_back(connection, statement, claim, {})

    async def _give_back(
        self, connection: AsyncConnection, statement: Any, claim: JobClaim[Job], further: Mapping[str, Any]
    ) -> JobStatus:
        job = claim.job
        values = {**self._mine(claim), **progress(job), "remembered": self._state(job), **further}
        row = (await execute_kept(connection, statement, values)).mapping()
        if row is None:
            raise LeaseLostError("job", (claim.id,))
        names = ("status", "retry_count", "run_at", "error", "finished_at", "cancellation_requested_at")
        self._end_of_claim(connection, job, row, *names)
        return JobStatus(row["status"])

    def _mine(self, claim: JobClaim[Job]) -> dict[str, Any]:
        self._rows.check_class(claim.job)
        return {"job_id": claim.id, "of_type": self._type, "token": claim.token}

    def _ending(self, job: Job) -> tuple[Job, dict[str, Any]]:
        """Return what to save of a completed job, and what it is to be told; what is over has ended by itself."""
        self._rows.check_class(job)
        if job.status is JobStatus.RUNNING and type(job).mark_as_completed is BaseBackgroundJob.mark_as_completed:
            return job, {"status": JobStatus.COMPLETED, "result": job.result, "error": None}
        if job.status is JobStatus.PENDING:
            raise ValueError(
                f"job {job.id!r} has asked to be tried again, and is not complete: use fail(claim, error, "
                "retry_in=claim.job.delay)"
            )
        ended = job.model_copy()
        if not ended.status.is_terminal:
            ended.mark_as_completed()
        return ended, {name: getattr(ended, name) for name in ("status", "result", "error")}

    def _outcome(self, ended: Job, end: Mapping[str, Any], token: int) -> str:
        values = {name: getattr(ended, name) for name in ("id", "total_items", "processed_items")}
        error = None if end["error"] is None else shortened(end["error"])
        values |= {"token": token, "outcome": end["status"], "error": error}
        return object_text(values, state=self._state_and_text(ended)[1])


def progress(job: Job) -> dict[str, int]:
    """Return what a statement is to be given of how far a job is."""
    return {"now_total_items": job.total_items, "now_processed_items": job.processed_items}


def seconds_of(name: str, duration: timedelta, *, least: float = 1e-6) -> float:
    """Return a duration's seconds.

    Raises:
        ValueError: naming what is no duration, or too short.
    """
    if not isinstance(duration, timedelta) or duration.total_seconds() < least:
        raise ValueError(f"{name} is {duration!r}: give a timedelta {'from' if least == 0 else 'above'} 0")
    return duration.total_seconds()
