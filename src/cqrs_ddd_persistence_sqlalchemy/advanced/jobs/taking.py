"""Taking jobs that are due, and taking those back whose workers are gone."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from cqrs_ddd_advanced_core.background_jobs.entity import BaseBackgroundJob
from cqrs_ddd_advanced_core.error_text import described, shortened
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs import statements
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.claims import JobClaim
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.rows import Job, JobRows
from cqrs_ddd_persistence_sqlalchemy.core.alone import is_alone
from cqrs_ddd_persistence_sqlalchemy.core.dialect import execute_kept

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable, Mapping

    from sqlalchemy.ext.asyncio import AsyncConnection

logger = logging.getLogger(__name__)

_CRASHED = "the lease ended before the job did: its worker has crashed, hangs, or was cut off"


class TakenJobs(JobRows[Job]):
    """Moves jobs between the queue and their workers, inside a transaction."""

    async def _take(self, connection: AsyncConnection, values: Mapping[str, Any]) -> builtins.list[JobClaim[Job]]:
        statement = statements.claim(self._rows.table, connection.dialect.name, in_queues="queues" in values)
        return await self._taken(connection, (await execute_kept(connection, statement, values)).mappings())

    async def _taken(self, connection: AsyncConnection, rows: Iterable[dict[str, Any]]) -> builtins.list[JobClaim[Job]]:
        """Return the claims of rows that are taken, in the order in which they were due."""
        claims, are_committed = [], is_alone(connection)
        for row in sorted(rows, key=lambda row: (-row["priority"], row["due_at"], row["id"])):
            try:
                job = self._entity(row)
            except Exception as error:  # whatever a class that has changed raises; the others are claimed already
                logger.exception("job %r cannot be loaded as %s", row["id"], self._type)
                await self._set_aside(connection, row, error, are_committed=are_committed)
            else:
                claims.append(JobClaim(job, row["worker_id"], job.retry_count + 1, row["lease_until"]))
        return claims

    async def _set_aside(
        self, connection: AsyncConnection, row: Mapping[str, Any], error: Exception, *, are_committed: bool
    ) -> None:
        """Count the attempt at a job that cannot be loaded as failed; another version of the class may load it."""
        values = {
            "job_id": row["id"],
            "of_type": self._type,
            "token": row["version"],
            "seconds": BaseBackgroundJob(retry_count=row["retry_count"]).next_delay().total_seconds(),
            "text": shortened(f"cannot be loaded as {self._type}: {described(error)}"),
            "remembered": row["state"],
            "now_total_items": row["total_items"],
            "now_processed_items": row["processed_items"],
        }
        try:
            await execute_kept(connection, statements.fail(self._rows.table, connection.dialect.name), values)
        except DBAPIError:
            if not are_committed:
                raise
            # What was claimed with it is committed: it must get to its worker. This one's lease ends by itself.
            logger.exception("job %r cannot be given back", row["id"])

    async def _take_back(self, connection: AsyncConnection, limit: int) -> int:
        statement = statements.release_expired(self._rows.table, connection.dialect.name)
        values = {"of_type": self._type, "at_most": limit, "text": _CRASHED}
        rows = (await execute_kept(connection, statement, values)).rows
        for job_id, status, worker_id in rows:
            logger.warning("job %r is taken back from worker %r, and is %s now", job_id, worker_id, status)
        return len(rows)
