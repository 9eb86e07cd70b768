"""The tables of the advanced stores, as SQLAlchemy knows them."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003  (SQLAlchemy reads the annotations)
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from cqrs_ddd_advanced_core.background_jobs.status import JobStatus
from cqrs_ddd_advanced_core.sagas.status import SagaStatus
from cqrs_ddd_persistence_sqlalchemy.core.dialect import JSONDocument, UTCDateTime
from cqrs_ddd_persistence_sqlalchemy.core.models import ID_LENGTH, Base


def positions_table(name: str, metadata: sa.MetaData) -> sa.Table:
    """Return a table of projection positions, the library's own or an application's with another name."""
    return sa.Table(
        name,
        metadata,
        sa.Column("projection_name", sa.String(ID_LENGTH), primary_key=True),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", UTCDateTime(), nullable=False, server_default=sa.text("CURRENT_TIMESTAMP")),
    )


projection_positions = positions_table("projection_positions", Base.metadata)

#: One row a projection that a runner has worked on: who runs it, until when, and what stands in its way.
projection_runs = sa.Table(
    "projection_runs",
    Base.metadata,
    sa.Column("projection_name", sa.String(ID_LENGTH), primary_key=True),
    # Counts the owners: what an earlier one writes later is refused.
    sa.Column("token", sa.BigInteger(), nullable=False),
    sa.Column("owner", sa.String(ID_LENGTH)),
    sa.Column("lease_until", UTCDateTime()),
    sa.Column("paused_at", UTCDateTime()),
    # The last failure, at this position so many times in a row.
    sa.Column("error", sa.Text()),
    sa.Column("error_position", sa.BigInteger()),
    sa.Column("failures", sa.Integer(), nullable=False, server_default=sa.text("0")),
    # What a rebuild is made from, which goes on only with the same.
    sa.Column("source_fingerprint", sa.String(64)),
)

#: The events that a projection could not handle and went on without, and those behind them in the same streams.
projection_dead_letters = sa.Table(
    "projection_dead_letters",
    Base.metadata,
    sa.Column("projection_name", sa.String(ID_LENGTH), primary_key=True),
    sa.Column("event_position", sa.BigInteger(), primary_key=True, autoincrement=False),
    sa.Column("event_id", sa.String(ID_LENGTH), nullable=False),
    sa.Column("event_type", sa.String(ID_LENGTH), nullable=False),
    sa.Column("aggregate_id", sa.String(ID_LENGTH), nullable=False),
    sa.Column("error", sa.Text(), nullable=False),
    sa.Column("failures", sa.Integer(), nullable=False),
    sa.Column("parked_at", UTCDateTime(), nullable=False, server_default=sa.text("CURRENT_TIMESTAMP")),
    sa.Column("replay_requested_at", UTCDateTime()),
    sa.Index("ix_projection_dead_letters_stream", "projection_name", "aggregate_id", "event_position"),
)

#: What aggregates were like at some of their versions.
snapshots = sa.Table(
    "snapshots",
    Base.metadata,
    sa.Column("aggregate_type", sa.String(ID_LENGTH), primary_key=True),
    sa.Column("aggregate_id", sa.String(ID_LENGTH), primary_key=True),
    sa.Column("version", sa.BigInteger(), primary_key=True, autoincrement=False),
    sa.Column("snapshot_data", JSONDocument, nullable=False),
    # Of the class that wrote it; NULL where the application does not count them.
    sa.Column("schema_version", sa.BigInteger()),
    sa.Column("created_at", UTCDateTime(), nullable=False, server_default=sa.text("CURRENT_TIMESTAMP")),
)


#: The ticks of periodic jobs: up to which one, of each schedule, they have been enqueued.
job_schedules = sa.Table(
    "job_schedules",
    Base.metadata,
    sa.Column("name", sa.String(ID_LENGTH), primary_key=True),
    sa.Column("last_tick_at", UTCDateTime(), nullable=False),
)


def _only_where(condition: str) -> dict[str, Any]:
    """Return the options of an index over some rows only. Statements must spell the condition in the same way."""
    return {"postgresql_where": sa.text(condition), "sqlite_where": sa.text(condition)}


class SagaStateModel(Base):
    """A saga: its state without the history, the history, and what is looked for in columns of its own."""

    __tablename__ = "sagas"

    id: Mapped[str] = mapped_column(sa.String(ID_LENGTH), primary_key=True)
    saga_type: Mapped[str] = mapped_column(sa.String(ID_LENGTH), nullable=False)
    correlation_id: Mapped[str | None] = mapped_column(sa.String(ID_LENGTH))
    status: Mapped[SagaStatus] = mapped_column(
        sa.Enum(SagaStatus, native_enum=False, length=20, create_constraint=False), nullable=False
    )
    state: Mapped[dict[str, Any]] = mapped_column(JSONDocument, nullable=False)
    events: Mapped[list[dict[str, Any]]] = mapped_column(JSONDocument, nullable=False)
    timeout_at: Mapped[datetime | None] = mapped_column(UTCDateTime())
    #: Until when a worker that has claimed it may be at work.
    lease_until: Mapped[datetime | None] = mapped_column(UTCDateTime())
    version: Mapped[int] = mapped_column(sa.BigInteger(), nullable=False)
    created_at: Mapped[datetime] = mapped_column(
        UTCDateTime(), nullable=False, server_default=sa.text("CURRENT_TIMESTAMP")
    )
    updated_at: Mapped[datetime] = mapped_column(
        UTCDateTime(), nullable=False, server_default=sa.text("CURRENT_TIMESTAMP")
    )

    __table_args__ = (
        sa.UniqueConstraint("saga_type", "correlation_id"),
        sa.Index("ix_sagas_type_status_updated_at", "saga_type", "status", "updated_at"),
        sa.Index(
            "ix_sagas_deadlines",
            "saga_type",
            "timeout_at",
            **_only_where("status = 'SUSPENDED' AND timeout_at IS NOT NULL"),
        ),
        sa.Index(
            "ix_sagas_due",
            "saga_type",
            "lease_until",
            **_only_where("status IN ('RUNNING', 'COMPENSATING')"),
        ),
    )


class BackgroundJobModel(Base):
    """A job: what queues and workers look at in columns of its own, and the rest as its state."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(sa.String(ID_LENGTH), primary_key=True)
    job_type: Mapped[str] = mapped_column(sa.String(ID_LENGTH), nullable=False)
    queue: Mapped[str] = mapped_column(sa.String(ID_LENGTH), nullable=False)
    status: Mapped[JobStatus] = mapped_column(
        sa.Enum(JobStatus, native_enum=False, length=20, create_constraint=False), nullable=False
    )
    priority: Mapped[int] = mapped_column(sa.Integer(), nullable=False)
    #: What was asked for; NULL for at once.
    run_at: Mapped[datetime | None] = mapped_column(UTCDateTime())
    #: What the queue goes by: `run_at`, or when the job was put into the queue.
    due_at: Mapped[datetime] = mapped_column(UTCDateTime(), nullable=False)
    unique_key: Mapped[str | None] = mapped_column(sa.String(ID_LENGTH))
    correlation_id: Mapped[str | None] = mapped_column(sa.String(ID_LENGTH))
    total_items: Mapped[int] = mapped_column(sa.BigInteger(), nullable=False)
    processed_items: Mapped[int] = mapped_column(sa.BigInteger(), nullable=False)
    retry_count: Mapped[int] = mapped_column(sa.Integer(), nullable=False)
    max_retries: Mapped[int] = mapped_column(sa.Integer(), nullable=False)
    error: Mapped[str | None] = mapped_column(sa.Text())
    state: Mapped[dict[str, Any]] = mapped_column(JSONDocument, nullable=False)
    started_at: Mapped[datetime | None] = mapped_column(UTCDateTime())
    finished_at: Mapped[datetime | None] = mapped_column(UTCDateTime())
    cancellation_requested_at: Mapped[datetime | None] = mapped_column(UTCDateTime())
    #: Who has claimed it last, and until when it is that worker's.
    worker_id: Mapped[str | None] = mapped_column(sa.String(ID_LENGTH))
    lease_until: Mapped[datetime | None] = mapped_column(UTCDateTime())
    version: Mapped[int] = mapped_column(sa.BigInteger(), nullable=False)
    created_at: Mapped[datetime] = mapped_column(
        UTCDateTime(), nullable=False, server_default=sa.text("CURRENT_TIMESTAMP")
    )
    updated_at: Mapped[datetime] = mapped_column(
        UTCDateTime(), nullable=False, server_default=sa.text("CURRENT_TIMESTAMP")
    )

    __table_args__ = (
        # In the order in which they are taken, of all queues and of one. The status is a column of these, though always
        # the same: SQLite would else prefer the index below, which knows it, and sort.
        sa.Index(
            "ix_jobs_due",
            *("job_type", "status", priority.desc(), "due_at", "id"),
            **_only_where("status = 'PENDING'"),
        ),
        sa.Index(
            "ix_jobs_due_in_queue",
            *("job_type", "status", "queue", priority.desc(), "due_at", "id"),
            **_only_where("status = 'PENDING'"),
        ),
        sa.Index("ix_jobs_leases", "job_type", "status", "lease_until", "id", **_only_where("status = 'RUNNING'")),
        sa.Index(
            "ix_jobs_over",
            *("job_type", "updated_at"),
            **_only_where("status IN ('CANCELLED', 'COMPLETED', 'FAILED')"),
        ),
        sa.Index("ix_jobs_type_status_created_at", "job_type", "status", "created_at", "id"),
        sa.Index(
            "uq_jobs_live_unique_key",
            *("job_type", "unique_key"),
            unique=True,
            **_only_where("status IN ('PENDING', 'RUNNING')"),
        ),
    )
