"""A downgrade may not drop rows unasked."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic.util import CommandError
from sqlalchemy import event

from cqrs_ddd_persistence_sqlalchemy.core.dialect import TableRef, dialect_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Connection

# The table into which a batch operation copies the rows of the one that it then drops.
_BATCH_COPY = "_alembic_tmp_{}"


@contextmanager
def tables_with_rows_kept(connection: Connection) -> Iterator[None]:
    """Refuse to drop a table that holds rows while the block runs; what was done before is rolled back with it.

    Raises:
        CommandError: naming the table and the way to drop it all the same.
    """

    def check(table: sa.Table, _bind: object, **_: Any) -> None:
        copy = _BATCH_COPY.format(table.name)
        if sa.inspect(connection).has_table(copy, schema=table.schema):
            return
        # A row that another transaction is about to commit would not be seen, and be dropped.
        dialect_of(connection).lock_table(connection, TableRef(table.name, table.schema))
        rows = sa.table(table.name, schema=table.schema)
        if connection.scalar(sa.select(sa.literal(1)).select_from(rows).limit(1)) is not None:
            raise CommandError(
                f"this downgrade would drop table {table.name!r}, which has rows in it; nothing is changed. "
                "To drop them: alembic -x allow-data-loss=yes downgrade ..."
            )

    event.listen(sa.Table, "before_drop", check)
    try:
        yield
    finally:
        event.remove(sa.Table, "before_drop", check)
