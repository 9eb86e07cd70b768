"""Whether a database has what this code needs, asked at the start of an application."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cqrs_ddd_advanced_core.exceptions import SchemaError
from cqrs_ddd_advanced_core.projections.column_types import parse_column
from cqrs_ddd_persistence_sqlalchemy.core.dialect import READ_ONLY, TableRef, dialect_of
from cqrs_ddd_persistence_sqlalchemy.exceptions import SchemaOutOfDateError
from cqrs_ddd_persistence_sqlalchemy.schema.chain import library_is_behind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from cqrs_ddd_advanced_core.projections.column_types import ColumnSpec
    from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
    from cqrs_ddd_persistence_sqlalchemy.core.dialect import TableDescription


async def verify(engine: AsyncEngine, schemas: Iterable[ProjectionSchema] = ()) -> None:
    """Make sure, at application start, that the database has what this code needs.

    A database that is ahead of the code, as in a rolling deploy, is fine, and so are columns beyond the declared ones.

    Args:
        engine: of the application.
        schemas: the projections that it uses; their tables must have the declared columns, types and key.

    Raises:
        SchemaOutOfDateError: with the command to run.
    """
    async with engine.connect() as connection:
        await connection.execution_options(**READ_ONLY)
        behind = await connection.run_sync(library_is_behind)
        if behind:
            raise SchemaOutOfDateError(f"the database is behind this code: {behind}; run: alembic upgrade head")
        for schema in schemas:
            await _verify_table(connection, schema)


async def _verify_table(connection: AsyncConnection, schema: ProjectionSchema) -> None:
    description = await dialect_of(connection).describe_table(connection, TableRef(schema.collection))
    if description is None:
        raise SchemaOutOfDateError(
            f"the table of projection {schema.collection!r} is not in the database; run: alembic upgrade head"
        )
    problems = list(_differences(schema, description))
    if problems:
        raise SchemaOutOfDateError(
            f"the table of projection {schema.collection!r} does not match its schema: {'; '.join(problems)}. "
            "Run: alembic upgrade head, after writing the revision if there is none"
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
