"""Everything Alembic: the environment of the revisions, the library's chain, and projections as revisions."""

from __future__ import annotations

from cqrs_ddd_persistence_sqlalchemy.schema.embedding import (
    add_projections,
    compare_type,
    downgrade,
    include_name,
    migration_lock,
    render_item,
    upgrade,
)
from cqrs_ddd_persistence_sqlalchemy.schema.rebuilding import abandon_rebuild, rebuild
from cqrs_ddd_persistence_sqlalchemy.schema.rendering import DeclaredType
from cqrs_ddd_persistence_sqlalchemy.schema.verification import verify

__all__ = [
    "DeclaredType",
    "abandon_rebuild",
    "add_projections",
    "compare_type",
    "downgrade",
    "include_name",
    "migration_lock",
    "rebuild",
    "render_item",
    "upgrade",
    "verify",
]
