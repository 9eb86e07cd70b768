"""Stores for the patterns around the event store: projections and their positions."""

from __future__ import annotations

from cqrs_ddd_persistence_sqlalchemy.advanced.positions import SQLAlchemyProjectionPositionStore
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.store import SQLAlchemyProjectionStore

__all__ = ["SQLAlchemyProjectionPositionStore", "SQLAlchemyProjectionStore"]
