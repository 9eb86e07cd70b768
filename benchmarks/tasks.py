"""A job without anything to do, and its row by hand."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from benchmarks.raw_events import as_time, dumps
from cqrs_ddd_advanced_core.background_jobs.entity import BaseBackgroundJob, JobStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The fields that have columns, in the order in which the raw sides write them.
COLUMNS = (
    "id", "queue", "status", "priority", "run_at", "unique_key", "correlation_id", "total_items", "processed_items",
    "retry_count", "max_retries", "error", "started_at", "finished_at", "cancellation_requested_at",
)  # fmt: skip
_TIMES = ("run_at", "started_at", "finished_at", "cancellation_requested_at")
SELECTED = ", ".join((*COLUMNS, "state", "version", "lease_until"))


class Task(BaseBackgroundJob):
    """A job without anything to do."""

    order_id: str = "order-17"
    amount: str = "35.00"

    async def execute(self) -> None:
        """Do nothing."""


def state_of(job: Task) -> str:
    """Return what has no column, as JSON."""
    return dumps(job.model_dump(mode="json", exclude=set(COLUMNS)))


def values_of(job: Task) -> tuple[Any, ...]:
    """Return the values of COLUMNS without times, which a new job has none of, the state at the end."""
    return (
        job.id, job.queue, job.status.value, job.priority, job.unique_key, job.correlation_id, job.total_items,
        job.processed_items, job.retry_count, job.max_retries, job.error, state_of(job),
    )  # fmt: skip


WRITTEN = (
    "id", "queue", "status", "priority", "unique_key", "correlation_id", "total_items", "processed_items",
    "retry_count", "max_retries", "error", "state",
)  # fmt: skip


def loaded(row: Sequence[Any], *, from_sqlite: bool) -> tuple[Task, int]:
    """Return the job and the version of a row of SELECTED."""
    values = dict(zip(COLUMNS, row[:15], strict=True))
    if from_sqlite:
        values |= {name: as_time(values[name]) for name in _TIMES if values[name] is not None}
    values["status"] = JobStatus(values["status"])
    state = json.loads(row[15])
    state["created_at"] = datetime.fromisoformat(state["created_at"])
    return Task.model_construct(**{**state, **values}), row[16]
