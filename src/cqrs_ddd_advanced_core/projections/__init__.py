"""Read models: what their tables look like and what events do to them. Nothing here knows a database."""

from cqrs_ddd_advanced_core.projections.indexes import ProjectionIndex
from cqrs_ddd_advanced_core.projections.projection import Fold, Projection
from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema

__all__ = ["Fold", "Projection", "ProjectionIndex", "ProjectionSchema"]
