"""A migration deletes neither rows nor triggers unasked."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic.util import CommandError
from sqlalchemy import event

from cqrs_ddd_persistence_sqlalchemy.core.dialect import TableRef, dialect_of
from cqrs_ddd_persistence_sqlalchemy.schema.rendering import colons_escaped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Connection

# The table into which a batch operation copies the rows of the one that it then drops.
_BATCH_COPY = "_alembic_tmp_{}"


@contextmanager
def nothing_lost(connection: Connection, *, drops_refused: bool) -> Iterator[None]:
    """Refuse, while the block runs, what would delete rows as a side effect; what was done before is rolled back.

    Where a copy takes a table's place, its triggers are put back at the end, and the defaults of its columns stay what
    they are.

    Args:
        connection: of the migration.
        drops_refused: whether to refuse dropping a table with rows in it. Where a copy takes the table's place, rows of
            other tables may go with it: that is refused in any case.

    Raises:
        CommandError: naming the table and the way out.
    """
    triggers: dict[str, tuple[str, str]] = {}

    def check(table: sa.Table, _bind: object, **_: Any) -> None:
        if sa.inspect(connection).has_table(_BATCH_COPY.format(table.name), schema=table.schema):
            _refuse_cascade(connection, table)
            found = dialect_of(connection).triggers(connection, table.name)
            triggers.update({name: (table.name, sql) for name, sql in found.items()})
        elif drops_refused:
            _refuse_drop(connection, table)

    event.listen(sa.Table, "before_drop", check)
    event.listen(sa.Table, "column_reflect", _escape_default)
    try:
        yield
    finally:
        event.remove(sa.Table, "column_reflect", _escape_default)
        event.remove(sa.Table, "before_drop", check)
    for name, (table, sql) in triggers.items():
        still_there = dialect_of(connection).triggers(connection, table)
        if name not in still_there and sa.inspect(connection).has_table(table):
            connection.exec_driver_sql(sql)


def _escape_default(_inspector: object, _table: object, column: Any) -> None:
    """Keep SQLAlchemy from reading a colon in a default as the beginning of a parameter, for which it writes NULL."""
    if column["default"] is not None:
        column["default"] = colons_escaped(column["default"])


def _refuse_drop(connection: Connection, table: sa.Table) -> None:
    # A row that another transaction is about to commit would not be seen, and be dropped.
    dialect_of(connection).lock_table(connection, TableRef(table.name, table.schema))
    rows = sa.table(table.name, schema=table.schema)
    if connection.scalar(sa.select(sa.literal(1)).select_from(rows).limit(1)) is not None:
        raise CommandError(
            f"this downgrade would drop table {table.name!r}, which has rows in it; nothing is changed. "
            "To drop them: alembic -x allow-data-loss=yes downgrade ..."
        )


def _refuse_cascade(connection: Connection, table: sa.Table) -> None:
    children = dialect_of(connection).rows_deleted_with(connection, table.name)
    if children:
        raise CommandError(
            f"rebuilding table {table.name!r} inside your transaction would delete or change rows of "
            f"{', '.join(children)}, which refer to it, as foreign keys are enforced: hand over a connection that "
            "is in no transaction, or one with PRAGMA foreign_keys = OFF"
        )
