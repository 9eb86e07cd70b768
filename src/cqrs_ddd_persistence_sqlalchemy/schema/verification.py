"""Whether a database has what this code needs, asked at the start of an application."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from cqrs_ddd_advanced_core.exceptions import SchemaError
from cqrs_ddd_advanced_core.projections.column_types import parse_column
from cqrs_ddd_persistence_sqlalchemy.core.dialect import READ_ONLY, TableRef, dialect_of, effective_schema
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_schema
from cqrs_ddd_persistence_sqlalchemy.exceptions import (
    PersistenceError,
    SchemaOutOfDateError,
    database_in_words,
    upgrade_command,
)
from cqrs_ddd_persistence_sqlalchemy.schema.chain import LIBRARY_VERSION_TABLE, missing_revision

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from sqlalchemy.ext.asyncio import AsyncEngine

    from cqrs_ddd_advanced_core.projections.column_types import ColumnSpec
    from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
    from cqrs_ddd_persistence_sqlalchemy.core.dialect import TableDescription


async def verify(engine: AsyncEngine, schemas: Iterable[ProjectionSchema] = (), *, schema: str | None = None) -> None:
    """Make sure, at application start or when a readiness probe asks, that the database has what this code needs.

    A database that is ahead of the code, as in a rolling deploy, is fine, and so are columns beyond the declared ones.
    It waits for no lock, and on PostgreSQL it is one statement.

    Args:
        engine: of the application.
        schemas: the projections that it uses; their tables must have the declared columns, types and key.
        schema: of the database, a tenant's; the connection's default one unless given.

    Raises:
        SchemaOutOfDateError: with the command to run.
        PersistenceError: the database's user may not look; with the rights that it needs.
        ValueError: the schema's name is no identifier.
    """
    schema = check_schema(schema)
    wanted = list(schemas)
    async with engine.connect() as connection:
        await connection.execution_options(**READ_ONLY)
        place = effective_schema(connection, schema)
        tables = [TableRef(each.collection, place) for each in wanted]
        dialect = dialect_of(connection)
        try:
            recorded, found = await dialect.look(connection, TableRef(LIBRARY_VERSION_TABLE, place), tables)
        except DBAPIError as error:
            forbidden = dialect.forbidden(error)
            if forbidden is None:
                raise
            raise PersistenceError(
                f"the database's user may not look at what there is: {forbidden}; grant it USAGE on the schema "
                f"and SELECT on {LIBRARY_VERSION_TABLE}"
            ) from error
    behind = missing_revision(recorded)
    where = database_in_words(place)
    if behind:
        raise SchemaOutOfDateError(
            f"{where} is behind this code: {behind}; run: {upgrade_command(place)} (an application with an Alembic "
            "environment of its own first writes its revision: "
            "python -m cqrs_ddd_persistence_sqlalchemy.schema revision)"
        )
    for each in wanted:
        _verify_table(each, found.get(each.collection), where, upgrade_command(place))


def _verify_table(schema: ProjectionSchema, found: TableDescription | None, where: str, command: str) -> None:
    if found is None:
        raise SchemaOutOfDateError(
            f"the table of projection {schema.collection!r} is not in {where}; run: {command} (after "
            'alembic revision --autogenerate -m "...", where no revision creates it yet)'
        )
    problems = list(_differences(schema, found))
    if problems:
        raise SchemaOutOfDateError(
            f"the table of projection {schema.collection!r} in {where} does not match its schema: "
            f"{'; '.join(problems)}. Run: {command}, after writing the revision if there is none"
        )


def _differences(schema: ProjectionSchema, description: TableDescription) -> Iterator[str]:
    found = {column["name"]: column for column in description.columns}
    for spec in schema.columns:
        if spec.name not in found:
            yield f"column {spec.name} is missing"
        else:
            yield from _column_differences(spec, found[spec.name])
    in_key = sorted((column["primary_key"], column["name"]) for column in description.columns if column["primary_key"])
    key = tuple(name for _, name in in_key)
    if key != schema.key:
        yield f"its key is ({', '.join(key)}), not ({', '.join(schema.key)})"


def _column_differences(spec: ColumnSpec, found: Mapping[str, Any]) -> Iterator[str]:
    wanted = spec.type.stored
    try:
        same = parse_column(spec.name, found["type"]).type == wanted
    except SchemaError:
        same = False
    if not same:
        yield f"column {spec.name} is {found['type']}, not {wanted}"
    if found["nullable"] and not spec.nullable:
        yield f"column {spec.name} may be NULL"
    elif spec.nullable and not found["nullable"]:
        yield f"column {spec.name} is NOT NULL"
