"""What migrations need of a database, beside what the stores need."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.engine import URL, Connection, Engine
    from sqlalchemy.exc import DBAPIError

    from cqrs_ddd_persistence_sqlalchemy.core.dialect.base import TableRef


class MigratingDialect(ABC):
    """How a database is migrated. Stateless."""

    @abstractmethod
    def begin(self, connection: Connection, *, write: bool) -> None:
        """Complete the transaction that SQLAlchemy has just begun, before its first statement."""

    @abstractmethod
    def existing_table(self, error: DBAPIError) -> str | None:
        """Return the name of the table that could not be created because it exists, or None."""

    @abstractmethod
    def forbidden(self, error: DBAPIError) -> str | None:
        """Return what the database's user has no right to, in the database's words, or None."""

    @abstractmethod
    def does_not_fit(self, error: DBAPIError) -> bool:
        """Tell whether a value was too large, too long or otherwise none of its column's type."""

    @abstractmethod
    def is_lock_timeout(self, error: DBAPIError) -> bool:
        """Tell whether a lock was not to be had within the time of `limit_lock_waits`."""

    @abstractmethod
    def limit_lock_waits(self, seconds: float) -> str | None:
        """Return the statement that lets no other of its transaction wait for a table longer than that; 0: no limit."""

    @abstractmethod
    def prepare_for_migrations(self, engine: Engine) -> None:
        """Make DDL on a new engine's connections part of their transactions."""

    #: Whether a database has schemas, one of which unqualified names can be made to mean.
    has_schemas: bool

    @abstractmethod
    def schema_exists(self, connection: Connection, schema: str) -> bool:
        """Tell whether the database has a schema of that name."""

    @abstractmethod
    def set_search_path(self, connection: Connection, path: str, *, local: bool) -> str:
        """Let unqualified names mean what is in these schemas, and return what they meant before.

        Args:
            connection: of a database that has schemas.
            path: as the database writes it, each name quoted.
            local: until the transaction ends, instead of the session.
        """

    @abstractmethod
    def default_schema(self, connection: Connection) -> str | None:
        """Return the schema in which unqualified names are made now; None where there are no schemas."""

    @abstractmethod
    def try_migration_lock(self, connection: Connection, *, joined: bool, schema: str | None = None) -> bool:
        """Try once to become the only migration of this database and schema; never wait long, never block.

        Without a schema it is the connection's default one. With `joined` the connection is in a transaction of the
        caller's, which the lock ends with. Otherwise, when True, the connection is in a transaction where
        `migrates_in_one_transaction`, and in none elsewhere.
        """

    @abstractmethod
    def release_migration_lock(self, connection: Connection, *, schema: str | None = None) -> None:
        """Let the next migration begin."""

    @abstractmethod
    def lock_table(self, connection: Connection, table: TableRef) -> None:
        """Let nobody else read or write a table until this transaction ends."""

    @abstractmethod
    def triggers(self, connection: Connection, table: str) -> Mapping[str, str]:
        """Return the triggers that go when a copy takes the place of their table: names and what creates them."""

    @abstractmethod
    def rows_deleted_with(self, connection: Connection, table: str) -> list[str]:
        """Return the tables whose rows would go or change as a copy takes the place of a table they refer to."""

    @property
    @abstractmethod
    def migrates_in_one_transaction(self) -> bool:
        """Whether the migration lock is the transaction itself, so that all revisions of a run must share it."""

    @abstractmethod
    def is_proxied(self, connection: Connection) -> bool:
        """Tell whether a pooling proxy seems to stand between the connection and its server."""

    @abstractmethod
    def probe(self, url: URL) -> None:
        """Raise what `connect_error` recognises if it takes no connection to see that none can be made."""

    @abstractmethod
    def connect_error(self, error: BaseException) -> str | None:
        """Return in one line why no connection could be made, or None where the error is of another kind."""
