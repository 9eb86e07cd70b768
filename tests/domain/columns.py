"""Strategies for every type and every column of the grammar."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from decimal import Decimal

from hypothesis import strategies as st

from cqrs_ddd_advanced_core.projections.column_types import ColumnSpec, ColumnType, Default, Kind


def characters():
    """Everything that a text column holds."""
    return st.characters(exclude_categories=["Cs"], exclude_characters="\0")


def decimals(column_type):
    """Every number that has the column's digits."""
    units = st.integers(-(10**column_type.precision) + 1, 10**column_type.precision - 1)
    return units.map(lambda unit: Decimal(f"{unit}e-{column_type.scale}"))


def json_texts():
    """Documents as the json module writes them."""
    scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    scalars |= st.text(characters())
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner) | st.dictionaries(st.text(characters()), inner),
        max_leaves=5,
    ).map(json.dumps)


def values(column_type):
    """Values that are legal defaults of the column."""
    if column_type.array:
        return st.just(())
    text = st.text(characters(), max_size=column_type.length or 50)
    zones = st.timezones() | st.integers(-840, 840).map(lambda offset: timezone(timedelta(minutes=offset)))
    return {
        Kind.CHAR: text,
        Kind.VARCHAR: text,
        Kind.TEXT: text,
        Kind.SMALLINT: st.integers(-(2**15), 2**15 - 1),
        Kind.INTEGER: st.integers(-(2**31), 2**31 - 1),
        Kind.BIGINT: st.integers(-(2**63), 2**63 - 1),
        Kind.DECIMAL: st.deferred(lambda: decimals(column_type)),
        Kind.REAL: st.floats(width=32, allow_nan=False, allow_infinity=False),
        Kind.DOUBLE: st.floats(allow_nan=False, allow_infinity=False),
        Kind.BOOLEAN: st.booleans(),
        Kind.DATE: st.dates(),
        Kind.TIME: st.times(),
        Kind.TIMESTAMP: st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=zones),  # noqa: DTZ001
        Kind.UUID: st.uuids(),
        Kind.JSON: json_texts(),
        Kind.BYTEA: st.nothing(),
    }[column_type.kind]


@st.composite
def column_types(draw):
    """Every type of the grammar."""
    kind = draw(st.sampled_from(Kind))
    array = kind not in {Kind.JSON, Kind.BYTEA} and draw(st.booleans())
    if kind in {Kind.CHAR, Kind.VARCHAR}:
        return ColumnType(kind, length=draw(st.integers(1, 10485760)), array=array)
    if kind is Kind.DECIMAL:
        precision = draw(st.integers(1, 1000))
        return ColumnType(kind, precision=precision, scale=draw(st.integers(0, precision)), array=array)
    return ColumnType(kind, array=array)


@st.composite
def column_specs(draw):
    """Every column of the grammar."""
    column_type = draw(column_types())
    comparable = column_type.indexable and not column_type.inexact
    primary_key = comparable and draw(st.booleans())
    defaults = st.none() | values(column_type).map(lambda value: Default("literal", value))
    if column_type == ColumnType(Kind.TIMESTAMP):
        defaults |= st.just(Default("current_timestamp"))
    return ColumnSpec(
        draw(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,62}", fullmatch=True)),
        column_type,
        nullable=not primary_key and draw(st.booleans()),
        primary_key=primary_key,
        unique=comparable and draw(st.booleans()),
        default=draw(defaults),
    )
