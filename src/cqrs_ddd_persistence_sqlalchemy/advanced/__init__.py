"""Stores for the patterns around the event store, and what runs them: projections, sagas, snapshots, jobs."""

from __future__ import annotations

from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.claims import JobClaim, Succession
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.control import JobCounts, JobInfo, SQLAlchemyJobControl
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.periodic import Periodic
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.repository import SQLAlchemyBackgroundJobRepository
from cqrs_ddd_persistence_sqlalchemy.advanced.jobs.worker import JobWorker
from cqrs_ddd_persistence_sqlalchemy.advanced.positions import SQLAlchemyProjectionPositionStore
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.store import SQLAlchemyProjectionStore
from cqrs_ddd_persistence_sqlalchemy.advanced.running.control import ProjectionStatus, SQLAlchemyProjectionControl
from cqrs_ddd_persistence_sqlalchemy.advanced.running.dead_letters import DeadLetter, SQLAlchemyDeadLetterStore
from cqrs_ddd_persistence_sqlalchemy.advanced.running.runner import ProjectionRunner
from cqrs_ddd_persistence_sqlalchemy.advanced.sagas.control import SagaCounts, SagaInfo, SQLAlchemySagaControl
from cqrs_ddd_persistence_sqlalchemy.advanced.sagas.repository import SQLAlchemySagaRepository
from cqrs_ddd_persistence_sqlalchemy.advanced.sagas.runner import SagaRunner
from cqrs_ddd_persistence_sqlalchemy.advanced.snapshots import SQLAlchemySnapshotStore

__all__ = [
    "DeadLetter",
    "JobClaim",
    "JobCounts",
    "JobInfo",
    "JobWorker",
    "Periodic",
    "ProjectionRunner",
    "ProjectionStatus",
    "SQLAlchemyBackgroundJobRepository",
    "SQLAlchemyDeadLetterStore",
    "SQLAlchemyJobControl",
    "SQLAlchemyProjectionControl",
    "SQLAlchemyProjectionPositionStore",
    "SQLAlchemyProjectionStore",
    "SQLAlchemySagaControl",
    "SQLAlchemySagaRepository",
    "SQLAlchemySnapshotStore",
    "SagaCounts",
    "SagaInfo",
    "SagaRunner",
    "Succession",
]
