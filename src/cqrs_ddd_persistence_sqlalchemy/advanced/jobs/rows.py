"""Jobs to rows and back."""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from cqrs_ddd_advanced_core.background_jobs.entity import BaseBackgroundJob
from cqrs_ddd_advanced_core.background_jobs.status import JobStatus
from cqrs_ddd_advanced_core.error_text import shortened
from cqrs_ddd_advanced_core.storable import BIGINT_MAX, INTEGER_MAX
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.statements import spelled
from cqrs_ddd_persistence_sqlalchemy.advanced.models import BackgroundJobModel
from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_of
from cqrs_ddd_persistence_sqlalchemy.core.json_documents import (
    DocumentText,
    are_plain_texts,
    check_text,
    to_document_and_text,
)
from cqrs_ddd_persistence_sqlalchemy.core.mapping import dumped, stored_version, validated
from cqrs_ddd_persistence_sqlalchemy.core.repository import SQLAlchemyRepository
from cqrs_ddd_persistence_sqlalchemy.core.undoing import on_rollback
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_aware

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta

    from sqlalchemy.ext.asyncio import AsyncConnection

    from cqrs_ddd_persistence_sqlalchemy.core.joining import SessionFactory
    from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork

Job = TypeVar("Job", bound=BaseBackgroundJob)

#: The fields that have columns; all others are part of the state.
IN_COLUMNS = (
    "id", "status", "queue", "priority", "run_at", "unique_key", "correlation_id", "total_items", "processed_items",
    "retry_count", "max_retries", "error", "started_at", "finished_at", "cancellation_requested_at",
)  # fmt: skip
_IN_COLUMNS = set(IN_COLUMNS)
_TEXTS = ("id", "queue", "unique_key", "correlation_id")
_TIMES = ("run_at", "started_at", "finished_at")
_WHOLE = {
    "priority": INTEGER_MAX, "total_items": BIGINT_MAX, "processed_items": BIGINT_MAX, "retry_count": INTEGER_MAX,
    "max_retries": INTEGER_MAX,
}  # fmt: skip


class JobRows(SQLAlchemyRepository[Job, str]):
    """Stores jobs of one class in the table `jobs`, which classes share without meeting each other."""

    _has_own_model = True

    def __init__(
        self,
        job_cls: type[Job],
        uow_factory: Callable[[], SQLAlchemyUnitOfWork] | None,
        session_factory: SessionFactory | None,
        schema: str | None,
    ) -> None:
        super().__init__(job_cls, BackgroundJobModel, uow_factory, session_factory=session_factory, schema=schema)
        self.job_cls = job_cls
        self._type = job_cls.__name__

    def _values(self, entity: Job) -> dict[str, Any]:
        """Return what has a column, and the rest as the job's state.

        Raises:
            ValueError: naming what cannot be stored.
        """
        return {**self._in_columns(entity), "state": self._state(entity)}

    def _quick_values(self, entity: Job) -> dict[str, Any]:
        return {**self._in_columns(entity), "state": DocumentText(self._state_and_text(entity)[1])}

    def _in_columns(self, entity: Job) -> dict[str, Any]:
        values = {name: getattr(entity, name) for name in IN_COLUMNS}
        for name in _TEXTS:
            check_text(values[name] or "", name)
        if values["error"] is not None:
            values["error"] = shortened(values["error"])
        if values["cancellation_requested_at"] is None:
            del values["cancellation_requested_at"]  # somebody may have asked for it meanwhile
        if entity.status is not JobStatus.RUNNING:
            values["lease_until"] = None
        return {"job_type": self._type, **values}

    def _quick_columns(self, jobs: Sequence[Job]) -> dict[str, Sequence[Any]]:
        """Return what enqueueing takes of new jobs, column by column."""
        columns: dict[str, Sequence[Any]] = {name: list(map(attrgetter(name), jobs)) for name in IN_COLUMNS}
        del columns["cancellation_requested_at"]
        for name in _TEXTS:
            given = [value for value in columns[name] if value]
            if not are_plain_texts(given):
                for value in given:
                    check_text(value, name)
        errors = [error if error is None else shortened(error) for error in columns["error"]]
        states = [DocumentText(self._state_and_text(job)[1]) for job in jobs]
        return columns | {"job_type": [self._type] * len(jobs), "error": errors, "state": states}

    def _made_of(self, model: Any) -> Job:
        """Return the job; columns take precedence over what the state may say of them."""
        values = {**(model.state or {}), **{name: getattr(model, name) for name in IN_COLUMNS}}
        return validated(self._entity_cls, {**values, "status": JobStatus(model.status)})

    def _state(self, job: Job) -> dict[str, Any]:
        return self._state_and_text(job)[0]

    def _state_and_text(self, job: Job) -> tuple[dict[str, Any], str]:
        return to_document_and_text(dumped(job, exclude=_IN_COLUMNS), "state")

    def _conditions(self) -> tuple[sa.ColumnElement[bool], ...]:
        return (self._rows.columns["job_type"] == self._type,)

    def _computed(self, entity: Job, connection: AsyncConnection) -> dict[str, Any]:
        dialect, columns = dialect_of(connection), self._rows.columns
        values: dict[str, Any] = {"due_at": dialect.now}
        is_stored = stored_version(entity) is not None
        if entity.delay is not None:
            values["run_at"] = values["due_at"] = dialect.later(sa.literal(entity.delay.total_seconds(), sa.Double()))
        elif entity.run_at is not None:
            values["due_at"] = entity.run_at
        elif is_stored:  # it keeps its place in the queue
            values["due_at"] = sa.case((columns["due_at"] > dialect.now, dialect.now), else_=columns["due_at"])
        if is_stored and entity.status is JobStatus.PENDING:
            shall_stop = columns["cancellation_requested_at"].is_not(None)
            cancelled = spelled(self._rows.table, JobStatus.CANCELLED)
            values["status"] = sa.case((shall_stop, cancelled), else_=spelled(self._rows.table, JobStatus.PENDING))
            values["finished_at"] = sa.case((shall_stop, dialect.now), else_=sa.null())
        return values

    def _is_written_at_once(self, entity: Job) -> bool:
        return entity.status is not JobStatus.PENDING or (stored_version(entity) is None and entity.delay is None)

    async def _written(self, connection: AsyncConnection, entity: Job) -> None:
        is_new = stored_version(entity) == 1
        if entity.status is not JobStatus.PENDING or (is_new and entity.delay is None):
            return
        names = ("status", "run_at", "finished_at", "cancellation_requested_at")
        statement = sa.select(*(self._rows.columns[name] for name in names)).where(self._rows.key == entity.id)
        row = (await connection.execute(statement)).mappings().one()
        self._tell(connection, entity, dict(row))

    def _tell(self, connection: AsyncConnection, job: Job, changes: Mapping[str, Any]) -> None:
        """Let a job know what the database has made of it, and forget it when that is rolled back."""
        before, delay = {name: getattr(job, name) for name in changes}, job.delay

        def become(values: Mapping[str, Any], delay: timedelta | None) -> None:
            vars(job).update(values)  # past the validators, which might refuse what is half done
            job.set_run_at(job.run_at, delay=delay)

        become(changes, None)
        on_rollback(connection, partial(become, before, delay))

    def _end_of_claim(self, connection: AsyncConnection, job: Job, row: Mapping[str, Any], *names: str) -> None:
        """Let a job know how its claim has ended, and with which version it is stored."""
        self._stamp(connection, job, row["version"])
        self._tell(connection, job, {name: row[name] for name in names})


def check_columns(columns: Mapping[str, Sequence[Any]]) -> None:
    """Refuse numbers and times that one of the databases would refuse, or store as others.

    Raises:
        ValueError: naming the first one.
    """
    for name, most in _WHOLE.items():
        values = columns[name]
        if set(map(type, values)) == {int} and -most <= min(values) and max(values) <= most:
            continue
        for value in values:
            if not isinstance(value, int) or isinstance(value, bool) or not -most <= value <= most:
                raise ValueError(f"{name} must be a whole number from {-most} to {most}, not {value!r}")
    for name in _TIMES:
        for value in filter(None, columns[name]):
            check_aware(name, value)
