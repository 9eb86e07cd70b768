"""Snapshots: what aggregates were like at some of their versions, so that not all of their events are replayed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from pydantic import BaseModel

from cqrs_ddd_advanced_core.storable import BIGINT_MAX
from cqrs_ddd_persistence_sqlalchemy.advanced.models import snapshots
from cqrs_ddd_persistence_sqlalchemy.advanced.snapshot_statements import (
    IN_FRONT,
    Place,
    delete,
    delete_superseded,
    end_of_batch,
    latest,
    next_type,
    place_parameters,
    save,
)
from cqrs_ddd_persistence_sqlalchemy.core.dialect import UTCDateTime, dialect_of, execute_kept
from cqrs_ddd_persistence_sqlalchemy.core.json_documents import to_document_and_text
from cqrs_ddd_persistence_sqlalchemy.core.models import in_schema
from cqrs_ddd_persistence_sqlalchemy.core.scope import SessionScope, repeated
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_count, check_id, check_schema

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from cqrs_ddd_persistence_sqlalchemy.core.joining import SessionFactory
    from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork


class SQLAlchemySnapshotStore:
    """Keeps snapshots of aggregates in the table `snapshots`, one a version, each for readers of its schema version.

    Args:
        uow_factory: returns the unit of work to use where none is given.
        session_factory: for operations without a unit of work, in place of a factory.
        schema: the database schema of the table; the connection's default when omitted.
    """

    def __init__(
        self,
        uow_factory: Callable[[], SQLAlchemyUnitOfWork] | None = None,
        *,
        session_factory: SessionFactory | None = None,
        schema: str | None = None,
    ) -> None:
        self._table = in_schema(snapshots, check_schema(schema))
        self._scope = SessionScope(type(self).__name__, session_factory=session_factory, uow_factory=uow_factory)

    @repeated
    async def save_snapshot(
        self,
        aggregate_type: str,
        aggregate_id: str,
        snapshot_data: Mapping[str, Any] | BaseModel,
        version: int,
        *,
        schema_version: int | None = None,
        uow: SQLAlchemyUnitOfWork | None = None,
    ) -> None:
        """Save what an aggregate is like at a version, in place of what was saved for that version before.

        Saving an older version after a newer one is no error; the newer one stays the latest.

        Args:
            aggregate_type: 1 to 255 characters.
            aggregate_id: 1 to 255 characters.
            snapshot_data: a dict, or a pydantic model, which counts with its aliases. Decimal, UUID, times and Enum
                become their strings and values as pydantic writes them and reads them again, sets and tuples lists.
            version: of the last event in it, 0 for an aggregate without any.
            schema_version: of the class that wrote it: a whole number that the application counts up when older
                snapshots do not fit the class any more.
            uow: joined when open.

        Raises:
            ValueError: naming what cannot be stored, such as NaN, NUL characters, keys that are not strings.
        """
        parameters = {
            **_identified(aggregate_type, aggregate_id),
            "data": _json(snapshot_data),
            "version": check_count("version", version),
            "schema_version": _check_schema_version(schema_version),
        }
        async with self._scope.write(uow, single=True) as connection:
            await execute_kept(connection, save(self._table, dialect_of(connection).name), parameters)

    @repeated
    async def get_latest_snapshot(
        self,
        aggregate_type: str,
        aggregate_id: str,
        *,
        max_version: int | None = None,
        schema_version: int | None = None,
        uow: SQLAlchemyUnitOfWork | None = None,
    ) -> dict[str, Any] | None:
        """Return the snapshot with the highest version, or None when there is none.

        Args:
            aggregate_type: as it was saved.
            aggregate_id: as it was saved.
            max_version: the highest version to return.
            schema_version: others are passed over, so that no class gets what another one wrote; None stands for
                those that were saved without one, not for any.
            uow: joined when open.

        Returns:
            A dict of `snapshot_data` (as JSON has it), `version`, `created_at` (aware, in UTC, by the database's
            clock), `aggregate_type`, `aggregate_id` and `schema_version`.
        """
        highest = BIGINT_MAX if max_version is None else check_count("max_version", max_version)
        parameters = {
            **_identified(aggregate_type, aggregate_id),
            "max_version": highest,
            "schema_version": _check_schema_version(schema_version),
        }
        async with self._scope.read(uow) as connection:
            return (await execute_kept(connection, latest(self._table), parameters)).mapping()

    @repeated
    async def delete_snapshot(
        self, aggregate_type: str, aggregate_id: str, *, uow: SQLAlchemyUnitOfWork | None = None
    ) -> int:
        """Delete all snapshots of an aggregate, whatever their schema version; return how many they were."""
        parameters = _identified(aggregate_type, aggregate_id)
        async with self._scope.write(uow, single=True) as connection:
            return (await execute_kept(connection, delete(self._table), parameters)).rowcount

    async def prune(
        self,
        aggregate_type: str | None = None,
        *,
        keep: int = 1,
        batch_size: int = 1000,
        uow: SQLAlchemyUnitOfWork | None = None,
    ) -> int:
        """Delete all but the newest snapshots of each aggregate, and return how many that were.

        It walks through the table once, a batch at a time, each in a transaction of its own unless a unit of work is
        open. What is saved after it has begun is left for the next time, so it ends however busy savers are; and a row
        that somebody has locked is left, too, so it waits for nobody.

        Args:
            aggregate_type: of the aggregates; all of them without.
            keep: so many of each aggregate, from 1, counted whatever their schema version.
            batch_size: how many snapshots one transaction looks at.
            uow: joined when open.
        """
        if check_count("keep", keep) == 0:
            raise ValueError("keep is 0: keep at least one, or delete an aggregate's snapshots with delete_snapshot")
        if check_count("batch_size", batch_size) == 0:
            raise ValueError("batch_size is 0: look at one snapshot at a time or more")
        if aggregate_type is not None:
            check_id("aggregate_type", aggregate_type)
        batch = {"started": await self._now(uow=uow), "size": batch_size, "others": keep - 1}
        if aggregate_type is not None:
            return await self._prune_type(batch | {"type": aggregate_type}, uow=uow)
        deleted, of_type = 0, await self._next_type("", uow=uow)
        while of_type is not None:
            deleted += await self._prune_type(batch | {"type": of_type}, uow=uow)
            of_type = await self._next_type(of_type, uow=uow)
        return deleted

    async def _prune_type(self, batch: dict[str, Any], *, uow: SQLAlchemyUnitOfWork | None) -> int:
        deleted, after = 0, place_parameters("after", IN_FRONT)
        while (last := await self._end_of_batch(batch | after, uow=uow)) is not None:
            deleted += await self._delete_superseded(batch | after | place_parameters("last", last), uow=uow)
            after = place_parameters("after", last)
        return deleted

    @repeated
    async def _now(self, *, uow: SQLAlchemyUnitOfWork | None) -> datetime:
        async with self._scope.read(uow) as connection:
            clock = sa.type_coerce(dialect_of(connection).now, UTCDateTime())
            return (await connection.execute(sa.select(clock))).scalar_one()

    @repeated
    async def _next_type(self, aggregate_type: str, *, uow: SQLAlchemyUnitOfWork | None) -> str | None:
        async with self._scope.read(uow) as connection:
            found: str | None = await connection.scalar(next_type(self._table), {"type": aggregate_type})
            return found

    @repeated
    async def _end_of_batch(self, batch: dict[str, Any], *, uow: SQLAlchemyUnitOfWork | None) -> Place | None:
        """Return where the next batch ends, None behind the last one; without the lock that writing would take."""
        async with self._scope.read(uow) as connection:
            row = (await connection.execute(end_of_batch(self._table), batch)).first()
            return None if row is None else (row.aggregate_id, row.version)

    @repeated
    async def _delete_superseded(self, batch: dict[str, Any], *, uow: SQLAlchemyUnitOfWork | None) -> int:
        async with self._scope.write(uow) as connection:
            statement = delete_superseded(self._table, dialect_of(connection).name)
            return len((await connection.execute(statement, batch)).all())


def _identified(aggregate_type: str, aggregate_id: str) -> dict[str, Any]:
    return {
        "type": check_id("aggregate_type", aggregate_type),
        "id": check_id("aggregate_id", aggregate_id),
    }


def _check_schema_version(schema_version: int | None) -> int | None:
    return None if schema_version is None else check_count("schema_version", schema_version)


def _json(snapshot_data: Mapping[str, Any] | BaseModel) -> str:
    if isinstance(snapshot_data, BaseModel):
        # Without computed fields, which the class would not take when it is made of the snapshot.
        snapshot_data = snapshot_data.model_dump(by_alias=True, round_trip=True)
    if not isinstance(snapshot_data, Mapping):
        raise ValueError(f"snapshot_data is a {type(snapshot_data).__name__}: give a dict or a pydantic model")
    return to_document_and_text(snapshot_data, "snapshot_data")[1]
