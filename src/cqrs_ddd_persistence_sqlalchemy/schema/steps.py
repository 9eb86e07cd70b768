"""Single steps of a change: each runs on both databases, on PostgreSQL beside an application that goes on working."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic.operations import ops
from sqlalchemy.schema import conv

from cqrs_ddd_advanced_core.identifiers import bounded_name
from cqrs_ddd_persistence_sqlalchemy.schema.operations import (
    CommentOp,
    autocommitted,
    autocommitted_on_postgresql,
    on_postgresql,
    on_sqlite,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cqrs_ddd_persistence_sqlalchemy.schema.inspection import UniqueKey

    Operations = list[ops.MigrateOperation]

_WHERES = ("postgresql_where", "sqlite_where")


def create_table(table: sa.Table, indexes: Iterable[sa.Index]) -> Operations:
    """Create a table with its indexes, while nobody uses it."""
    in_order = sorted(indexes, key=lambda index: str(index.name))
    return [ops.CreateTableOp.from_table(table), *(ops.CreateIndexOp.from_index(index) for index in in_order)]


def drop_index(named: sa.Index | UniqueKey, table: str, **options: Any) -> ops.DropIndexOp:
    """Drop an index, or the one of a UNIQUE constraint that is to come."""
    return ops.DropIndexOp(conv(str(named.name)), table_name=table, **options)


def altered(table: str, operations: Operations, kept: Iterable[sa.Index]) -> Operations:
    """Change columns and constraints, for which SQLite copies the table into a new one.

    Args:
        table: its name.
        operations: on columns and constraints of the table.
        kept: its indexes at this moment; the copy would forget the order of descending ones and may misread conditions.
    """
    if not operations:
        return []
    forgotten = [index for index in kept if _is_forgotten(index)]
    change: Operations = [ops.ModifyTableOps(table, operations)]
    if not forgotten:
        return change
    drop = [drop_index(index, table) for index in forgotten]
    create = [ops.CreateIndexOp.from_index(index) for index in forgotten]
    return [
        on_sqlite("rebuilding forgets order and condition", drop),
        *change,
        on_sqlite("as they were", create),
    ]


def added(table: str, columns: Iterable[sa.Column[Any]]) -> tuple[Operations, Operations]:
    """Add columns.

    Returns:
        The operations that need no copy on SQLite, and those that belong inside `altered`.
    """
    plain: Operations = []
    copying: Operations = []
    for column in columns:
        (copying if _needs_copy(column) else plain).append(ops.AddColumnOp(table, column))
    return plain, copying


def restored(table: str, columns: Sequence[sa.Column[Any]], kept: Iterable[sa.Index]) -> Operations:
    """Add columns that were dropped; what was in them is lost."""
    lost = [column for column in columns if not column.nullable and column.server_default is None]
    back = [_nullable(column) if column in lost else column for column in columns]
    names = ", ".join(column.name for column in lost)
    comment: Operations = [CommentOp(f"{names}: NULL until they are filled again, so NOT NULL is not restored.")]
    plain, copying = added(table, back)
    return (comment if lost else []) + plain + altered(table, copying, kept)


def alteration(column: sa.Column[Any], table: str, **changes: Any) -> ops.AlterColumnOp:
    """Change one column; `changes` are those of AlterColumnOp."""
    return ops.AlterColumnOp(table, column.name, existing_type=column.type, **changes)


def drop_unique(table: str, unique: UniqueKey) -> ops.MigrateOperation:
    """Drop a UNIQUE constraint, inside `altered`."""
    return ops.DropConstraintOp(conv(unique.name), table, type_="unique")


def create_unique(table: str, unique: UniqueKey) -> ops.MigrateOperation:
    """Create a UNIQUE constraint, inside `altered`."""
    return ops.CreateUniqueConstraintOp(conv(unique.name), table, list(unique.columns))


def index_without_locking(index: sa.Index) -> Operations:
    """Build an index beside the writers; what an interrupted run has left is dropped first.

    For a revision of its own: what it does cannot be rolled back.
    """
    assert index.table is not None  # noqa: S101  (for the type checker)
    create = ops.CreateIndexOp.from_index(index)
    create.kw["postgresql_concurrently"] = True
    drop = drop_index(index, index.table.name, if_exists=True, postgresql_concurrently=True)
    return [
        CommentOp("Beside the writers, so in no transaction; what an interrupted run has left is dropped first."),
        autocommitted_on_postgresql([drop, create]),
    ]


def unique_index_without_locking(table: str, unique: UniqueKey) -> Operations:
    """Build the index of a UNIQUE constraint that is to come, where one can be made of the other."""
    drop = drop_index(unique, table, if_exists=True, postgresql_concurrently=True)
    create = ops.CreateIndexOp(
        conv(unique.name), table, list(unique.columns), unique=True, postgresql_concurrently=True
    )
    why = "what an interrupted run has left is dropped first"
    return [on_postgresql(why, [autocommitted([drop, create])])]


def drop_unique_index(table: str, unique: UniqueKey) -> Operations:
    """Drop that index, unless it went with the constraint."""
    drop = drop_index(unique, table, if_exists=True)
    return [on_postgresql("it may have gone with its constraint", [drop])]


def unique_by_index(table: str, unique: UniqueKey, kept: Iterable[sa.Index]) -> Operations:
    """Create a UNIQUE constraint, of the index that is there already on PostgreSQL."""
    name = unique.name
    using = ops.ExecuteSQLOp(f'ALTER TABLE "{table}" ADD CONSTRAINT "{name}" UNIQUE USING INDEX "{name}"')
    return [
        on_postgresql("takes over the index", [using], altered(table, [create_unique(table, unique)], kept)),
    ]


def promise_not_null(table: str, column: str) -> Operations:
    """Let no more NULLs in, without looking at the rows that are there."""
    check = f'ALTER TABLE "{table}" ADD CONSTRAINT "{_promise(table, column)}" CHECK ("{column}" IS NOT NULL) NOT VALID'
    return [on_postgresql("no more NULLs from here on; the next revision looks at the rows", [ops.ExecuteSQLOp(check)])]


def forget_not_null(table: str, column: str) -> Operations:
    """Take the promise back, unless it has been kept."""
    drop = f'ALTER TABLE "{table}" DROP CONSTRAINT IF EXISTS "{_promise(table, column)}"'
    return [on_postgresql("gone if the next revision has run", [ops.ExecuteSQLOp(drop)])]


def keep_not_null(table: str, column: sa.Column[Any], kept: Iterable[sa.Index]) -> Operations:
    """Look at the rows beside the writers; then NOT NULL needs no look of its own, which nobody could write during."""
    promise = _promise(table, column.name)
    never_null = alteration(column, table, modify_nullable=False)
    on_the_server: Operations = [
        ops.ExecuteSQLOp(f'ALTER TABLE "{table}" VALIDATE CONSTRAINT "{promise}"'),
        never_null,
        ops.ExecuteSQLOp(f'ALTER TABLE "{table}" DROP CONSTRAINT "{promise}"'),
    ]
    return [on_postgresql("looks at the rows beside the writers", on_the_server, altered(table, [never_null], kept))]


def _promise(table: str, column: str) -> str:
    return bounded_name("nn", table, column)


def _is_forgotten(index: sa.Index) -> bool:
    is_descending = any(not isinstance(expression, sa.Column) for expression in index.expressions)
    return is_descending or any(index.kwargs.get(option) is not None for option in _WHERES)


def _needs_copy(column: sa.Column[Any]) -> bool:
    """Tell what SQLite's ADD COLUMN refuses: a default that is no constant, and NOT NULL without one."""
    default = column.server_default
    if default is None:
        return not column.nullable
    return isinstance(default, sa.DefaultClause) and str(default.arg) == "CURRENT_TIMESTAMP"


def _nullable(column: sa.Column[Any]) -> sa.Column[Any]:
    return sa.Column(column.name, column.type, nullable=True)
