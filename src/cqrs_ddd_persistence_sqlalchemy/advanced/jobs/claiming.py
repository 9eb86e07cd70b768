"""What workers on many machines need: each job is given to one of them, and taken back from those that are gone."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from cqrs_ddd_persistence_sqlalchemy.advanced.jobs import statements
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.claims import JobClaim, Succession
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.ending import EndedJobs, progress, seconds_of
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.rows import Job
from cqrs_ddd_persistence_sqlalchemy.core.alone import is_alone
from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_of, execute_kept
from cqrs_ddd_persistence_sqlalchemy.core.scope import repeated
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_count, check_id
from cqrs_ddd_persistence_sqlalchemy.exceptions import LeaseLostError

if TYPE_CHECKING:
    import builtins
    from collections.abc import Collection, Iterable
    from datetime import timedelta

    from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork

logger = logging.getLogger(__name__)


class ClaimedJobs(EndedJobs[Job]):
    """Gives jobs to workers, each to one."""

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
        values = self._claim_values(limit, worker_id, lease, queues)
        async with self._scope.write(uow, single=True) as connection:
            are_committed = is_alone(connection)
            claims = await self._take(connection, values)
            try:
                if len(claims) < limit and await self._take_back(connection, limit - len(claims)):
                    more = {**values, "at_most": limit - len(claims)}
                    claims += await self._take(connection, more)
            except DBAPIError:
                if not claims or not are_committed:
                    raise
                logger.exception("claiming more jobs failed; those that are claimed and committed are returned")
        return claims

    @repeated
    async def complete_and_claim(
        self,
        claims: JobClaim[Job] | Iterable[JobClaim[Job]],
        limit: int = 1,
        *,
        worker_id: str,
        lease: timedelta,
        queues: Collection[str] | None = None,
        uow: SQLAlchemyUnitOfWork | None = None,
    ) -> Succession[Job]:
        """Do what `complete` and then `claim` do, in one transaction: for the loop of a worker.

        Nothing is taken back from workers that are gone: where too few jobs are due, `claim` does that.

        Args:
            claims: to complete, one or any number.
            limit: claim at most so many.
            worker_id: as for `claim`.
            lease: as for `claim`.
            queues: as for `claim`.
            uow: joined when open.

        Returns:
            The jobs claimed, and the ids of those whose claims were lost: nothing is written of these.

        Raises:
            ValueError: naming what makes no sense, or cannot be stored. Nothing is completed or claimed.
        """
        to_claim = self._claim_values(limit, worker_id, lease, queues)
        given, table = [claims] if isinstance(claims, JobClaim) else list(claims), self._rows.table
        to_complete, ends = self._to_complete(given)
        async with self._scope.write(uow, single=lambda dialect: dialect.has_writing_ctes) as connection:
            dialect = dialect_of(connection)
            if dialect.has_writing_ctes:
                both = statements.complete_and_claim(table, dialect.name, in_queues=queues is not None)
                rows = (await execute_kept(connection, both, to_claim | to_complete)).mappings()
                completed = self._completed(connection, given, ends, [row for row in rows if not row["is_claimed"]])
                taken = await self._taken(connection, [row for row in rows if row["is_claimed"]])
            else:
                answer = await execute_kept(connection, statements.complete(table, dialect.name), to_complete)
                completed = self._completed(connection, given, ends, answer.mappings())
                taken = await self._take(connection, to_claim)
        return Succession(taken, tuple(claim.id for claim in given if claim.id not in completed))

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
            "seconds": seconds_of("lease", lease),
            **progress(claim.job),
        }
        async with self._scope.write(uow, single=True) as connection:
            statement = statements.renew(self._rows.table, connection.dialect.name)
            row = (await execute_kept(connection, statement, values)).mapping()
            if row is None:
                raise LeaseLostError("job", (claim.id,))
        claim.lease_until = row["lease_until"]
        vars(claim.job)["cancellation_requested_at"] = row["cancellation_requested_at"]
        return row["cancellation_requested_at"] is not None

    @repeated
    async def release_expired(self, limit: int = 100, *, uow: SQLAlchemyUnitOfWork | None = None) -> int:
        """Take jobs back whose lease has ended, and return how many they were.

        The attempt has come to nothing: a job goes back into the queue while attempts are left, else it is FAILED.
        """
        check_count("limit", limit)
        async with self._scope.write(uow, single=True) as connection:
            return await self._take_back(connection, limit)

    def _claim_values(
        self, limit: int, worker_id: str, lease: timedelta, queues: Collection[str] | None
    ) -> dict[str, Any]:
        values: dict[str, Any] = {
            "of_type": self._type,
            "worker": check_id("worker_id", worker_id),
            "seconds": seconds_of("lease", lease),
            "at_most": check_count("limit", limit),
        }
        return values if queues is None else {**values, "queues": _names(queues)}


def _names(queues: Collection[str]) -> list[str]:
    if isinstance(queues, str):
        raise ValueError(f"queues is the text {queues!r}: give a list of names")
    return list(queues)
