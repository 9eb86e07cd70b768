"""The statements that read and write entities, built once for each set of attributes where that can be."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy.core.dialect import JSONText, dialect_of, execute_kept
from cqrs_ddd_persistence_sqlalchemy.core.json_documents import DocumentText
from cqrs_ddd_persistence_sqlalchemy.core.mapping import VERSION, EntityTable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy.ext.asyncio import AsyncConnection

UPDATED_AT = "updated_at"
CREATED_AT = "created_at"

# Names that no attribute has: SQLAlchemy keeps columns' own for itself.
_ID, _EXPECTED = "1_id", "1_expected"


class EntityStatements:
    """Reads and writes the rows of a repository.

    Args:
        rows: its table.
        conditions: what a row must be like to be the repository's.
    """

    def __init__(self, rows: EntityTable, conditions: tuple[sa.ColumnElement[bool], ...]) -> None:
        self._rows = rows
        self._conditions = conditions
        self._kept: dict[tuple[Any, ...], Any] = {}

    async def get(self, connection: AsyncConnection, entity_id: object) -> dict[str, Any] | None:
        """Return a row by attribute, or None."""
        return (await execute_kept(connection, self._by_id, {_ID: entity_id})).mapping()

    async def insert(self, connection: AsyncConnection, values: dict[str, Any]) -> bool:
        """Insert a row with version 1; False where any other row stands in the way."""
        return bool(await self._execute(connection, self._timed(connection, values), {}, self._insert))

    async def insert_or_raise(self, connection: AsyncConnection, values: dict[str, Any]) -> None:
        """Insert a row with version 1; the database's error says what stands in its way."""
        row = {**self._by_column(self._timed(connection, values)), self._rows.columns[VERSION]: 1}
        await connection.execute(sa.insert(self._rows.table).values(row))

    async def update(self, connection: AsyncConnection, values: dict[str, Any], expected: int) -> bool:
        """Change a row that has the expected version, which is counted up; False where there is none."""
        fixed = {self._rows.id_attribute, CREATED_AT}
        changes = {name: value for name, value in values.items() if name not in fixed}
        if UPDATED_AT in self._rows.columns:
            changes[UPDATED_AT] = dialect_of(connection).now
        identified = {_ID: values[self._rows.id_attribute], _EXPECTED: expected}
        return bool(await self._execute(connection, changes, identified, self._update))

    async def _execute(
        self,
        connection: AsyncConnection,
        values: Mapping[str, Any],
        parameters: dict[str, Any],
        build: Callable[[AsyncConnection, Mapping[str, Any]], Any],
    ) -> int:
        """Keep the statement, unless there are expressions among the values other than the time."""
        now = dialect_of(connection).now
        bound = {name: value for name, value in values.items() if not isinstance(value, sa.ClauseElement)}
        timed = tuple(name for name, value in values.items() if value is now)
        if len(bound) + len(timed) < len(values):
            return int((await connection.execute(build(connection, values), parameters)).rowcount)
        texts = tuple(name for name, value in bound.items() if type(value) is DocumentText)
        key = (connection.dialect.name, build.__name__, tuple(bound), timed, texts)
        statement = self._kept.get(key)
        if statement is None:
            types = {name: JSONText() if name in texts else self._rows.columns[name].type for name in bound}
            binds = {name: sa.bindparam(f"0_{name}", type_=type_) for name, type_ in types.items()}
            statement = self._kept[key] = build(connection, binds | dict.fromkeys(timed, now))
        parameters |= {f"0_{name}": value for name, value in bound.items()}
        return (await execute_kept(connection, statement, parameters)).rowcount

    def _insert(self, connection: AsyncConnection, values: Mapping[str, Any]) -> Any:
        statement = dialect_of(connection).insert(self._rows.table)
        version: dict[Any, Any] = {self._rows.columns[VERSION]: sa.literal_column("1")}
        return statement.values(self._by_column(values) | version).on_conflict_do_nothing()

    def _update(self, _: AsyncConnection, values: Mapping[str, Any]) -> Any:
        version = self._rows.columns[VERSION]
        statement = sa.update(self._rows.table).values(self._by_column(values) | {version: version + 1})
        return statement.where(self._is_it, version == sa.bindparam(_EXPECTED, type_=version.type), *self._conditions)

    def _timed(self, connection: AsyncConnection, values: dict[str, Any]) -> dict[str, Any]:
        now = dialect_of(connection).now
        return values | dict.fromkeys({UPDATED_AT, CREATED_AT} & self._rows.columns.keys(), now)

    def _by_column(self, values: Mapping[str, Any]) -> dict[Any, Any]:
        return {
            self._rows.columns[name]: sa.literal(value, JSONText()) if type(value) is DocumentText else value
            for name, value in values.items()
        }

    @cached_property
    def _by_id(self) -> sa.Select[Any]:
        columns = [column.label(name) for name, column in self._rows.columns.items()]
        return sa.select(*columns).where(self._is_it, *self._conditions)

    @property
    def _is_it(self) -> sa.ColumnElement[bool]:
        return self._rows.key == sa.bindparam(_ID, type_=self._rows.key.type)
