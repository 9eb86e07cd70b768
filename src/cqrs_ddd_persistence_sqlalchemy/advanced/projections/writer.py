"""How documents get into their rows."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError, IntegrityError

from cqrs_ddd_persistence_sqlalchemy.advanced.projections import statements
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.statements import Guards, parameter
from cqrs_ddd_persistence_sqlalchemy.core.alone import is_alone
from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_of, execute_kept
from cqrs_ddd_persistence_sqlalchemy.exceptions import PersistenceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from cqrs_ddd_persistence_sqlalchemy.advanced.projections.batches import Batch
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
    parameters = _parameters(values) | guards.parameters()
    for _ in range(_TRIES):
        if (await execute_kept(connection, statement, parameters)).rowcount:
            return True
        stored = (await execute_kept(connection, statements.read_guards(collection), _parameters(key))).mapping()
        if not guards.judge(collection, key, stored):
            return False
        if stored is None and not may_insert:
            missing = sorted(collection.required.difference(columns))
            raise ValueError(f"no document {key} in {collection.name!r} yet, and a new one needs {', '.join(missing)}")
        if may_insert and not guards.names:
            return True  # only the key was given, and it is there
        # What stood in the way is gone meanwhile: the statement can succeed now.
    raise _unexplained(collection, key)


async def write_batches(
    connection: AsyncConnection, collection: Collection, batches: list[Batch], when_busy: Callable[[], None]
) -> None:
    """Insert or change rows one after the other, without guards, all or none.

    `when_busy` is called as the database is given work that takes a while, in which there is time for something else.
    """
    try:
        async with violations_named(connection, collection, always=True):
            await _write(connection, collection, batches, when_busy, merging=True)
    except DBAPIError as error:
        if not dialect_of(connection).cannot_merge(error):
            raise
    else:
        return
    async with violations_named(connection, collection, always=True):
        await _write(connection, collection, batches, when_busy, merging=False)


async def _write(
    connection: AsyncConnection,
    collection: Collection,
    batches: list[Batch],
    when_busy: Callable[[], None],
    *,
    merging: bool,
) -> None:
    dialect = dialect_of(connection)
    for batch in batches:
        if not collection.required.issubset(batch.names):
            for row in batch.rows():
                await write_row(connection, collection, dict(zip(batch.names, row, strict=True)), _NO_GUARDS)
        elif not (merging and await _merged(connection, collection, batch, when_busy)):
            when_busy()
            statement = statements.upsert(collection, dialect.name, batch.names, frozenset())
            columns = dict(zip(map(parameter, batch.names), batch.columns, strict=True))
            await dialect.execute_many(connection, statement, columns)


async def _merged(
    connection: AsyncConnection, collection: Collection, batch: Batch, when_busy: Callable[[], None]
) -> bool:
    """Write rows by one statement, from lists or from a table into which they are copied.

    False where that is no help, or cannot be.

    Rows of the same key would meet in that statement, which then is none the database can execute.
    """
    dialect = dialect_of(connection)
    if batch.count < dialect.min_rows_to_merge or not _are_distinct(batch.columns[: len(collection.key)]):
        return False
    if batch.count < dialect.min_rows_to_copy:
        statement = statements.upsert_lists(collection, dialect.name, batch.names)
        if statement is not None:
            await execute_kept(connection, statement, dict(zip(batch.names, batch.columns, strict=True)))
        return statement is not None
    source = await dialect.copy_rows(connection, collection.table, batch.names, batch.columns, batch.text)
    if source is None:
        return False
    when_busy()
    await execute_kept(connection, statements.merge(collection, dialect.name, batch.names, source))
    await dialect.drop_copied(connection, source)
    return True


def _are_distinct(key: list[list[Any]]) -> bool:
    try:
        return len(set(key[0] if len(key) == 1 else zip(*key, strict=True))) == len(key[0])
    except TypeError:  # keys of a table made by hand may be lists
        return False


async def delete_row(connection: AsyncConnection, collection: Collection, key: dict[str, Any], guards: Guards) -> bool:
    """Delete a row in one statement, which also decides the guards; False when there is none.

    Raises:
        OptimisticConcurrencyError: as `Guards.judge` says.
    """
    statement = statements.delete(collection, guards.names)
    for _ in range(_TRIES):
        if (await execute_kept(connection, statement, _parameters(key) | guards.parameters())).rowcount:
            return True
        stored = (await execute_kept(connection, statements.read_guards(collection), _parameters(key))).mapping()
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
