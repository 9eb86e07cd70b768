"""Who runs a projection: one owner at a time, by the database's clock."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from cqrs_ddd_advanced_core.error_text import shortened
from cqrs_ddd_persistence_sqlalchemy.advanced.models import projection_runs
from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_named, dialect_of, execute_kept
from cqrs_ddd_persistence_sqlalchemy.core.models import in_schema
from cqrs_ddd_persistence_sqlalchemy.core.scope import SessionScope
from cqrs_ddd_persistence_sqlalchemy.exceptions import LeaseLostError, ProjectionPausedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta

    from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork

#: What `projection_runs` says where nobody runs the projection, and where nothing has failed.
UNLEASED: Mapping[str, Any] = {"owner": None, "lease_until": None}
NO_FAILURE: Mapping[str, Any] = {"failures": 0, "error": None, "error_position": None}


@dataclass(frozen=True)
class Lease:
    """The right to run a projection.

    Attributes:
        token: of this owner; whoever takes over gets a higher one, and what this one writes is refused from then on.
        has_failed: whether a failure is noted, under an earlier owner perhaps.
    """

    projection_name: str
    token: int
    has_failed: bool


class Leases:
    """Gives, renews and takes back the lease of one projection.

    Args:
        projection_name: of the projection.
        owner: who asks, such as host and process id.
        lease: how long it holds without renewal.
        uow_factory: returns idle units of work, for transactions of its own.
        schema: the database schema of the table.
    """

    def __init__(
        self,
        projection_name: str,
        owner: str,
        lease: timedelta,
        uow_factory: Callable[[], SQLAlchemyUnitOfWork],
        schema: str | None,
    ) -> None:
        self._name = projection_name
        self._owner = owner
        self._seconds = lease.total_seconds()
        self._table = in_schema(projection_runs, schema)
        self._scope = SessionScope("ProjectionRunner", uow_factory=uow_factory)

    async def acquire(self, *, uow: SQLAlchemyUnitOfWork | None = None) -> Lease | None:
        """Take the lease if it is free and the projection is not paused; None otherwise."""
        async with self._scope.read(uow) as connection:  # spares the others a writing transaction at each poll
            statement = _taken(self._table, connection.dialect.name)
            if (await execute_kept(connection, statement, {"name": self._name, "asking": self._owner})).scalar():
                return None
        async with self._scope.write(uow, single=True) as connection:
            statement = _acquire(self._table, connection.dialect.name)
            values = {"name": self._name, "asking": self._owner, "seconds": self._seconds}
            row = (await execute_kept(connection, statement, values)).mapping()
        return None if row is None else Lease(self._name, row["token"], row["error"] is not None)

    async def renew(self, lease: Lease, *, uow: SQLAlchemyUnitOfWork | None = None, forget: bool = False) -> None:
        """Make the lease last on, in the transaction of a batch or in one of its own.

        In a batch it is the fence: the row is locked until the batch commits, so nobody takes over in between.

        Args:
            lease: that is held.
            uow: of the batch.
            forget: the last failure, which the batch has overcome.

        Raises:
            LeaseLostError: somebody has taken over, or paused the projection.
        """
        async with self._scope.write(uow, single=True) as connection:
            statement = _renew(self._table, connection.dialect.name, forget=forget)
            values = {"name": self._name, "held": lease.token, "seconds": self._seconds}
            self._must_be_mine((await execute_kept(connection, statement, values)).rowcount)

    async def release(self, lease: Lease) -> None:
        """Give the lease back, unless it is lost."""
        table = self._table
        statement = sa.update(table).values(UNLEASED)
        async with self._scope.write(None, single=True) as connection:
            await connection.execute(statement.where(*_mine(table, lease)))

    async def note_failure(self, lease: Lease, position: int, error: str) -> int:
        """Remember a failure, and return how many in a row this event has seen by now.

        Raises:
            LeaseLostError: as for `renew`.
        """
        table = self._table
        again = sa.case((table.c.error_position == position, table.c.failures + 1), else_=1)
        statement = (
            sa.update(table)
            .where(*_mine(table, lease), table.c.paused_at.is_(None))
            .values(failures=again, error=shortened(error), error_position=position)
            .returning(table.c.failures)
        )
        async with self._scope.write(None, single=True) as connection:
            failures = await connection.scalar(statement)
            self._must_be_mine(failures)
            return int(failures or 0)

    async def note_trouble(self, error: str) -> None:
        """Let `status` show what keeps the projection from being run, though no event is to blame."""
        table = self._table
        statement = sa.update(table).values(error=shortened(error), error_position=None, failures=0)
        statement = statement.where(table.c.projection_name == self._name, table.c.failures == 0)
        async with self._scope.write(None, single=True) as connection:
            free = _free(table, connection.dialect.name)  # not where another owner has no trouble
            await connection.execute(statement.where(free), {"asking": self._owner})

    async def pause(self, lease: Lease) -> None:
        """Stand still at the last failure, until somebody resumes the projection.

        Raises:
            LeaseLostError: as for `renew`.
        """
        table = self._table
        async with self._scope.write(None, single=True) as connection:
            now = dialect_of(connection).now
            statement = sa.update(table).values({"paused_at": now, **UNLEASED})
            self._must_be_mine((await connection.execute(statement.where(*_mine(table, lease)))).rowcount)

    async def paused(self) -> ProjectionPausedError | None:
        """Return why the projection is paused, None when it is not."""
        table = self._table
        statement = sa.select(table.c.error_position, table.c.error).where(
            table.c.projection_name == self._name, table.c.paused_at.is_not(None)
        )
        async with self._scope.read(None) as connection:
            row = (await connection.execute(statement)).one_or_none()
        return None if row is None else ProjectionPausedError(self._name, row.error_position, row.error)

    def _must_be_mine(self, rows: int | None) -> None:
        if not rows:
            raise LeaseLostError("projection", (self._name,))


def _mine(table: sa.Table, lease: Lease) -> list[sa.ColumnElement[bool]]:
    return [table.c.projection_name == lease.projection_name, table.c.token == lease.token]


def _free(table: sa.Table, dialect_name: str) -> sa.ColumnElement[bool]:
    expired = sa.or_(table.c.lease_until.is_(None), table.c.lease_until <= dialect_named(dialect_name).now)
    own = table.c.owner == sa.bindparam("asking")  # given back, but the database was not there to hear it
    return sa.and_(table.c.paused_at.is_(None), sa.or_(expired, own))


@lru_cache(maxsize=1024)
def _taken(table: sa.Table, dialect_name: str) -> sa.Select[Any]:
    is_it = table.c.projection_name == sa.bindparam("name")
    return sa.select(sa.literal(1)).where(is_it, sa.not_(_free(table, dialect_name)))


@lru_cache(maxsize=1024)
def _acquire(table: sa.Table, dialect_name: str) -> Any:
    dialect = dialect_named(dialect_name)
    until = dialect.later(sa.bindparam("seconds", type_=sa.Double()))
    insert = dialect.insert(table).values(
        projection_name=sa.bindparam("name"), token=1, owner=sa.bindparam("asking"), lease_until=until
    )
    taken_over = {
        "token": table.c.token + 1,
        "owner": insert.excluded.owner,
        "lease_until": insert.excluded.lease_until,
    }
    return insert.on_conflict_do_update(
        index_elements=[table.c.projection_name], set_=taken_over, where=_free(table, dialect_name)
    ).returning(table.c.token, table.c.error)


@lru_cache(maxsize=1024)
def _renew(table: sa.Table, dialect_name: str, *, forget: bool) -> sa.Update:
    values: dict[str, Any] = {
        "lease_until": dialect_named(dialect_name).later(sa.bindparam("seconds", type_=sa.Double()))
    }
    if forget:
        values |= NO_FAILURE
    return (
        sa.update(table)
        .where(
            table.c.projection_name == sa.bindparam("name"),
            table.c.token == sa.bindparam("held"),
            table.c.paused_at.is_(None),
        )
        .values(values)
    )
