"""Everything Alembic: the environment of the revisions, the library's chain, and projections as revisions.

Which module belongs to what:

- A run of Alembic: `environment`, `settings`, `configuration`, `target`; one at a time and beside a running application
  with `locking`, `lock_timeout`, `data_loss`, `tenant_schemas`, `errors`.
- The library's own tables: `chain`; in an application's own environment `embedding`, `library_revision`.
- Writing the revisions of projections: `registry` and `recorded` say what is wanted and what was written before,
  `comparison` (by `inspection` and `conversions`) what differs, `planning` (by `steps` and `operations`) what is to be
  done, `revisions` (by `rendering` and `source`) writes it; `check` asks whether something is to be written.
- Rebuilding projections: `rebuilding`, by `shadow`, `rebuild_record` and `exclusive`.
- What an application asks at its start: `verification`.
"""

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
