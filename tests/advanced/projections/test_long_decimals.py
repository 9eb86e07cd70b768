"""Decimals of more digits than a float has: exact on PostgreSQL, and where SQLite takes them, there too."""

from __future__ import annotations

from decimal import Decimal

import pytest
from sqlalchemy.dialects import postgresql

from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionStore
from cqrs_ddd_persistence_sqlalchemy.core.dialect import ExactDecimal

LONG = ProjectionSchema(
    collection="long",
    fields=[
        ("id", "INTEGER PRIMARY KEY"),
        ("money", "DECIMAL(20, 4)"),
        ("wide", "DECIMAL(38, 10)"),
        ("widest", "DECIMAL(1000, 500)"),
        ("list", "DECIMAL(30, 10)[]"),
    ],
)

EXACT = [
    ("money", Decimal("1234567890123456.7891")),
    ("money", Decimal("-9999999999999999.9999")),
    ("wide", Decimal("1234567890123456789012345678.0123456789")),
    ("wide", Decimal("0.0000000001")),
    ("widest", Decimal("9" * 500 + "." + "9" * 500)),
    ("widest", Decimal("0." + "0" * 499 + "1")),
    ("list", [Decimal("12345678901234567890.0123456789"), None]),
]

ROUND = [
    ("wide", Decimal("1E+27")),
    ("wide", Decimal("123456789012345E+10")),
    ("widest", Decimal("1E+300")),
    ("widest", Decimal("1E-300")),
    ("list", [Decimal("1E+19"), Decimal("1E-10")]),
]


@pytest.mark.parametrize("schemas", [(), (LONG,)], ids=["types from the database", "types from schemas"])
async def test_every_digit_comes_back(session_factory, database, schemas):
    """All digits on PostgreSQL; on SQLite up to fifteen of them, however many zeros follow or go before."""
    store = SQLAlchemyProjectionStore(session_factory, allow_auto_ddl=True, schemas=schemas)
    await store.ensure_collection("long", schema=LONG)
    for column, value in ROUND if database.kind == "sqlite" else [*EXACT, *ROUND]:
        if column == "list" and database.kind == "sqlite" and not schemas:
            continue  # there a list of decimals is JSON
        await store.upsert("long", 1, {column: value})
        assert (await store.find_one("long", 1))[column] == value
        if column != "list":
            assert await store.count("long", {column: value}) == 1
            assert await store.count("long", {column: {"$gt": value}}) == 0


def test_more_places_than_declared_are_kept():
    """A value that a migration has given more places than the store knows of is not rounded."""
    for value, read in [
        (Decimal("1.250"), "1.250"),
        (1.25, "1.25"),
        (Decimal("1.2"), "1.2"),
        (Decimal("1E+2"), "100.0"),
    ]:
        assert str(ExactDecimal(10, 1).process_result_value(value, postgresql.dialect())) == read
