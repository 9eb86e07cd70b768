"""How documents get into their rows."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import IntegrityError

from cqrs_ddd_persistence_sqlalchemy.advanced.projections import statements
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.statements import Guards, parameter
from cqrs_ddd_persistence_sqlalchemy.core.alone import is_alone
from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_of
from cqrs_ddd_persistence_sqlalchemy.exceptions import PersistenceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sqlalchemy.ext.asyncio import AsyncConnection

    from cqrs_ddd_persistence_sqlalchemy.advanced.projections.collection import Collection

_NO_GUARDS = Guards()

# Each further try takes another writer that got in between a statement and the look at why it wrote nothing.
_TRIES = 100


async def write_row(
    connection: AsyncConnection, collection: Collection, values: dict[str, Any], guards: Guards
) -> bool:
    """Insert or change one row in one statement, which also decides the guards (docs/decisions/0009).

    Returns:
        True when the row is as the values say, False when a guard found the event to be no news.

    Raises:
        OptimisticConcurrencyError: as `Guards.judge` says.
        ValueError: when there is no such row and the values are too few for a new one.
        PersistenceError: when it cannot be said why nothing is written.
    """
    columns = tuple(values)
    may_insert = not guards.expected_version and collection.required.issubset(columns)
    if may_insert:
        statement = statements.upsert(collection, connection.dialect.name, columns, guards.names)
    else:
        statement = statements.update(collection, columns, guards.names)
    key = {name: values[name] for name in collection.key}
    dialect = dialect_of(connection)
    parameters = _parameters(values) | guards.parameters()
    for _ in range(_TRIES):
        if (await dialect.execute(connection, statement, parameters)).rowcount:
            return True
        stored = (await dialect.execute(connection, statements.read_guards(collection), _parameters(key))).mapping()
        if not guards.judge(collection, key, stored):
            return False
        if stored is None and not may_insert:
            missing = sorted(collection.required.difference(columns))
            raise ValueError(f"no document {key} in {collection.name!r} yet, and a new one needs {', '.join(missing)}")
        if may_insert and not guards.names:
            return True  # only the key was given, and it is there
        # What stood in the way is gone meanwhile: the statement can succeed now.
    raise _unexplained(collection, key)


async def write_rows(connection: AsyncConnection, collection: Collection, rows: list[dict[str, Any]]) -> None:
    """Insert or change rows one after the other, without guards."""
    for group in _same_columns(rows):
        columns = tuple(group[0])
        if collection.required.issubset(columns):
            statement = statements.upsert(collection, connection.dialect.name, columns, frozenset())
            rows_of_group = [_parameters(values) for values in group]
            await dialect_of(connection).execute_many(connection, statement, rows_of_group)
        else:
            for values in group:
                await write_row(connection, collection, values, _NO_GUARDS)


async def delete_row(connection: AsyncConnection, collection: Collection, key: dict[str, Any], guards: Guards) -> bool:
    """Delete a row in one statement, which also decides the guards; False when there is none.

    Raises:
        OptimisticConcurrencyError: as `Guards.judge` says.
    """
    statement = statements.delete(collection, guards.names)
    dialect = dialect_of(connection)
    for _ in range(_TRIES):
        if (await dialect.execute(connection, statement, _parameters(key) | guards.parameters())).rowcount:
            return True
        stored = (await dialect.execute(connection, statements.read_guards(collection), _parameters(key))).mapping()
        guards.judge(collection, key, stored)
        if stored is None:
            return False
    raise _unexplained(collection, key)


def _unexplained(collection: Collection, key: dict[str, Any]) -> PersistenceError:
    return PersistenceError(
        f"the database does not let document {key} of {collection.name!r} be written, and neither its key nor a guard "
        "is in the way: look for a trigger or a row-level policy"
    )


class UnexpectedNullError(ValueError):
    """The database refused a NULL or a missing value that, for all the store knew, it would take."""


@asynccontextmanager
async def violations_named(
    connection: AsyncConnection, collection: Collection, *, always: bool = False
) -> AsyncIterator[None]:
    """Make violated constraints ValueErrors that name the column, in a savepoint where any can be violated.

    Args:
        connection: in a transaction.
        collection: what is written to.
        always: make a savepoint even where only the key is unique, so that the block writes all or nothing.
    """
    try:
        if always or (collection.has_unique and not is_alone(connection)):
            async with connection.begin_nested():
                yield
        else:
            yield
    except IntegrityError as error:
        violated = dialect_of(connection).violated_columns(error, collection.table)
        if violated is None:
            raise
        rule, columns = violated
        names = ", ".join(columns)
        if rule == "not null":
            raise UnexpectedNullError(f"column {names} of {collection.name!r} is NOT NULL") from error
        message = f"column {names} of {collection.name!r} is UNIQUE: another document has the same value"
        raise ValueError(message) from error


def _parameters(values: dict[str, Any]) -> dict[str, Any]:
    return {parameter(name): value for name, value in values.items()}


def _same_columns(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Group neighbours with the same columns; the order stays, as one document may make way for the next."""
    group: list[dict[str, Any]] = []
    for row in rows:
        if group and group[0].keys() != row.keys():
            yield group
            group = []
        group.append(row)
    if group:
        yield group
