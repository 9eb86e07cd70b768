"""Projection schemas: what a read model's table looks like, as plain data that knows no database."""

from cqrs_ddd_advanced_core.projections.indexes import ProjectionIndex
from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema

__all__ = ["ProjectionIndex", "ProjectionSchema"]
