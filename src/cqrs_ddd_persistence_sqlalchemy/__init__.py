"""Persistence for CQRS and event-sourced services on async SQLAlchemy, its schema owned by Alembic revisions."""

from __future__ import annotations

from cqrs_ddd_persistence_sqlalchemy.advanced.models import SagaStateModel
from cqrs_ddd_persistence_sqlalchemy.core import (
    SQLAlchemyEventStore,
    SQLAlchemyRepository,
    SQLAlchemyUnitOfWork,
    async_url,
    configure_engine,
)

__all__ = [
    "SQLAlchemyEventStore",
    "SQLAlchemyRepository",
    "SQLAlchemyUnitOfWork",
    "SagaStateModel",
    "async_url",
    "configure_engine",
]
