"""The unit of work, the repository and the event store."""

from __future__ import annotations

from cqrs_ddd_persistence_sqlalchemy.core.dialect import async_url, configure_engine
from cqrs_ddd_persistence_sqlalchemy.core.event_store import SQLAlchemyEventStore
from cqrs_ddd_persistence_sqlalchemy.core.repository import SQLAlchemyRepository
from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork

__all__ = ["SQLAlchemyEventStore", "SQLAlchemyRepository", "SQLAlchemyUnitOfWork", "async_url", "configure_engine"]
