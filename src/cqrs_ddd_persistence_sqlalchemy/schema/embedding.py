"""The library's chain inside an application's own: what its revisions call, and what its env.py is given."""

from __future__ import annotations

import logging
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

import alembic.context
import sqlalchemy as sa
from alembic import op
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError

from cqrs_ddd_persistence_sqlalchemy.advanced.projections.tables import build_table
from cqrs_ddd_persistence_sqlalchemy.core.dialect import PortableArray
from cqrs_ddd_persistence_sqlalchemy.schema import locking, rendering
from cqrs_ddd_persistence_sqlalchemy.schema.chain import LIBRARY_VERSION_TABLE, library_revisions
from cqrs_ddd_persistence_sqlalchemy.schema.data_loss import nothing_lost
from cqrs_ddd_persistence_sqlalchemy.schema.errors import schema_errors_in_one_line
from cqrs_ddd_persistence_sqlalchemy.schema.registry import check_collection
from cqrs_ddd_persistence_sqlalchemy.schema.target import LIBRARY_TABLES
from cqrs_ddd_persistence_sqlalchemy.schema.tenant_schemas import checked_schema, create_schema, inside_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from alembic.autogenerate.api import AutogenContext
    from sqlalchemy.engine import Connection

    from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema

logger = logging.getLogger("alembic.cqrs_ddd_persistence_sqlalchemy")

_OWN_TABLES = LIBRARY_TABLES | {LIBRARY_VERSION_TABLE}
_RENAME = "The library needs that name for a table of its own: rename yours before"
_versions = sa.table(LIBRARY_VERSION_TABLE, sa.column("version_num", sa.String(32)))


def upgrade(*, to: str, from_: str | None = None) -> None:
    """Run the library's revisions after one and up to another, in the transaction of the revision that calls this.

    `python -m cqrs_ddd_persistence_sqlalchemy.schema revision` writes such a revision after each update of the library.

    Args:
        to: the last revision to run, such as "cqrs_0003".
        from_: where the library's tables are, the `to` of the call before; None where there are none yet.

    Raises:
        CommandError: a revision is not known or the first is not before the second, or the database is elsewhere.
    """
    steps = _between(from_, to)
    with _moving(at=from_, to=to) as needed:
        if needed:
            for step in steps:
                library_revisions()[step].upgrade()
            _record(from_, to)


def downgrade(*, to: str | None = None, from_: str) -> None:
    """Take the library's revisions back, the last one first, down to one that stays.

    Args:
        to: the revision to come to, the `from_` of the way up; None to drop all tables.
        from_: where the library's tables are, the `to` of the way up.

    Raises:
        CommandError: as for `upgrade`; or a table has rows in it, unless Alembic is told -x allow-data-loss=yes.
    """
    steps = _between(to, from_)
    with _moving(at=from_, to=to) as needed:
        if needed:
            allowed = "allow-data-loss=yes" in _x_arguments()
            guard = nullcontext() if _is_script() else nothing_lost(op.get_bind(), drops_refused=not allowed)
            with guard:
                for step in reversed(steps):
                    library_revisions()[step].downgrade()
            _record(from_, to)


@contextmanager
def migration_lock(
    connection: Connection,
    *,
    schema: str | None = None,
    wait_seconds: float = locking.DEFAULT_LOCK_WAIT_SECONDS,
    allow_proxy: bool = False,
) -> Iterator[None]:
    """Hold the migration lock of a database around all that env.py does with the connection, and commit it in the end.

    Of many that upgrade at once one works and the others wait. A connection that is in a transaction already keeps the
    lock until that ends.

    Args:
        connection: to the server itself.
        schema: to migrate, a tenant's: created if missing, and what unqualified names mean inside the block. The
            connection's default one unless given. Each has a lock of its own.
        wait_seconds: how long to wait for another migration.
        allow_proxy: whether a pooling proxy may be between; one that pools by session does no harm.

    Raises:
        CommandError: another migration keeps the lock for longer than that, a proxy is between through which two
            clients can hold one lock, or Alembic is given -x schema= and env.py does not pass it on.
    """
    if schema is None and any(each.startswith("schema=") for each in _x_arguments()):
        raise CommandError(
            "-x schema= is given, and this env.py does not look at it: nothing is migrated. Pass it on, as in "
            'schema.migration_lock(connection, schema=context.get_x_argument(as_dictionary=True).get("schema"))'
        )
    if schema is not None:
        checked_schema(schema, "schema=")
    lock = locking.migration_lock(connection, wait_seconds=wait_seconds, allow_proxy=allow_proxy, schema=schema)
    with inside_schema(connection, schema), lock:
        create_schema(connection, schema)
        yield


def include_name(name: str | None, type_: str, parent_names: Mapping[str, Any]) -> bool:
    """Leave the library's tables out of what autogenerate compares: `context.configure(include_name=include_name)`.

    They are changed by `upgrade` and `downgrade` alone. Tables of the same names in schemas that `include_schemas` adds
    are the application's.
    """
    is_default_schema = parent_names.get("schema_name") is None
    return not (type_ == "table" and is_default_schema and name in _OWN_TABLES)


def add_projections(metadata: sa.MetaData, schemas: Iterable[ProjectionSchema]) -> None:
    """Add the tables of projections to an application's metadata, so that its own autogenerate takes care of them.

    Give `context.configure` this module's `render_item` and `compare_type` too.

    Raises:
        CommandError: a collection has the name of one of the library's tables.
    """
    for each in schemas:
        check_collection(each)
        build_table(each, metadata)


def render_item(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:
    """Write types and defaults of projections so that a revision runs on both databases; for `context.configure`."""
    rendered = rendering.render_item(kind, item, context)
    if rendered and f"{rendering.DECLARED}(" in rendered:
        context.imports.add(f"from cqrs_ddd_persistence_sqlalchemy.schema import {rendering.DECLARED}")
    return rendered


def compare_type(
    context: MigrationContext,
    _inspected_column: object,
    _metadata_column: object,
    _inspected_type: object,
    metadata_type: object,
) -> bool | None:
    """Compare the types of columns, but for lists on SQLite, which has no types for them; for `context.configure`."""
    is_array = isinstance(metadata_type, PortableArray)
    return False if is_array and not PortableArray.can_be_compared(context.dialect) else None


def _between(first: str | None, last: str) -> list[str]:
    """Return the library's revisions after one and up to another, in order.

    Raises:
        CommandError: one is not known, or they are the wrong way round.
    """
    known = list(library_revisions())
    for name in (first, last):
        if name is not None and name not in known:
            raise CommandError(
                f"this release of the library has no revision {name!r}: it goes from {known[0]} to {known[-1]}; "
                "install the release that the revision was written for, or a newer one"
            )
    begin = 0 if first is None else known.index(first) + 1
    steps = known[begin : known.index(last) + 1]
    if not steps:
        raise CommandError(
            f"there is nothing between {first!r} and {last!r}: in the library's chain the one comes after the other"
        )
    return steps


@contextmanager
def _moving(*, at: str | None, to: str | None) -> Iterator[bool]:
    """Hold the migration lock, and tell whether there is something to do; a script cannot know, and does it.

    Raises:
        CommandError: the database is neither where the revision begins nor where it ends.
    """
    if _is_script():
        yield True
        return
    connection = op.get_bind()
    with locking.migration_lock(connection), schema_errors_in_one_line(connection, existing=_RENAME):
        version_table = {"version_table": LIBRARY_VERSION_TABLE}
        heads = MigrationContext.configure(connection, opts=version_table).get_current_heads()
        found = ", ".join(heads) or None
        if found == to:
            logger.info("The library's tables are at %s already", to or "the base")
        elif found != at:
            raise CommandError(
                f"the library's tables are at {found or 'no revision'} ({LIBRARY_VERSION_TABLE}), and this revision "
                f"goes from {at or 'no revision'} to {to or 'no revision'}; nothing is changed. Was another Alembic "
                "environment run on this database? Bring them to where it begins or ends"
            )
        yield found != to


def _record(before: str | None, after: str | None) -> None:
    """Write where the library's tables are."""
    if before is None:
        op.create_table(
            _versions.name,
            sa.Column("version_num", sa.String(32), nullable=False),
            sa.PrimaryKeyConstraint("version_num", name=op.f(f"{_versions.name}_pkc")),  # as Alembic would name it
            if_not_exists=True,
        )
    statement: sa.Insert | sa.Update | sa.Delete
    if before is None:
        statement = _versions.insert().values(version_num=op.inline_literal(str(after)))
    elif after is None:
        statement = _versions.delete()
    else:
        same = _versions.c.version_num == op.inline_literal(before)
        statement = _versions.update().where(same).values(version_num=op.inline_literal(after))
    op.execute(statement)
    if after is None:
        op.drop_table(_versions.name)


def _is_script() -> bool:
    return bool(op.get_context().as_sql)


def _x_arguments() -> list[str]:
    # Nothing public tells whether an environment runs: without one the proxy is missing, after one it is None.
    running = getattr(alembic.context, "_proxy", None) is not None
    return list(alembic.context.get_x_argument()) if running else []  # not where a program runs revisions by itself
