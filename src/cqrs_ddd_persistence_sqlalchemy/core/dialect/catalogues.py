"""How each database spells, in its catalogue, what a table was made of."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy.core.dialect.types import ARRAY_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.engine import Connection

# What format_type() says, in the words of the projection grammar.
_POSTGRESQL_WORDS = {
    "character varying": "VARCHAR",
    "character": "CHAR",
    "numeric": "DECIMAL",
    "timestamp with time zone": "TIMESTAMP WITH TIME ZONE",
    "time without time zone": "TIME",
    "json": "JSONB",
}

# What our revisions declare, in the words of the projection grammar.
_SQLITE_WORDS = {
    "NUMERIC": "DECIMAL",
    "DATETIME": "TIMESTAMP WITH TIME ZONE",
    "DOUBLE": "DOUBLE PRECISION",
    "DOUBLE_PRECISION": "DOUBLE PRECISION",
    "JSON": "JSONB",
    "BLOB": "BYTEA",
    # Projection columns of type CHAR(n) are declared VARCHAR(n) (docs/decisions/0006), so this is no text of 32.
    "CHAR(32)": "UUID",
}


class Catalogue(ABC):
    """What a database says of its tables. Stateless."""

    #: The schema under which a table is created that only this connection sees.
    temporary_schema: str

    @abstractmethod
    def name_of_temporary_schema(self, connection: Connection) -> str:
        """Return the name under which the catalogue lists such tables, once there is one."""

    @abstractmethod
    def descending(self, connection: Connection, index: Mapping[str, Any], schema: str | None) -> frozenset[str]:
        """Return the columns that an index, as SQLAlchemy's inspector describes it, has in descending order."""

    @abstractmethod
    def portable_default(self, text: str) -> str:
        """Return a default without what only this database understands."""

    @abstractmethod
    def grammar_type(self, text: str) -> str:
        """Return a column's type in the words of the projection grammar; what has none is left alone."""


class PostgreSQLCatalogue(Catalogue):
    """pg_catalog."""

    temporary_schema = "pg_temp"

    def name_of_temporary_schema(self, connection: Connection) -> str:
        """Ask for the session's schema, which is pg_temp_3 or the like."""
        name = sa.text("SELECT nspname FROM pg_namespace WHERE oid = pg_my_temp_schema()")
        return str(connection.scalar(name))

    def descending(self, connection: Connection, index: Mapping[str, Any], schema: str | None) -> frozenset[str]:
        """Read what the inspector has found."""
        return frozenset(name for name, order in index.get("column_sorting", {}).items() if "desc" in order)

    def portable_default(self, text: str) -> str:
        """Take the cast off a literal."""
        return re.sub(r"^('(?:[^']|'')*')::[^']*$", r"\1", text)

    def grammar_type(self, text: str) -> str:
        """Translate what format_type() says."""
        found = re.fullmatch(r"([a-z ]+?)(\(.*\))?( with(?:out)? time zone)?(\[\])?", text.lower())
        if not found:
            return text
        base, arguments, zone, array = (found[n] or "" for n in range(1, 5))
        words = _POSTGRESQL_WORDS.get(base + zone, (base + zone).upper())
        return words + arguments + array


class SQLiteCatalogue(Catalogue):
    """sqlite_master and pragmas."""

    temporary_schema = "temp"

    def name_of_temporary_schema(self, connection: Connection) -> str:
        """Return the name, which is the same."""
        return self.temporary_schema

    def descending(self, connection: Connection, index: Mapping[str, Any], schema: str | None) -> frozenset[str]:
        """Ask the pragma, which knows more than the inspector."""
        quote = connection.dialect.identifier_preparer.quote_identifier
        prefix = f"{quote(schema)}." if schema else ""
        columns = connection.exec_driver_sql(f"PRAGMA {prefix}index_xinfo({quote(index['name'])})").mappings()
        return frozenset(column["name"] for column in columns if column["key"] and column["desc"])

    def portable_default(self, text: str) -> str:
        """Leave it alone: what SQLite keeps is what was written."""
        return text

    def grammar_type(self, text: str) -> str:
        """Translate what a revision has declared."""
        text = text.upper()
        base, bracket, rest = text.partition("(")
        if base.endswith(ARRAY_SUFFIX):
            return f"{self.grammar_type(base.removesuffix(ARRAY_SUFFIX) + bracket + rest)}[]"
        return _SQLITE_WORDS.get(text) or _SQLITE_WORDS.get(base.strip(), base) + bracket + rest
