"""The statements of the event store, built once for each table."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy.core.dialect import as_text, dialect_named
from cqrs_ddd_persistence_sqlalchemy.core.event_objects import FIELDS

_DOCUMENTS = ("payload", "metadata")


@lru_cache(maxsize=1024)
def append_statement(table: sa.Table, dialect_name: str, *, holding: bool = False) -> sa.Insert:
    """Insert a batch given as one JSON parameter; the versions are counted and compared by the statement itself.

    With `holding`, it holds readers back before it draws a position (docs/decisions/0004).
    """
    dialect = dialect_named(dialect_name)
    copied = [
        table.c[name]
        for name in (
            "event_id", "aggregate_id", "aggregate_type", "event_type", "payload", "metadata", "occurred_at",
            "correlation_id", "causation_id", "schema_version",
        )
    ]  # fmt: skip
    numbers = [sa.column(name, sa.BigInteger()) for name in ("row_number", "row_in_stream", "stream_version")]
    rows = dialect.json_rows("batch", [*copied, *numbers])
    stream, other = table.alias("stream"), table.alias("other")
    current = (
        sa.select(sa.func.coalesce(sa.func.max(stream.c.version), 0))
        .where(stream.c.aggregate_id == rows.c.aggregate_id)
        .scalar_subquery()
    )
    taken = sa.select(sa.literal_column("1")).where(other.c.event_id == rows.c.event_id).scalar_subquery()
    # Scalar subqueries in a materialized CTE are index look-ups, one a row, whatever the planner knows of the table:
    # as joins or NOT EXISTS they became scans of all events.
    known = sa.select(*rows.c, current.label("current"), taken.label("taken")).cte("known")
    known = known.prefix_with("MATERIALIZED")
    source = (
        sa.select(*(known.c[column.name] for column in copied), known.c.current + known.c.row_in_stream, dialect.now)
        .where(
            sa.or_(known.c.stream_version.is_(None), known.c.stream_version == known.c.current),
            known.c.taken.is_(None),
        )
        .order_by(known.c.row_number)
    )
    floor = dialect.floor(table) if holding else None
    if floor is not None:
        held = floor.cte("held").prefix_with("MATERIALIZED")
        # No row gets through to where its position is drawn before this condition has been looked at.
        source = source.where(sa.select(sa.func.count(held.c.locked)).scalar_subquery() == sa.literal_column("1"))
    names = [*(column.name for column in copied), "version", "recorded_at"]
    insert: sa.Insert = dialect.insert(table).from_select(names, source).on_conflict_do_nothing()
    return insert.returning(table.c.event_id, table.c.version, table.c.position, table.c.recorded_at)


@lru_cache(maxsize=1024)
def select_events(table: sa.Table) -> sa.Select[Any]:
    """Read whole events."""
    columns = [table.c[name] for name in FIELDS]
    return sa.select(*(as_text(each).label(each.name) if each.name in _DOCUMENTS else each for each in columns))


@lru_cache(maxsize=1024)
def read_after(table: sa.Table, *, bounded: bool, types: tuple[bool, bool]) -> sa.Select[Any]:
    """Read the events above `after`: up to `bound`, and of some `event_types` or `aggregate_types`, if so wanted."""
    statement = select_events(table).where(table.c.position > sa.bindparam("after"))
    if bounded:
        statement = statement.where(table.c.position <= sa.bindparam("bound"))
    for wanted, name in zip(types, ("event_type", "aggregate_type"), strict=True):
        if wanted:
            statement = statement.where(table.c[name].in_(sa.bindparam(f"{name}s", expanding=True)))
    return statement.order_by(table.c.position).limit(sa.bindparam("limit", type_=sa.Integer()))
