"""How far each projection has come."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from cqrs_ddd_advanced_core.identifiers import check_identifier
from cqrs_ddd_persistence_sqlalchemy.advanced.models import positions_table, projection_positions, projection_runs
from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_named, dialect_of, execute_kept
from cqrs_ddd_persistence_sqlalchemy.core.models import in_schema
from cqrs_ddd_persistence_sqlalchemy.core.scope import SessionScope, repeated
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_count, check_id, check_schema
from cqrs_ddd_persistence_sqlalchemy.exceptions import (
    OptimisticConcurrencyError,
    ProjectionPausedError,
    ProjectionWaitError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from cqrs_ddd_persistence_sqlalchemy.core.joining import SessionFactory
    from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork


_FIRST_POLL_SECONDS = 0.005
_LONGEST_POLL_SECONDS = 0.1


class SQLAlchemyProjectionPositionStore:
    """Keeps one position a projection, which only ever moves forward.

    Args:
        session_factory: for operations without a unit of work.
        table_name: a table of another name has the columns of `projection_positions` and is the application's to
            migrate.
        uow_factory: returns the unit of work to use where none is given.
        schema: the database schema of the table; the connection's default when omitted.

    Raises:
        ValueError: when `table_name` or `schema` is no identifier.
    """

    def __init__(
        self,
        session_factory: SessionFactory | None = None,
        *,
        table_name: str = "projection_positions",
        uow_factory: Callable[[], SQLAlchemyUnitOfWork] | None = None,
        schema: str | None = None,
    ) -> None:
        self._table = in_schema(_named(check_identifier(table_name, kind="table")), check_schema(schema))
        self._scope = SessionScope(type(self).__name__, session_factory=session_factory, uow_factory=uow_factory)

    @repeated
    async def get_position(self, projection_name: str, *, uow: SQLAlchemyUnitOfWork | None = None) -> int | None:
        """Return the position last saved, or None when there is none."""
        name = _check_name(projection_name)
        async with self._scope.read(uow) as connection:
            return await self._read(connection, name)

    @repeated
    async def save_position(
        self,
        projection_name: str,
        position: int,
        *,
        expected: int | None = None,
        uow: SQLAlchemyUnitOfWork | None = None,
    ) -> bool:
        """Move a projection forward.

        Args:
            projection_name: 1 to 255 characters.
            position: the last one handled.
            expected: the position that must be the saved one (0 also stands for none), so that of two runners of one
                projection only one goes on.
            uow: joined when open.

        Returns:
            True when the position advanced; False when the saved one is as new or newer, and nothing changed.

        Raises:
            OptimisticConcurrencyError: another position than `expected` is saved.
            ValueError: naming what is no position or name.
        """
        name = _check_name(projection_name)
        values = {"name": name, "new": check_count("position", position)}
        if expected is not None and check_count("expected", expected) > 0:
            values["expected"] = expected
        async with self._scope.write(uow, single=True) as connection:
            database = dialect_of(connection).name
            if expected:
                statement = _move_on(self._table, database)
            else:
                statement = _start_or_move_on(self._table, database, only_from_zero=expected is not None)
            while True:
                if (await execute_kept(connection, statement, values)).rowcount:
                    return True
                if expected is None:
                    return False
                actual = await self._read(connection, name)
                if (actual or 0) != expected:
                    raise OptimisticConcurrencyError("projection position", name, expected=expected, actual=actual)
                if position <= expected:
                    return False
                # Another runner has just saved what this one expects: now the statement can succeed.

    @repeated
    async def reset_position(self, projection_name: str, *, uow: SQLAlchemyUnitOfWork | None = None) -> bool:
        """Forget a projection's position, so that it starts again; returns False when there was none."""
        statement = _reset(self._table)
        async with self._scope.write(uow, single=True) as connection:
            return bool((await execute_kept(connection, statement, {"name": _check_name(projection_name)})).rowcount)

    @repeated
    async def all_positions(self, *, uow: SQLAlchemyUnitOfWork | None = None) -> dict[str, int]:
        """Return all positions by projection name, in the names' order."""
        table = self._table
        statement = sa.select(table.c.projection_name, table.c.position).order_by(table.c.projection_name)
        async with self._scope.read(uow) as connection:
            return {row.projection_name: row.position for row in await connection.execute(statement)}

    async def wait_for(self, projection_name: str, position: int, *, timeout: timedelta | float) -> int:
        """Return the position that a projection has reached, once that is as far as `position`: read your writes.

        It polls in short transactions of its own, so call it outside of units of work: what an open one appended is
        not committed yet.

        Args:
            projection_name: of the projection.
            position: as `append` returned it: `events[-1].position`.
            timeout: a timedelta, or seconds.

        Raises:
            ProjectionPausedError: the projection stands still before that position. Raised at once.
            ProjectionWaitError: not reached in time; its `state` tells "behind" from "not running". Also a
                TimeoutError.
        """
        name = _check_name(projection_name)
        check_count("position", position)
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            raise ValueError(f"timeout is {timeout!r}: give a timedelta, or seconds")
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        pause = _FIRST_POLL_SECONDS
        while True:
            async with self._scope.read(None) as connection:
                statement = _progress(self._table, connection.dialect.name)
                row = (await connection.execute(statement, {"name": name})).one()
            if (row.position or 0) >= position:
                return int(row.position or 0)
            if row.paused:
                raise ProjectionPausedError(name, row.error_position, row.error)
            left = until - loop.time()
            if left <= 0:
                state = "behind" if row.running else "not running"
                raise ProjectionWaitError(name, position, row.position or 0, state, row.error)
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_POLL_SECONDS)

    async def _read(self, connection: AsyncConnection, name: str) -> int | None:
        position: int | None = (await execute_kept(connection, _get(self._table), {"name": name})).scalar()
        return position


@lru_cache(maxsize=128)
def _named(table_name: str) -> sa.Table:
    if table_name == projection_positions.name:
        return projection_positions
    return positions_table(table_name, sa.MetaData())


@lru_cache(maxsize=1024)
def _get(table: sa.Table) -> sa.Select[Any]:
    return sa.select(table.c.position).where(table.c.projection_name == sa.bindparam("name"))


@lru_cache(maxsize=1024)
def _progress(table: sa.Table, dialect_name: str) -> sa.Select[Any]:
    """Read, in one row, where a projection is and whether anybody runs it."""
    runs = in_schema(projection_runs, table.schema)
    name = sa.bindparam("name", type_=sa.String())
    only = sa.select(name.label("name")).subquery("only")
    return sa.select(
        table.c.position,
        runs.c.paused_at.is_not(None).label("paused"),
        (runs.c.lease_until > dialect_named(dialect_name).now).label("running"),
        runs.c.error_position,
        runs.c.error,
    ).select_from(
        only.outerjoin(table, table.c.projection_name == only.c.name).outerjoin(
            runs, runs.c.projection_name == only.c.name
        )
    )


@lru_cache(maxsize=1024)
def _reset(table: sa.Table) -> sa.Delete:
    return sa.delete(table).where(table.c.projection_name == sa.bindparam("name"))


@lru_cache(maxsize=1024)
def _move_on(table: sa.Table, dialect_name: str) -> sa.Update:
    """Move a position that is there and as expected."""
    return (
        sa.update(table)
        .where(
            table.c.projection_name == sa.bindparam("name"),
            table.c.position == sa.bindparam("expected"),
            table.c.position < sa.bindparam("new"),
        )
        .values(position=sa.bindparam("new"), updated_at=dialect_named(dialect_name).now)
    )


@lru_cache(maxsize=1024)
def _start_or_move_on(table: sa.Table, dialect_name: str, *, only_from_zero: bool) -> Any:
    """Insert a position, or move one that is older."""
    dialect = dialect_named(dialect_name)
    insert = dialect.insert(table).values(
        projection_name=sa.bindparam("name"), position=sa.bindparam("new"), updated_at=dialect.now
    )
    older = table.c.position < insert.excluded.position
    if only_from_zero:
        older = sa.and_(older, table.c.position == 0)
    return insert.on_conflict_do_update(
        index_elements=[table.c.projection_name],
        set_={"position": insert.excluded.position, "updated_at": insert.excluded.updated_at},
        where=older,
    )


def _check_name(projection_name: str) -> str:
    return check_id("projection_name", projection_name)
