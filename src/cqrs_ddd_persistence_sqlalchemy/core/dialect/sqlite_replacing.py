"""Replacing one table by another on SQLite."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.schema import CreateIndex

from cqrs_ddd_persistence_sqlalchemy.core.dialect.replacing import ReplacingDialect, names

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


class SQLiteReplacing(ReplacingDialect):
    """DDL is transactional; names of keys and indexes cannot be changed."""

    keys_are_named_by_table = True

    def attached(self, connection: Connection, table: sa.Table) -> list[str]:
        """Look for the table's name in views and triggers, for other tables' foreign keys and for unknown indexes."""
        known = {str(index.name) for index in table.indexes}
        found = connection.execute(_OTHERS, {"name": table.name}).all()
        # A name that is a word of SQL is quoted wherever it stands for a table.
        word = table.name.lower() in connection.dialect.identifier_preparer.reserved_words
        pattern = rf"[\"\[`]{table.name}[\"\]`]" if word else rf"\b{table.name}\b"
        mentions = re.compile(pattern, re.IGNORECASE)
        attached = [
            f"{row.type} {row.name}"
            for row in found
            if (row.type == "index" and row.name not in known) or (row.type != "index" and mentions.search(row.sql))
        ]
        keys = connection.execute(_FOREIGN_KEYS, {"name": table.name}).scalars()
        return attached + [f"foreign key of table {child}" for child in keys]

    def copy_settings(self, connection: Connection, table: sa.Table, shadow: sa.Table) -> None:
        """Do nothing: there are none."""

    def analyze(self, connection: Connection, table: sa.Table) -> None:
        """Do nothing: SQLite plans without, unless the application has run ANALYZE itself."""

    def replace(self, connection: Connection, table: sa.Table, shadow: sa.Table) -> None:
        """Rename the table, and build its indexes again under the names that are free only now."""
        preparer = connection.dialect.identifier_preparer
        connection.exec_driver_sql(f"DROP TABLE {preparer.format_table(table)}")
        connection.exec_driver_sql(
            f"ALTER TABLE {preparer.format_table(shadow)} RENAME TO {preparer.quote_identifier(table.name)}"
        )
        for name in names(shadow.indexes):
            connection.exec_driver_sql(f"DROP INDEX {preparer.quote_identifier(name)}")
        for index in sorted(table.indexes, key=lambda each: str(each.name)):
            connection.execute(CreateIndex(index))


_OTHERS = sa.text(
    """
    SELECT type, name, sql FROM sqlite_master
    WHERE (type IN ('view', 'trigger') OR (type = 'index' AND tbl_name = :name COLLATE NOCASE)) AND sql IS NOT NULL
    ORDER BY type, name
    """
)

_FOREIGN_KEYS = sa.text(
    """
    SELECT DISTINCT child.name FROM sqlite_master AS child, pragma_foreign_key_list(child.name) AS parent
    WHERE child.type = 'table' AND parent."table" = :name COLLATE NOCASE ORDER BY 1
    """
)
