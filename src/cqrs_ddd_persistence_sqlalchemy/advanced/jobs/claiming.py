"""What workers on many machines need: each job is given to one of them, and taken back from those that are gone."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from cqrs_ddd_advanced_core.background_jobs.status import JobStatus
from cqrs_ddd_advanced_core.error_text import described, shortened
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs import statements
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.claims import JobClaim
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.rows import Job
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.taking import TakenJobs
from cqrs_ddd_persistence_sqlalchemy.core.alone import is_alone
from cqrs_ddd_persistence_sqlalchemy.core.dialect import execute_kept
from cqrs_ddd_persistence_sqlalchemy.core.json_documents import dumps
from cqrs_ddd_persistence_sqlalchemy.core.models import ID_LENGTH
from cqrs_ddd_persistence_sqlalchemy.core.scope import repeated
from cqrs_ddd_persistence_sqlalchemy.core.undoing import synchronous
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_count, check_id
from cqrs_ddd_persistence_sqlalchemy.exceptions import LeaseLostError

if TYPE_CHECKING:
    import builtins
    from collections.abc import Collection, Iterable, Mapping

    from sqlalchemy.ext.asyncio import AsyncConnection

    from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork

logger = logging.getLogger(__name__)


class ClaimedJobs(TakenJobs[Job]):
    """Gives jobs to workers, each to one, and lets them end what they have been given."""

    @repeated
    async def claim(
        self,
        limit: int = 1,
        *,
        worker_id: str,
        lease: timedelta,
        queues: Collection[str] | None = None,
        uow: SQLAlchemyUnitOfWork | None = None,
    ) -> builtins.list[JobClaim[Job]]:
        """Take jobs that are due, each for one worker only, in the order of priority and then of time.

        The attempt counts from now on, whether or not anybody hears of the worker again. Where fewer jobs are due than
        wanted, those are given back first whose lease has ended (`release_expired`). A job that cannot be loaded, as
        its class has changed, counts as failed with that error and keeps nobody from the others.

        Args:
            limit: at most so many.
            worker_id: who claims, such as host and process id.
            lease: how long the jobs are the worker's unless it renews the claim.
            queues: the queues to take from, all of them when omitted.
            uow: joined when open; the claim is then the caller's to commit, and nobody's before.

        Raises:
            ValueError: naming what makes no sense.
        """
        check_count("limit", limit)
        values: dict[str, Any] = {
            "of_type": self._type,
            "worker": check_id("worker_id", worker_id, max_length=ID_LENGTH),
            "seconds": _seconds("lease", lease),
        }
        if queues is not None:
            values["queues"] = _names(queues)
        async with self._scope.write(uow, single=True) as connection:
            claims = await self._take(connection, limit, values)
            try:
                if len(claims) < limit and await self._take_back(connection, limit - len(claims)):
                    claims += await self._take(connection, limit - len(claims), values)
            except DBAPIError:
                if not claims or not is_alone(connection):
                    raise
                logger.exception("claiming more jobs failed; those that are claimed and committed are returned")
        return claims

    @repeated
    async def has_due(self, *, queues: Collection[str] | None = None, uow: SQLAlchemyUnitOfWork | None = None) -> bool:
        """Tell whether `claim` would find something; without the lock that claiming takes on SQLite."""
        values: dict[str, Any] = {"of_type": self._type}
        if queues is not None:
            values["queues"] = _names(queues)
        async with self._scope.read(uow) as connection:
            statement = statements.has_due(self._rows.table, connection.dialect.name, in_queues=queues is not None)
            return bool((await execute_kept(connection, statement, values)).scalar())

    @repeated
    async def heartbeat(
        self, claim: JobClaim[Job], lease: timedelta, *, uow: SQLAlchemyUnitOfWork | None = None
    ) -> bool:
        """Let a claim hold for longer, from now on, and save its job's progress: `processed_items` and `total_items`.

        Returns:
            Whether somebody has asked for the job's cancellation.

        Raises:
            LeaseLostError: the claim is lost. Nothing is written.
        """
        self._rows.check_class(claim.job)
        values = {
            "job_id": claim.id,
            "of_type": self._type,
            "worker": claim.worker_id,
            "failures_before": claim.attempt - 1,
            "seconds": _seconds("lease", lease),
            **_progress(claim.job),
        }
        async with self._scope.write(uow, single=True) as connection:
            statement = statements.renew(self._rows.table, connection.dialect.name)
            row = (await execute_kept(connection, statement, values)).mapping()
            if row is None:
                raise LeaseLostError("job", (claim.id,))
        claim.lease_until = row["lease_until"]
        vars(claim.job)["cancellation_requested_at"] = row["cancellation_requested_at"]
        return row["cancellation_requested_at"] is not None

    async def complete(
        self, claims: JobClaim[Job] | Iterable[JobClaim[Job]], *, uow: SQLAlchemyUnitOfWork | None = None
    ) -> None:
        """Save jobs as completed, with their results and all that they have remembered.

        A job that has ended itself in another way, by `cancel()` say, is saved as that.

        Args:
            claims: one or several.
            uow: joined when open.

        Raises:
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
        ended = {claim.id: self._ended(claim.job) for claim in claims}
        batch = dumps([self._outcome(ended[claim.id], claim.token) for claim in claims])
        async with self._scope.write(uow, single=True) as connection:
            statement = statements.complete(self._rows.table, connection.dialect.name)
            answer = await execute_kept(connection, statement, {"batch": batch, "of_type": self._type})
            rows = {row["id"]: row for row in answer.mappings()}
            for claim in claims:
                if claim.id in rows:
                    row = {**vars(ended[claim.id]), **rows[claim.id]}
                    names = ("status", "result", "error", "finished_at")
                    self._end_of_claim(synchronous(connection), claim.job, row, *names)
        return list(rows)

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
        values = {"seconds": _seconds("retry_in", delay, least=0), "text": text}
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

    @repeated
    async def release_expired(self, limit: int = 100, *, uow: SQLAlchemyUnitOfWork | None = None) -> int:
        """Take jobs back whose lease has ended, and return how many they were.

        The attempt has come to nothing: a job goes back into the queue while attempts are left, else it is FAILED.
        """
        check_count("limit", limit)
        async with self._scope.write(uow, single=True) as connection:
            return await self._take_back(connection, limit)

    async def _give_back(
        self, connection: AsyncConnection, statement: Any, claim: JobClaim[Job], further: Mapping[str, Any]
    ) -> JobStatus:
        job = claim.job
        values = {**self._mine(claim), **_progress(job), "remembered": self._state(job), **further}
        row = (await execute_kept(connection, statement, values)).mapping()
        if row is None:
            raise LeaseLostError("job", (claim.id,))
        names = ("status", "retry_count", "run_at", "error", "finished_at", "cancellation_requested_at")
        self._end_of_claim(synchronous(connection), job, row, *names)
        return JobStatus(row["status"])

    def _mine(self, claim: JobClaim[Job]) -> dict[str, Any]:
        self._rows.check_class(claim.job)
        return {"job_id": claim.id, "of_type": self._type, "token": claim.token}

    def _ended(self, job: Job) -> Job:
        self._rows.check_class(job)
        ended = job.model_copy()
        if not ended.status.is_terminal:
            ended.mark_as_completed()
        return ended

    def _outcome(self, ended: Job, token: int) -> dict[str, Any]:
        values = {name: getattr(ended, name) for name in ("id", "total_items", "processed_items")}
        error = None if ended.error is None else shortened(ended.error)
        return {**values, "token": token, "outcome": ended.status, "error": error, "state": self._state(ended)}


def _names(queues: Collection[str]) -> list[str]:
    if isinstance(queues, str):
        raise ValueError(f"queues is the text {queues!r}: give a list of names")
    return list(queues)


def _progress(job: Job) -> dict[str, int]:
    return {"now_total_items": job.total_items, "now_processed_items": job.processed_items}


def _seconds(name: str, duration: timedelta, *, least: float = 1e-6) -> float:
    if not isinstance(duration, timedelta) or duration.total_seconds() < least:
        raise ValueError(f"{name} is {duration!r}: give a timedelta {'from' if least == 0 else 'above'} 0")
    return duration.total_seconds()
