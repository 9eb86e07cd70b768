"""Claims of sagas: who may work on one, until when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_of
from cqrs_ddd_persistence_sqlalchemy.core.mapping import VERSION
from cqrs_ddd_persistence_sqlalchemy.core.repository_statements import UPDATED_AT
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime, timedelta

    from sqlalchemy.ext.asyncio import AsyncConnection

    from cqrs_ddd_persistence_sqlalchemy.advanced.sagas.due import Wanted
    from cqrs_ddd_persistence_sqlalchemy.core.dialect import DatabaseDialect
    from cqrs_ddd_persistence_sqlalchemy.core.mapping import EntityTable


class Claims:
    """Takes sagas for one worker, and keeps them for it.

    Args:
        rows: the table.
        own: what a row must be like to be the repository's.
    """

    def __init__(self, rows: EntityTable, own: tuple[sa.ColumnElement[bool], ...]) -> None:
        self._rows = rows
        self._own = own

    async def present(self, connection: AsyncConnection, kinds: Sequence[Wanted]) -> list[Wanted]:
        """Return those kinds of which there are sagas now."""
        looks = [sa.exists(sa.select(1).where(*self._own, *kind.conditions)) for kind in kinds]
        found = (await connection.execute(sa.select(*looks))).one()
        return [kind for kind, there in zip(kinds, found, strict=True) if there]

    async def take(
        self, connection: AsyncConnection, wanted: Wanted, limit: int, lease: timedelta
    ) -> list[dict[str, Any]]:
        """Take sagas that nobody else is given until the lease ends, oldest first, as rows by attribute."""
        until = self.until(lease)
        dialect, columns = dialect_of(connection), self._rows.columns
        chosen = sa.select(self._rows.key).where(*self._own, *wanted.conditions)
        chosen = chosen.order_by(wanted.order, self._rows.key).limit(check_count("limit", limit))
        # Materialized: planned as a subquery, PostgreSQL may run it once for each row, and take more than the limit.
        limited = dialect.skip_locked(chosen).cte("wanted").prefix_with("MATERIALIZED")
        taken = {
            columns["lease_until"]: until(dialect),
            columns[VERSION]: columns[VERSION] + 1,
            columns[UPDATED_AT]: dialect.now,
        }
        statement = sa.update(self._rows.table).where(
            self._rows.key.in_(sa.select(limited.c[self._rows.key.name])), *wanted.conditions
        )
        labelled = [column.label(name) for name, column in columns.items()]
        rows = (await connection.execute(statement.values(taken).returning(*labelled))).mappings().all()
        return [dict(row) for row in sorted(rows, key=lambda row: (row["created_at"], row["id"]))]

    async def prolong(self, connection: AsyncConnection, saga_id: str, version: int | None, lease: timedelta) -> bool:
        """Let a claim end later; False when the saga has another version by now."""
        column, until = self._rows.columns["lease_until"], self.until(lease)(dialect_of(connection))
        statement = sa.update(self._rows.table).where(
            self._rows.key == saga_id, self._rows.columns[VERSION] == version, *self._own
        )
        return bool((await connection.execute(statement.values({column: until}))).rowcount)

    def until(self, lease: timedelta) -> Callable[[DatabaseDialect], sa.ColumnElement[datetime]]:
        """Return what says when a lease that begins now ends.

        Raises:
            ValueError: it makes no sense.
        """
        seconds = lease.total_seconds()
        if seconds <= 0:
            raise ValueError(f"lease is {lease!r}: give a timedelta above 0")
        return lambda dialect: dialect.later(sa.literal(seconds, sa.Double()))
