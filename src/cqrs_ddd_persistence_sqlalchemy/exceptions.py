"""Everything the stores raise on purpose, below one root."""

from __future__ import annotations

from typing import ClassVar

from cqrs_ddd_advanced_core.exceptions import ERRORS_PAGE

PROJECTIONS_COMMAND = "python -m cqrs_ddd_persistence_sqlalchemy.projections"


class PersistenceError(Exception):
    """Root of the errors of this package; anything else that comes out of it is the driver's or SQLAlchemy's.

    Attributes:
        docs: where the class is explained; a note of each error (PEP 678), so that tracebacks end with it.
    """

    docs: ClassVar[str] = f"{ERRORS_PAGE}#persistenceerror"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.add_note(f"see {self.docs}")


class UnitOfWorkError(PersistenceError):
    """A unit of work was missing, misused, or cannot commit what it was asked to."""

    docs = f"{ERRORS_PAGE}#unitofworkerror"


class OptimisticConcurrencyError(PersistenceError):
    """Somebody else wrote first. The caller's transaction is usable: reload, decide again, retry.

    Attributes:
        entity_type: what was written: an aggregate type, a collection, "projection position", "event".
        entity_id: which one.
        expected: the version (position) the caller took for the stored one; None where there was none to expect.
        actual: the stored one; None where nothing is stored.
    """

    docs = f"{ERRORS_PAGE}#optimisticconcurrencyerror"

    def __init__(
        self,
        entity_type: str,
        entity_id: object,
        *,
        expected: int | None,
        actual: int | None,
        reason: str = "",
    ) -> None:
        self.entity_type = entity_type
        self.entity_id = entity_id
        self.expected = expected
        self.actual = actual
        self.reason = reason
        super().__init__(entity_type, entity_id, expected, actual, reason)

    def __str__(self) -> str:
        """Name the entity, what was expected and what was found."""
        found = f"expected version {self.expected}, found {self.actual}; reload it and try again"
        return f"{self.entity_type} {self.entity_id!r}: {self.reason or found}"

    def __reduce__(self) -> tuple[object, ...]:
        """Survive pickling, which would otherwise pass the keyword arguments by position."""
        return (
            _rebuild_conflict,
            (self.entity_type, self.entity_id, self.expected, self.actual, self.reason),
        )


def _rebuild_conflict(
    entity_type: str, entity_id: object, expected: int | None, actual: int | None, reason: str
) -> OptimisticConcurrencyError:
    return OptimisticConcurrencyError(entity_type, entity_id, expected=expected, actual=actual, reason=reason)


class LeaseLostError(PersistenceError):
    """A lease ended before its work did, and somebody else may have begun it. What was to be written is not.

    Attributes:
        kind: of what was leased: "projection", "saga", "job".
        lost: the names or ids.
    """

    docs = f"{ERRORS_PAGE}#leaselosterror"

    def __init__(self, kind: str, lost: tuple[str, ...]) -> None:
        self.kind = kind
        self.lost = lost
        super().__init__(kind, lost)

    def __str__(self) -> str:
        """Name what is lost."""
        names = ", ".join(map(repr, self.lost))
        return f"the lease of {self.kind} {names} is lost: it expired or was taken away; nothing is written"


class ProjectionPausedError(PersistenceError):
    """A projection stands still at an event that its handler failed on.

    Attributes:
        projection_name: of the projection.
        position: of the event; None where somebody paused it by hand.
        error: what the handler raised, as text.
    """

    docs = f"{ERRORS_PAGE}#projectionpausederror"

    def __init__(self, projection_name: str, position: int | None, error: str | None) -> None:
        self.projection_name = projection_name
        self.position = position
        self.error = error
        super().__init__(projection_name, position, error)

    def __str__(self) -> str:
        """Say what to do."""
        where = "" if self.position is None else f" at position {self.position}: {self.error}"
        return (
            f"projection {self.projection_name!r} is paused{where}; when that is mended, run: "
            f"{PROJECTIONS_COMMAND} resume {self.projection_name}"
        )


class ProjectionWaitError(PersistenceError, TimeoutError):
    """A projection has not reached a position in time.

    Attributes:
        projection_name: of the projection.
        position: that was waited for.
        reached: where the projection is, 0 for the beginning.
        state: "behind": it is run and has not come so far; "not running": nobody runs it.
        error: what keeps it, where something has failed since it last advanced.
    """

    docs = f"{ERRORS_PAGE}#projectionwaiterror"

    def __init__(self, projection_name: str, position: int, reached: int, state: str, error: str | None = None) -> None:
        self.projection_name = projection_name
        self.position = position
        self.reached = reached
        self.state = state
        self.error = error
        super().__init__(projection_name, position, reached, state, error)

    def __str__(self) -> str:
        """Say where it is and whether anybody runs it."""
        why = "it is behind: wait longer" if self.state == "behind" else "nobody runs it: start its ProjectionRunner"
        if self.error is not None:
            why += f". It has failed last with {self.error}"
        return f"projection {self.projection_name!r} is at {self.reached}, not yet at {self.position}; {why}"

    def __reduce__(self) -> tuple[object, ...]:
        """Survive copying: an OSError, which a TimeoutError is, drops what it takes for no file name."""
        arguments = (self.projection_name, self.position, self.reached, self.state, self.error)
        return type(self), arguments, vars(self)


class RebuildError(PersistenceError):
    """A projection could not be rebuilt; its readers have noticed nothing. The message names what is in the way."""

    docs = f"{ERRORS_PAGE}#rebuilderror"


class SchemaOutOfDateError(PersistenceError):
    """The database lacks a table, a column or a revision that this code needs."""

    docs = f"{ERRORS_PAGE}#schemaoutofdateerror"


class TableChangedError(SchemaOutOfDateError):
    """A migration changed a table under a transaction that was using it. Roll back and try again: that will succeed.

    An operation in a transaction of its own tries again by itself.
    """

    docs = f"{ERRORS_PAGE}#tablechangederror"


class CollectionNotFoundError(PersistenceError):
    """A projection's table is not in the database.

    Attributes:
        collection: the name that was asked for.
        schema: of the database, None for the connection's default one.
    """

    docs = f"{ERRORS_PAGE}#collectionnotfounderror"

    def __init__(self, collection: str, schema: str | None = None) -> None:
        self.collection = collection
        self.schema = schema
        super().__init__(
            f"collection {collection!r} is not in {database_in_words(schema)}; if its revision exists, run: "
            f"{upgrade_command(schema)}; otherwise write one with: {revision_command(collection)}"
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Survive copying, which would otherwise take the message for the collection."""
        return type(self), (self.collection, self.schema), vars(self)


class AutoDDLDisabledError(PersistenceError):
    """`ensure_collection` found no table and may not create one.

    Attributes:
        collection: the name of the missing table.
        schema: of the database, None for the connection's default one.
    """

    docs = f"{ERRORS_PAGE}#autoddldisablederror"

    def __init__(self, collection: str, schema: str | None = None) -> None:
        self.collection = collection
        self.schema = schema
        super().__init__(
            f"collection {collection!r} is not in {database_in_words(schema)} and allow_auto_ddl is off; write a "
            f"revision with: {revision_command(collection)} and run: {upgrade_command(schema)}"
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Survive copying, which would otherwise take the message for the collection."""
        return type(self), (self.collection, self.schema), vars(self)


def database_in_words(schema: str | None) -> str:
    """Return how messages call a database, or one schema of it."""
    return "the database" if schema is None else f"schema {schema!r} of the database"


def upgrade_command(schema: str | None = None) -> str:
    """Return the command that brings a database, or one schema of it, to the newest revision."""
    option = "" if schema is None else f"-x schema={schema} "
    return f"alembic {option}upgrade head"


def revision_command(collection: str) -> str:
    """Return the commands that write the revision of a collection."""
    message = f'revision -m "create {collection}"'
    return (
        f"alembic {message} --autogenerate "
        f"(or, with revision_environment = true: alembic -x projection=package.module:schema {message})"
    )
