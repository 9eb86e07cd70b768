"""The statements by which appenders hold readers and readers find out how far they may go (docs/decisions/0004).

And those by which an appender finds out what to copy (docs/decisions/0024).
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from cqrs_ddd_persistence_sqlalchemy.core.dialect.texts import ListText

# Advisory locks take two signed 32-bit integers and pg_locks shows them unsigned: both sides wrap at 2^32.
_WRAP = 2**32
_HALF = 2**31


@lru_cache(maxsize=1024)
def sequence_of(events: sa.Table) -> sa.Table:
    """Return the identity's sequence as a table; a Table, so that schema_translate_map reaches it."""
    columns = sa.Column("last_value", sa.BigInteger), sa.Column("is_called", sa.Boolean)
    return sa.Table(f"{events.name}_position_seq", sa.MetaData(), *columns, schema=events.schema)


def _signed(value: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    return sa.cast((value + _HALF) % sa.literal(_WRAP, sa.BigInteger) - _HALF, sa.Integer)


def _reached(sequence: sa.Table) -> sa.ColumnElement[int]:
    return sa.case((sequence.c.is_called, sequence.c.last_value), else_=sequence.c.last_value - 1)


def _oid() -> sa.ColumnElement[int]:
    regclass: sa.ColumnElement[Any] = sa.cast(sa.bindparam("events", type_=sa.Text()), postgresql.REGCLASS())
    return sa.cast(sa.cast(regclass, postgresql.OID()), sa.BigInteger)


@lru_cache(maxsize=1024)
def hold_floor(events: sa.Table, *, only_if_not_held: bool) -> sa.Select[Any]:
    """Lock the floor, shared; the parameter `events` is the table's qualified name.

    With `only_if_not_held`, do nothing where this transaction has such a lock already.
    """
    sequence = sequence_of(events)
    locked = sa.func.pg_advisory_xact_lock_shared(_signed(_oid()), _signed(_reached(sequence)))
    statement = sa.select(locked.label("locked"))
    statement = statement.select_from(sequence)
    if only_if_not_held:
        statement = statement.where(
            sa.text(
                "NOT EXISTS (SELECT 1 FROM pg_locks l WHERE l.locktype = 'advisory' AND l.objsubid = 2 "
                "AND l.mode = 'ShareLock' AND l.pid = pg_backend_pid() AND l.classid = CAST(:events AS regclass)::oid)"
            )
        )
    return statement


@lru_cache(maxsize=1024)
def read_last_value(events: sa.Table) -> sa.Select[Any]:
    """Read how far the sequence has come, and whether a read by position is safe on this connection."""
    sequence = sequence_of(events)
    return sa.select(
        _reached(sequence).label("last"),
        _oid().label("oid"),
        sa.func.current_setting("transaction_isolation").label("isolation"),
        sa.func.pg_is_in_recovery().label("in_recovery"),
    ).select_from(sequence)


# The floors are known modulo 2^32; the signed distance from the last value recovers them. Own appends are visible
# to their transaction and hold back others only.
LOWEST_FLOOR: sa.TextualSelect = sa.text(
    """
    SELECT min(CAST(:last AS bigint)
               + (objid::bigint - CAST(:last AS bigint) % 4294967296 + 6442450944) % 4294967296 - 2147483648)
    FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 2 AND mode = 'ShareLock' AND granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND classid::bigint = CAST(:oid AS bigint) AND pid IS DISTINCT FROM pg_backend_pid()
    """
).columns(floor=sa.BigInteger)


@lru_cache(maxsize=1024)
def stream_versions(events: sa.Table) -> sa.Select[Any]:
    """Read the version of each of the `streams`, 0 for a new one: an index look-up each, however long they are."""
    streams = sa.func.unnest(
        sa.cast(sa.bindparam("streams", type_=ListText(sa.Text())), postgresql.ARRAY(sa.Text()))
    ).table_valued(sa.column("aggregate_id", sa.Text()))
    streams = streams.render_derived(name="streams")
    version = sa.select(sa.func.max(events.c.version)).where(events.c.aggregate_id == streams.c.aggregate_id)
    return sa.select(streams.c.aggregate_id, sa.func.coalesce(version.scalar_subquery(), 0))


@cache
def draw_positions() -> sa.Select[Any]:
    """Draw `count` positions from a `sequence` in their order, each with the time."""
    name = sa.cast(sa.bindparam("sequence", type_=sa.Text()), postgresql.REGCLASS())
    clock = sa.func.clock_timestamp(type_=sa.DateTime(timezone=True))
    numbers = sa.func.generate_series(1, sa.bindparam("count", type_=sa.Integer())).table_valued("number")
    drawn: list[Any] = [sa.func.nextval(name, type_=sa.BigInteger()), clock]
    return sa.select(*drawn).select_from(numbers)
