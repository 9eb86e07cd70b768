"""Steps of a revision that Alembic has no operation for, and how they are written into its file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alembic.autogenerate import renderers
from alembic.autogenerate.render import render_op
from alembic.operations import ops

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alembic.autogenerate.api import AutogenContext

_IS_POSTGRESQL = 'op.get_context().dialect.name == "postgresql"'
_IS_SQLITE = 'op.get_context().dialect.name == "sqlite"'


class CommentOp(ops.MigrateOperation):
    """A line that the reader of the revision should see; it does nothing."""

    def __init__(self, text: str) -> None:
        self.text = text


class BlockOp(ops.OpContainer):
    """Operations below a line that ends with a colon, and others below `else:`."""

    def __init__(
        self,
        header: str,
        operations: Sequence[ops.MigrateOperation],
        otherwise: Sequence[ops.MigrateOperation] = (),
    ) -> None:
        super().__init__([*operations, *otherwise])
        self.header = header
        self.operations = operations
        self.otherwise = otherwise


class RefuseMisfitsOp(ops.MigrateOperation):
    """Stop where a column has a value that is about to be changed without a word.

    Attributes:
        condition: in SQL, true for rows with such values; `sqlite_condition` the same there.
    """

    def __init__(self, table: str, column: str, becomes: str, condition: str, sqlite_condition: str) -> None:
        self.table = table
        self.column = column
        self.becomes = becomes
        self.condition = condition
        self.sqlite_condition = sqlite_condition


class ConvertColumnOp(ops.AlterColumnOp):
    """A change of type with the expression by which PostgreSQL converts the values."""

    def __init__(self, *args: Any, using: str | None, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.using = using


def on_postgresql(
    why: str, operations: Sequence[ops.MigrateOperation], otherwise: Sequence[ops.MigrateOperation] = ()
) -> BlockOp:
    """Do this on PostgreSQL, and something else or nothing elsewhere."""
    return BlockOp(f"if {_IS_POSTGRESQL}:  # {why}", operations, otherwise)


def on_sqlite(why: str, operations: Sequence[ops.MigrateOperation]) -> BlockOp:
    """Do this on SQLite only."""
    return BlockOp(f"if {_IS_SQLITE}:  # {why}", operations)


def autocommitted(operations: Sequence[ops.MigrateOperation]) -> BlockOp:
    """Do this outside of a transaction."""
    return BlockOp("with op.get_context().autocommit_block():", operations)


def autocommitted_on_postgresql(operations: Sequence[ops.MigrateOperation]) -> BlockOp:
    """Do this outside of a transaction on PostgreSQL, and as part of it elsewhere."""
    return BlockOp(f"with op.get_context().autocommit_block() if {_IS_POSTGRESQL} else nullcontext():", operations)


def changes(operations: Sequence[ops.MigrateOperation]) -> list[ops.MigrateOperation]:
    """Return what changes the database, without what is only written or looked at, out of its blocks."""
    found: list[ops.MigrateOperation] = []
    for operation in operations:
        if isinstance(operation, ops.OpContainer):
            found += changes(operation.ops)
        elif not isinstance(operation, CommentOp | RefuseMisfitsOp):
            found.append(operation)
    return found


@renderers.dispatch_for(CommentOp)
def _comment(_context: AutogenContext, comment: CommentOp) -> str:
    return f"# {comment.text}"


@renderers.dispatch_for(BlockOp)
def _block(context: AutogenContext, block: BlockOp) -> list[str]:
    if "nullcontext" in block.header:
        context.imports.add("from contextlib import nullcontext")
    lines = [block.header, *_rendered(context, block.operations)]
    if block.otherwise:
        lines += ["else:", *_rendered(context, block.otherwise)]
    return [*lines, ""]  # an empty line ends the indentation


def _rendered(context: AutogenContext, operations: Sequence[ops.MigrateOperation]) -> list[str]:
    return [line for operation in operations for line in render_op(context, operation)]


@renderers.dispatch_for(RefuseMisfitsOp)
def _refuse_misfits(context: AutogenContext, refusal: RefuseMisfitsOp) -> list[str]:
    context.imports.add("from alembic.util import CommandError")
    lock = f'LOCK TABLE "{refusal.table}" IN ACCESS EXCLUSIVE MODE'
    query = 'SELECT count(*) FROM "{}" WHERE {}'
    lines = [
        f"if {_IS_POSTGRESQL}:  # no such row may come in between",
        f"op.execute({lock!r})",
        "",
        f"misfits = {query.format(refusal.table, refusal.condition)!r}",
    ]
    if refusal.sqlite_condition != refusal.condition:
        other = query.format(refusal.table, refusal.sqlite_condition)
        lines += [f"if {_IS_SQLITE}:", f"misfits = {other!r}", ""]
    message = f"{refusal.table}.{refusal.column} has values that do not fit {refusal.becomes}; nothing is changed"
    return [
        *lines,
        "if not op.get_context().as_sql and op.get_bind().scalar(sa.text(misfits)):",
        f"raise CommandError({message!r})",
        "",
    ]


@renderers.dispatch_for(ConvertColumnOp)
def _convert_column(context: AutogenContext, convert: ConvertColumnOp) -> str:
    plain = renderers.dispatch(ops.AlterColumnOp(convert.table_name, convert.column_name))
    text: str = plain(context, convert)
    if convert.using is None:
        return text
    return f"{text.removesuffix(')')},\n{' ' * 11}postgresql_using={convert.using!r})"
