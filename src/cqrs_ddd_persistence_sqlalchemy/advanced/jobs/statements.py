"""The statements of the job queue, built once for each table and database.

Statuses are written into them, not bound: only so do both databases see that a partial index will do.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from cqrs_ddd_advanced_core.background_jobs.status import JobStatus
from cqrs_ddd_persistence_sqlalchemy.core.dialect import DatabaseDialect, JSONText, dialect_named

if TYPE_CHECKING:
    from collections.abc import Collection

#: In the order in which the indexes spell them.
OVER = (JobStatus.CANCELLED, JobStatus.COMPLETED, JobStatus.FAILED)
LIVE = (JobStatus.PENDING, JobStatus.RUNNING)

#: Columns that a batch of new jobs brings along as they are.
NEW = (
    "id", "job_type", "queue", "status", "priority", "unique_key", "correlation_id", "total_items", "processed_items",
    "retry_count", "max_retries", "error", "state", "started_at", "finished_at",
)  # fmt: skip


def spelled(table: sa.Table, status: JobStatus) -> sa.ColumnElement[JobStatus]:
    """Return a status as a constant of the statement."""
    return sa.literal_column(f"'{status.value}'", table.c.status.type)


def has_status(table: sa.Table, statuses: Collection[JobStatus]) -> sa.ColumnElement[bool]:
    """Return the condition of having one of some statuses."""
    spellings = [spelled(table, status) for status in statuses]
    return table.c.status == spellings[0] if len(spellings) == 1 else table.c.status.in_(spellings)


def now_once(dialect: DatabaseDialect) -> Any:
    """Return the database's time as a subquery: a volatile function by itself would be no condition of an index."""
    return sa.select(dialect.now).scalar_subquery()


@lru_cache(maxsize=1024)
def claim(table: sa.Table, dialect_name: str, *, in_queues: bool) -> Any:
    """Take jobs that are due: the more important ones first, then those that are due longest."""
    dialect, columns = dialect_named(dialect_name), table.c
    due = _due(table, dialect, in_queues=in_queues)
    order = (columns.priority.desc(), columns.due_at, columns.id)
    wanted = sa.select(columns.id).where(*due).order_by(*order).limit(sa.bindparam("at_most", type_=sa.Integer()))
    taken = {
        "status": spelled(table, JobStatus.RUNNING),
        "worker_id": sa.bindparam("worker"),
        "lease_until": dialect.later(sa.bindparam("seconds", type_=sa.Double())),
        "started_at": dialect.now,
    }
    statement = sa.update(table).where(_among(wanted, table, dialect), has_status(table, [JobStatus.PENDING]))
    return statement.values({**taken, **_counted(table, dialect)}).returning(*columns)


@lru_cache(maxsize=1024)
def has_due(table: sa.Table, dialect_name: str, *, in_queues: bool) -> Any:
    """Tell whether there is a job to claim, or one to take back."""
    dialect = dialect_named(dialect_name)
    due = sa.exists(sa.select(1).where(*_due(table, dialect, in_queues=in_queues)))
    return sa.select(sa.or_(due, sa.exists(sa.select(1).where(*_expired(table, dialect)))))


@lru_cache(maxsize=1024)
def renew(table: sa.Table, dialect_name: str) -> Any:
    """Let a claim end later, and save how far its job is; the token stays.

    It goes by worker and attempt, not by the token: the work may save its job at the same time, in a transaction that
    has not ended yet.
    """
    dialect = dialect_named(dialect_name)
    later = dialect.later(sa.bindparam("seconds", type_=sa.Double()))
    values = {"lease_until": later, "updated_at": dialect.now, **_progress()}
    held = (
        table.c.id == sa.bindparam("job_id"),
        table.c.job_type == sa.bindparam("of_type"),
        table.c.worker_id == sa.bindparam("worker"),
        table.c.retry_count == sa.bindparam("failures_before"),
        has_status(table, [JobStatus.RUNNING]),
    )
    statement = sa.update(table).where(*held).values(values)
    return statement.returning(table.c.lease_until, table.c.cancellation_requested_at)


@lru_cache(maxsize=1024)
def complete(table: sa.Table, dialect_name: str) -> Any:
    """End the claimed jobs of a batch that is given as one JSON parameter, those that are not lost."""
    dialect, columns = dialect_named(dialect_name), table.c
    given = [columns.id, columns.error, columns.state, columns.total_items, columns.processed_items]
    further: list[sa.ColumnClause[Any]] = [sa.column("token", sa.BigInteger()), sa.column("outcome", sa.String(20))]
    rows = dialect.json_rows("batch", [*given, *further])
    values = {
        **{column.name: rows.c[column.name] for column in given[1:]},
        "status": rows.c.outcome,
        "finished_at": dialect.now,
        "lease_until": None,
        **_counted(table, dialect),
    }
    # As two comparisons these would tempt SQLite to go through all running jobs, and through the batch for each.
    held = sa.case((has_status(table, [JobStatus.RUNNING]), columns.job_type)) == sa.bindparam("of_type")
    statement = sa.update(table).where(columns.id == rows.c.id, columns.version == rows.c.token, held)
    return statement.values(values).returning(columns.id, columns.version, columns.finished_at)


@lru_cache(maxsize=1024)
def complete_and_claim(table: sa.Table, dialect_name: str, *, in_queues: bool) -> Any:
    """Do both in one statement; the rows of claimed jobs are told from those of completed ones by `is_claimed`."""
    completed = complete(table, dialect_name).cte("completed")
    claimed = claim(table, dialect_name, in_queues=in_queues).cte("claimed")
    rest = [
        completed.c[column.name] if column.name in completed.c else sa.null().label(column.name) for column in table.c
    ]
    due = sa.select(sa.true().label("is_claimed"), *claimed.c)
    return due.union_all(sa.select(sa.false().label("is_claimed"), *rest))


@lru_cache(maxsize=1024)
def fail(table: sa.Table, dialect_name: str) -> Any:
    """Give a claimed job back after a failure: to be tried again, or for good."""
    dialect = dialect_named(dialect_name)
    again, values = _given_back(table, dialect, counted=True)
    later = dialect.later(sa.bindparam("seconds", type_=sa.Double()))
    values |= {
        "error": sa.bindparam("text", type_=sa.Text()),
        "run_at": sa.case((again, later), else_=table.c.run_at),
        "due_at": sa.case((again, later), else_=table.c.due_at),
        "state": sa.bindparam("remembered", type_=table.c.state.type),
        **_progress(),
    }
    return sa.update(table).where(*_mine(table)).values(values).returning(*table.c)


@lru_cache(maxsize=1024)
def release(table: sa.Table, dialect_name: str) -> Any:
    """Give a claimed job back as if it had not been claimed; what it has remembered is kept."""
    _, values = _given_back(table, dialect_named(dialect_name), counted=False)
    values |= {"state": sa.bindparam("remembered", type_=table.c.state.type), **_progress()}
    return sa.update(table).where(*_mine(table)).values(values).returning(*table.c)


@lru_cache(maxsize=1024)
def release_expired(table: sa.Table, dialect_name: str) -> Any:
    """Give jobs back whose lease has ended: the attempt has come to nothing."""
    dialect, columns = dialect_named(dialect_name), table.c
    wanted = sa.select(columns.id).where(*_expired(table, dialect)).order_by(columns.lease_until, columns.id)
    wanted = wanted.limit(sa.bindparam("at_most", type_=sa.Integer()))
    _, values = _given_back(table, dialect, counted=True)
    values["error"] = sa.bindparam("text", type_=sa.Text())
    is_running = has_status(table, [JobStatus.RUNNING])
    statement = sa.update(table).where(_among(wanted, table, dialect), is_running).values(values)
    return statement.returning(columns.id, columns.status, columns.worker_id)


@lru_cache(maxsize=1024)
def enqueue(table: sa.Table, dialect_name: str, *, one: bool = False) -> Any:
    """Insert a batch of new jobs, but for those that another row stands in the way of; with `one`, a single job."""
    dialect = dialect_named(dialect_name)
    types = {name: _unlimited(table.c[name].type) for name in (*NEW, "run_at")} | {"state": JSONText()}
    types |= {"row_number": sa.BigInteger(), "delay": sa.Double()}
    if one:
        rows: sa.FromClause = sa.select(
            *(sa.bindparam(name, type_=type_).label(name) for name, type_ in types.items())
        ).subquery("rows")
    else:
        rows = dialect.batch_rows([sa.column(name, type_) for name, type_ in types.items()])
    now = now_once(dialect)
    run_at = sa.func.coalesce(rows.c.run_at, dialect.later(rows.c.delay))
    times = {"run_at": run_at, "due_at": sa.func.coalesce(run_at, now), "created_at": now, "updated_at": now}
    values = [*(rows.c[name] for name in NEW), *times.values(), sa.literal_column("1")]
    source = sa.select(*values).where(sa.literal_column("1") == sa.literal_column("1")).order_by(rows.c.row_number)
    insert = dialect.insert(table).from_select([*NEW, *times, "version"], source)
    return insert.on_conflict_do_nothing().returning(table.c.id, table.c.run_at)


def _unlimited(type_: sa.types.TypeEngine[Any]) -> sa.types.TypeEngine[Any]:
    """Return a type that cuts nothing off, as PostgreSQL does in a cast: a column refuses what is too long for it."""
    return sa.Text() if type(type_) is sa.String else type_


@lru_cache(maxsize=1024)
def request_cancellation(table: sa.Table, dialect_name: str) -> Any:
    """Cancel a job that waits; ask one that runs to stop, without taking it from whoever runs it. Of any class."""
    dialect, columns = dialect_named(dialect_name), table.c
    waits = has_status(table, [JobStatus.PENDING])
    values = {
        "status": sa.case((waits, spelled(table, JobStatus.CANCELLED)), else_=columns.status),
        "cancellation_requested_at": sa.func.coalesce(columns.cancellation_requested_at, dialect.now),
        "finished_at": sa.case((waits, dialect.now), else_=columns.finished_at),
        "updated_at": sa.case((waits, dialect.now), else_=columns.updated_at),
        "version": sa.case((waits, columns.version + 1), else_=columns.version),
    }
    return sa.update(table).where(columns.id == sa.bindparam("job_id"), has_status(table, LIVE)).values(values)


@lru_cache(maxsize=1024)
def last_tick(schedules: sa.Table) -> sa.Select[Any]:
    """Read up to which tick the jobs of a schedule are enqueued."""
    return sa.select(schedules.c.last_tick_at).where(schedules.c.name == sa.bindparam("schedule"))


@lru_cache(maxsize=1024)
def begin_schedule(schedules: sa.Table, dialect_name: str) -> Any:
    """Remember a tick of a schedule that nobody knows yet."""
    values: dict[str, Any] = {"name": sa.bindparam("schedule"), "last_tick_at": sa.bindparam("tick")}
    return dialect_named(dialect_name).insert(schedules).values(values).on_conflict_do_nothing()


@lru_cache(maxsize=1024)
def advance_schedule(schedules: sa.Table) -> sa.Update:
    """Remember a tick that is newer than the last; of several who try, one writes a row."""
    tick = sa.bindparam("tick", type_=schedules.c.last_tick_at.type)
    is_it = (schedules.c.name == sa.bindparam("schedule"), schedules.c.last_tick_at < tick)
    return sa.update(schedules).where(*is_it).values(last_tick_at=tick)


def _due(table: sa.Table, dialect: DatabaseDialect, *, in_queues: bool) -> list[sa.ColumnElement[bool]]:
    columns = table.c
    due = [
        has_status(table, [JobStatus.PENDING]),
        columns.job_type == sa.bindparam("of_type"),
        columns.due_at <= now_once(dialect),
    ]
    if in_queues:
        due.append(columns.queue.in_(sa.bindparam("queues", expanding=True)))
    return due


def _expired(table: sa.Table, dialect: DatabaseDialect) -> list[sa.ColumnElement[bool]]:
    is_running = has_status(table, [JobStatus.RUNNING])
    return [is_running, table.c.job_type == sa.bindparam("of_type"), table.c.lease_until <= now_once(dialect)]


def _mine(table: sa.Table) -> tuple[sa.ColumnElement[bool], ...]:
    """Return what a row is like as long as the claim with `token` holds."""
    return (
        table.c.id == sa.bindparam("job_id"),
        table.c.job_type == sa.bindparam("of_type"),
        table.c.version == sa.bindparam("token"),
        has_status(table, [JobStatus.RUNNING]),
    )


def _among(wanted: sa.Select[Any], table: sa.Table, dialect: DatabaseDialect) -> sa.ColumnElement[bool]:
    # Materialized: planned as a subquery, PostgreSQL may run it once for each row, and take more than the limit.
    limited = dialect.skip_locked(wanted).cte("wanted").prefix_with("MATERIALIZED")
    return table.c.id.in_(sa.select(limited.c.id))


def _given_back(
    table: sa.Table, dialect: DatabaseDialect, *, counted: bool
) -> tuple[sa.ColumnElement[bool], dict[str, Any]]:
    """Return whether a job goes back into the queue, and what becomes of it. One that shall be cancelled never does."""
    columns = table.c
    shall_stop = columns.cancellation_requested_at.is_not(None)
    again: sa.ColumnElement[bool] = columns.cancellation_requested_at.is_(None)
    if counted:
        again = sa.and_(again, columns.retry_count < columns.max_retries)
    outcomes = ((again, spelled(table, JobStatus.PENDING)), (shall_stop, spelled(table, JobStatus.CANCELLED)))
    values: dict[str, Any] = {
        "status": sa.case(*outcomes, else_=spelled(table, JobStatus.FAILED)),
        "finished_at": sa.case((again, sa.null()), else_=dialect.now),
        "lease_until": None,
        **_counted(table, dialect),
    }
    if counted:
        values["retry_count"] = sa.case((again, columns.retry_count + 1), else_=columns.retry_count)
    return again, values


def _counted(table: sa.Table, dialect: DatabaseDialect) -> dict[str, Any]:
    return {"version": table.c.version + 1, "updated_at": dialect.now}


def _progress() -> dict[str, Any]:
    return {name: sa.bindparam(f"now_{name}", type_=sa.BigInteger()) for name in ("total_items", "processed_items")}
