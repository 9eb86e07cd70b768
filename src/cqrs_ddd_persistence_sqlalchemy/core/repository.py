"""The repository: entities in rows, each write decided by the version that the row has."""

from __future__ import annotations

from contextlib import asynccontextmanager, nullcontext
from functools import cached_property, partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from cqrs_ddd_persistence_sqlalchemy.core.alone import is_alone
from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_of
from cqrs_ddd_persistence_sqlalchemy.core.mapping import (
    VERSION,
    EntityTable,
    column_value,
    field_names,
    make_entity,
    restore,
    stamp,
    stored_version,
)
from cqrs_ddd_persistence_sqlalchemy.core.repository_statements import CREATED_AT, UPDATED_AT, EntityStatements
from cqrs_ddd_persistence_sqlalchemy.core.scope import SessionScope, repeated
from cqrs_ddd_persistence_sqlalchemy.core.undoing import on_rollback
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_aware, check_count, check_schema
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError

if TYPE_CHECKING:
    import builtins
    from collections.abc import AsyncIterator, Callable, Mapping
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from cqrs_ddd_persistence_sqlalchemy.core.joining import SessionFactory
    from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork

T = TypeVar("T")
ID = TypeVar("ID")


class SQLAlchemyRepository(Generic[T, ID]):
    """Stores entities of one class as rows of one model, with optimistic concurrency on every write.

    What decides is the version that an entity was loaded or last saved with, in the one statement that writes. A lost
    race is an OptimisticConcurrencyError, after which the transaction is usable.

    The model has a primary key of one column and a column `version`. A column is filled from the entity's field of its
    name; columns `created_at` and `updated_at` get the database's time. For another mapping override `to_model` and
    `from_model`.

    Args:
        entity_cls: a pydantic model, or another class whose instances take their fields as keyword arguments.
        model_cls: a mapped class of SQLAlchemy; its table is the application's to migrate.
        uow_factory: returns the unit of work to use where none is given.
        session_factory: for operations without a unit of work, in place of a factory.
        schema: the database schema of the table; the connection's default when omitted.

    Raises:
        TypeError: the model lacks what a repository needs, or the entity has fields that no column would store.
    """

    #: Whether the model is one of the library's own, of which no object is made where nobody overrides the mapping.
    _has_own_model: ClassVar[bool] = False

    def __init__(
        self,
        entity_cls: type[T],
        model_cls: type[Any],
        uow_factory: Callable[[], SQLAlchemyUnitOfWork] | None = None,
        *,
        session_factory: SessionFactory | None = None,
        schema: str | None = None,
    ) -> None:
        self._entity_cls = entity_cls
        self._model_cls = model_cls
        self._rows = EntityTable(entity_cls, model_cls, check_schema(schema))
        mapping = (type(self).to_model, type(self).from_model)
        if mapping == (SQLAlchemyRepository.to_model, SQLAlchemyRepository.from_model) and not self._has_own_model:
            self._rows.refuse_loss()
        self._scope = SessionScope(type(self).__name__, session_factory=session_factory, uow_factory=uow_factory)

    def to_model(self, entity: T) -> Any:
        """Return a model with the entity's values. A subclass calls super() and sets what it maps in another way."""
        return self._model_cls(**self._values(entity))

    def from_model(self, model: Any) -> T:
        """Return the entity of a model. A subclass may make it in any way; its version is set afterwards."""
        return self._made_of(model)

    async def add(self, entity: T, *, uow: SQLAlchemyUnitOfWork | None = None) -> T:
        """Insert a new entity, or update one that was loaded or saved before; return it with its new version.

        Raises:
            OptimisticConcurrencyError: another version is stored, or none; or an entity of this id is there already.
                Nothing is written.
            ValueError: naming the columns of a UNIQUE constraint that another row stands in the way of.
            TypeError: the entity is of another class.
        """
        return await self._store(entity, uow)

    async def save(self, entity: T, *, uow: SQLAlchemyUnitOfWork | None = None) -> T:
        """Do what `add` does."""
        return await self.add(entity, uow=uow)

    @repeated
    async def get(self, entity_id: ID, *, uow: SQLAlchemyUnitOfWork | None = None) -> T | None:
        """Return the entity with this id, or None."""
        async with self._scope.read(uow) as connection:
            row = await self._statements.get(connection, entity_id)
        return None if row is None else self._entity(row)

    @repeated
    async def exists(self, entity_id: ID, *, uow: SQLAlchemyUnitOfWork | None = None) -> bool:
        """Tell whether there is an entity with this id."""
        statement = sa.select(sa.literal(1)).where(self._rows.key == entity_id, *self._conditions())
        async with self._scope.read(uow) as connection:
            return await connection.scalar(statement) is not None

    @repeated
    async def list(
        self, *, limit: int = 100, offset: int = 0, uow: SQLAlchemyUnitOfWork | None = None
    ) -> builtins.list[T]:
        """Return entities, oldest first."""
        return await self._select(limit=limit, offset=offset, uow=uow)

    @repeated
    async def find_not_updated_since(
        self, threshold: datetime, *, limit: int = 100, uow: SQLAlchemyUnitOfWork | None = None
    ) -> builtins.list[T]:
        """Return entities that were written last before a point in time, those that wait longest first.

        Raises:
            TypeError: the model has no column `updated_at`.
            ValueError: the threshold is naive.
        """
        updated_at = self._rows.columns.get(UPDATED_AT)
        if updated_at is None:
            raise TypeError(f"{self._model_cls.__name__} has no column {UPDATED_AT!r} to tell what was not updated")
        check_aware("threshold", threshold)
        return await self._select(updated_at < threshold, order=(updated_at,), limit=limit, uow=uow)

    async def delete(
        self, entity: T | ID, *, expected_version: int | None = None, uow: SQLAlchemyUnitOfWork | None = None
    ) -> bool:
        """Delete an entity; False when there was none of the id.

        Args:
            entity: as it was loaded, which must still be the stored one; or an id, which takes any version.
            expected_version: the stored version, for an id.
            uow: joined when open.

        Raises:
            OptimisticConcurrencyError: another version is stored than expected, or none.
        """
        if isinstance(entity, self._entity_cls):
            entity_id, expected_version = getattr(entity, self._rows.id_attribute), stored_version(entity)
        else:
            entity_id = entity
        statement = sa.delete(self._rows.table).where(self._rows.key == entity_id, *self._conditions())
        if expected_version is not None:
            statement = statement.where(self._rows.columns[VERSION] == expected_version)
        async with self._scope.write(uow) as connection:
            if (await connection.execute(statement)).rowcount:
                return True
            if expected_version is not None:
                await self._raise_conflict(connection, entity_id, expected_version)
            return False

    async def _store(
        self,
        entity: T,
        uow: SQLAlchemyUnitOfWork | None,
        further: Callable[[AsyncConnection], Mapping[str, Any]] = lambda _: {},
    ) -> T:
        """Insert or update an entity, with further values by attribute that only the database knows."""
        self._rows.check_class(entity)
        values = self._row_values(entity)
        expected = stored_version(entity)
        async with self._scope.write(uow, single=self._is_written_at_once(entity)) as connection:
            values |= {**self._computed(entity, connection), **further(connection)}
            if expected is None:
                await self._insert(connection, values)
            else:
                await self._update(connection, values, expected)
            self._stamp(connection, entity, (expected or 0) + 1)
            await self._written(connection, entity)
        return entity

    async def _select(
        self,
        *conditions: sa.ColumnElement[bool],
        order: tuple[sa.ColumnElement[Any], ...] = (),
        limit: int = 100,
        offset: int = 0,
        uow: SQLAlchemyUnitOfWork | None = None,
    ) -> builtins.list[T]:
        """Return entities; oldest first unless ordered in another way, ties in the order of their ids."""
        check_count("limit", limit)
        check_count("offset", offset)
        created_at = self._rows.columns.get(CREATED_AT)
        order = order or (() if created_at is None else (created_at,))
        columns = [column.label(name) for name, column in self._rows.columns.items()]
        statement = sa.select(*columns).where(*conditions, *self._conditions()).order_by(*order, self._rows.key)
        async with self._scope.read(uow) as connection:
            rows = (await connection.execute(statement.limit(limit).offset(offset))).mappings().all()
        return [self._entity(dict(row)) for row in rows]

    def _computed(self, entity: T, connection: AsyncConnection) -> dict[str, Any]:
        """Return values by attribute that only the database knows, such as a time on its clock."""
        del entity, connection  # here, columns have what entities have
        return {}

    def _is_written_at_once(self, entity: T) -> bool:
        """Tell whether `_written` has nothing to look up."""
        del entity
        return True

    async def _written(self, connection: AsyncConnection, entity: T) -> None:
        """Let an entity know what the database has computed."""

    def _conditions(self) -> tuple[sa.ColumnElement[bool], ...]:
        """Return what a row must be like to be this repository's; a subclass that shares its table says it here."""
        return ()

    def _values(self, entity: T) -> dict[str, Any]:
        """Return an entity's values by the model's attributes."""
        return {
            name: column_value(column, getattr(entity, name), name)
            for name, column in self._rows.columns.items()
            if name in field_names(type(entity)) and name != VERSION
        }

    def _made_of(self, model: Any) -> T:
        """Return the entity of whatever has the model's attributes."""
        fields = field_names(self._entity_cls)
        values = {name: getattr(model, name) for name in self._rows.columns if name in fields}
        entity: T = make_entity(self._entity_cls, values)
        return entity

    def _row_values(self, entity: T) -> dict[str, Any]:
        needs_no_model = self._has_own_model and type(self).to_model is SQLAlchemyRepository.to_model
        return self._quick_values(entity) if needs_no_model else self._rows.values(self.to_model(entity))

    def _quick_values(self, entity: T) -> dict[str, Any]:
        """Return what `_values` does, documents perhaps as the text that they become."""
        return self._values(entity)

    def _entity(self, row: dict[str, Any]) -> T:
        needs_no_model = self._has_own_model and type(self).from_model is SQLAlchemyRepository.from_model
        entity = self.from_model(SimpleNamespace(**row) if needs_no_model else self._model_cls(**row))
        stamp(entity, row[VERSION])
        return entity

    async def _insert(self, connection: AsyncConnection, values: dict[str, Any]) -> None:
        # Any conflict at all: an error would spoil the transaction. Which one it was is looked up afterwards.
        if not await self._statements.insert(connection, values):
            await self._raise_conflict(connection, values[self._rows.id_attribute], None)
            async with self._violations_named(connection):
                # It says so, or succeeds as the other row is gone.
                await self._statements.insert_or_raise(connection, values)

    async def _update(self, connection: AsyncConnection, values: dict[str, Any], expected: int) -> None:
        async with self._violations_named(connection):
            written = await self._statements.update(connection, values, expected)
        if not written:
            await self._raise_conflict(connection, values[self._rows.id_attribute], expected)

    @cached_property
    def _statements(self) -> EntityStatements:
        return EntityStatements(self._rows, self._conditions())

    async def _raise_conflict(self, connection: AsyncConnection, entity_id: Any, expected: int | None) -> None:
        """Name the version in the way; where a new entity meets no row of its id, it was another constraint."""
        statement = sa.select(self._rows.columns[VERSION]).where(self._rows.key == entity_id)
        actual: int | None = await connection.scalar(statement)
        if expected is not None or actual is not None:
            raise OptimisticConcurrencyError(self._entity_cls.__name__, entity_id, expected=expected, actual=actual)

    @asynccontextmanager
    async def _violations_named(self, connection: AsyncConnection) -> AsyncIterator[None]:
        """Say which column's value another row has, and leave the transaction usable."""
        try:
            spoils = self._rows.has_unique and not is_alone(connection)
            async with connection.begin_nested() if spoils else nullcontext():
                yield
        except IntegrityError as error:
            violated = dialect_of(connection).violated_columns(error, self._rows.table)
            if violated is None or violated[0] != "unique":
                raise
            raise ValueError(
                f"{self._entity_cls.__name__}: another one has the same {', '.join(violated[1])}"
            ) from error

    def _stamp(self, connection: AsyncConnection, entity: T, version: int) -> None:
        before = stamp(entity, version)
        on_rollback(connection, partial(restore, entity, before))
