"""The statements of the snapshot store, built once for each table."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeAlias

import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy.core.dialect import JSONText, dialect_named

#: Among the snapshots of one aggregate type, in the order of the table's key: aggregate id, version.
Place: TypeAlias = tuple[str, int]
IN_FRONT: Place = ("", -1)


def place_parameters(name: str, place: Place) -> dict[str, Any]:
    """Return what to bind for a place that a statement calls `name`."""
    return {f"{name}_id": place[0], f"{name}_version": place[1]}


@lru_cache(maxsize=1024)
def save(table: sa.Table, dialect_name: str) -> Any:
    """Insert a snapshot, or replace the one of its version."""
    dialect = dialect_named(dialect_name)
    insert = dialect.insert(table).values(
        aggregate_type=sa.bindparam("type"),
        aggregate_id=sa.bindparam("id"),
        version=sa.bindparam("version"),
        snapshot_data=sa.bindparam("data", type_=JSONText()),
        schema_version=sa.bindparam("schema_version"),
        created_at=dialect.now,
    )
    replaced = ("snapshot_data", "schema_version", "created_at")
    return insert.on_conflict_do_update(
        index_elements=[table.c.aggregate_type, table.c.aggregate_id, table.c.version],
        set_={name: insert.excluded[name] for name in replaced},
    )


@lru_cache(maxsize=1024)
def latest(table: sa.Table) -> sa.Select[Any]:
    """Read the newest snapshot of an aggregate, of one schema version, up to a version."""
    return (
        sa.select(table)
        .where(
            table.c.aggregate_type == sa.bindparam("type"),
            table.c.aggregate_id == sa.bindparam("id"),
            table.c.version <= sa.bindparam("max_version"),
            table.c.schema_version.is_not_distinct_from(sa.bindparam("schema_version")),
        )
        .order_by(table.c.version.desc())
        .limit(1)
    )


@lru_cache(maxsize=1024)
def delete(table: sa.Table) -> sa.Delete:
    """Delete the snapshots of an aggregate."""
    return sa.delete(table).where(
        table.c.aggregate_type == sa.bindparam("type"), table.c.aggregate_id == sa.bindparam("id")
    )


@lru_cache(maxsize=1024)
def next_type(table: sa.Table) -> sa.Select[Any]:
    """Read the aggregate type behind `type`, None behind the last."""
    return sa.select(sa.func.min(table.c.aggregate_type)).where(table.c.aggregate_type > sa.bindparam("type"))


@lru_cache(maxsize=1024)
def end_of_batch(table: sa.Table) -> sa.Select[Any]:
    """Read the place of the last of the next `size` rows of a type behind the place `after`."""
    rows = sa.select(table.c.aggregate_id, table.c.version).where(*_behind(table), _is_old(table))
    rows = rows.order_by(table.c.aggregate_id, table.c.version).limit(sa.bindparam("size", type_=sa.BigInteger()))
    batch = rows.subquery("batch")
    return sa.select(batch).order_by(batch.c.aggregate_id.desc(), batch.c.version.desc()).limit(1)


@lru_cache(maxsize=1024)
def delete_superseded(table: sa.Table, dialect_name: str) -> Any:
    """Delete rows of a type behind the place `after`, up to `last`, whose aggregate has more than `others` newer ones.

    It returns a row for each.
    """
    old, newer = table.alias("old"), table.alias("newer")
    one_more: sa.Select[Any] = (
        sa.select(sa.literal_column("1"))
        .where(
            newer.c.aggregate_type == old.c.aggregate_type,
            newer.c.aggregate_id == old.c.aggregate_id,
            newer.c.version > old.c.version,
        )
        .order_by(newer.c.version)
        .offset(sa.bindparam("others", type_=sa.BigInteger()))
        .limit(1)
    )
    superseded = sa.select(*_place(old)).where(*_in_batch(old), _is_old(old), one_more.exists())
    # Without waiting for what is locked, a saver in a long transaction does not hold the batch up, nor does one that
    # saves several versions meet a deadlock.
    chosen = dialect_named(dialect_name).skip_locked(superseded).cte("superseded").prefix_with("MATERIALIZED")
    # The batch twice: the planner cannot tell how many are chosen, and might look for them in the whole table.
    wanted = sa.delete(table).where(*_in_batch(table), _place(table).in_(sa.select(*_place(chosen))))
    return wanted.returning(table.c.version)


def _place(rows: sa.FromClause) -> sa.Tuple:
    return sa.tuple_(rows.c.aggregate_id, rows.c.version)


def _named_place(name: str) -> sa.Tuple:
    return sa.tuple_(
        sa.bindparam(f"{name}_id", type_=sa.String()), sa.bindparam(f"{name}_version", type_=sa.BigInteger())
    )


def _behind(rows: sa.FromClause) -> tuple[sa.ColumnElement[bool], ...]:
    # One type at a time: compared as a row of three, the same type in front, both databases read all of that type.
    return rows.c.aggregate_type == sa.bindparam("type"), _place(rows) > _named_place("after")


def _in_batch(rows: sa.FromClause) -> tuple[sa.ColumnElement[bool], ...]:
    # The ids once more by themselves: of two comparisons of rows, PostgreSQL's planner does not see that they bound a
    # small range. It expects a quarter of the table, and compiles the statement (JIT) for many times its run time.
    ids = rows.c.aggregate_id.between(sa.bindparam("after_id"), sa.bindparam("last_id"))
    return *_behind(rows), _place(rows) <= _named_place("last"), ids


def _is_old(rows: sa.FromClause) -> sa.ColumnElement[bool]:
    return rows.c.created_at <= sa.bindparam("started", type_=rows.c.created_at.type)
