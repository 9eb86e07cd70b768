"""Everything Alembic: the environment of the revisions, the library's chain, and projections as revisions."""

from __future__ import annotations

from cqrs_ddd_persistence_sqlalchemy.schema.rebuilding import abandon_rebuild, rebuild
from cqrs_ddd_persistence_sqlalchemy.schema.verification import verify

__all__ = ["abandon_rebuild", "rebuild", "verify"]
