"""What autogenerate and `alembic check` compare the database with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

import cqrs_ddd_persistence_sqlalchemy.advanced.models  # noqa: F401  (registers its tables with Base.metadata)
from cqrs_ddd_persistence_sqlalchemy.core.models import Base

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

    from cqrs_ddd_persistence_sqlalchemy.schema.settings import Settings

LIBRARY_TABLES = frozenset(Base.metadata.tables)


def compare_options(settings: Settings, dialect: Dialect) -> dict[str, Any]:
    """Return the options of `context.configure` that say what is compared: the library's tables, and how.

    The library's tables belong to its own chain: an application's revisions neither create nor change them.
    """
    metadata = sa.MetaData(naming_convention=Base.metadata.naming_convention)
    if not settings.is_application:
        for table in Base.metadata.sorted_tables:
            _without_identity(table.to_metadata(metadata), dialect)
    tables = frozenset(metadata.tables)

    def include_name(name: str | None, type_: str, _parents: object) -> bool:
        return type_ != "table" or name in tables

    return {
        "target_metadata": metadata,
        "include_name": include_name,
        "compare_type": True,
        "compare_server_default": True,
    }


def _without_identity(table: sa.Table, dialect: Dialect) -> None:
    """Leave out what the database has no word for; autogenerate would miss it in the database for ever."""
    if not dialect.supports_identity_columns:
        for column in table.columns:
            column.server_default = None if column.identity is not None else column.server_default
