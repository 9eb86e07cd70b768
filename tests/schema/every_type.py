"""Schemas that have everything the grammar has, and names as long as names may be."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from cqrs_ddd_advanced_core.projections import ProjectionIndex, ProjectionSchema

AWKWARD = 'it\'s: "x" ::int :name \\ \\: \\n 50% %s %(a)s {b} ${c} <% d %> $$ -- ; \t\n\N{GREEK SMALL LETTER ALPHA}😀'
LONG = "a_name_that_is_as_long_as_a_name_may_be_which_is_63_characters_"
DOCUMENT = {"list": [1, 1.5, None, "it's: 50% \\"], "nested": {"empty": {}, "ü": "{x}"}}
TICKET = UUID("3f2504e0-4f89-41d3-9a0c-0305e82c3301")
TYPES = ("CHAR(3)", "VARCHAR(9)", "TEXT", "SMALLINT", "INTEGER", "BIGINT", "DECIMAL(10, 2)", "NUMERIC(5)", "REAL")
TYPES += ("DOUBLE PRECISION", "BOOLEAN", "DATE", "TIME", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "UUID")


def quoted(text: str) -> str:
    """Return the text as the grammar reads it."""
    return "'" + text.replace("'", "''") + "'"


# Column, type and options without the default, default, and what a row has that was given nothing.
DEFAULTS: list[tuple[str, str, str, Any]] = [
    ("char", "CHAR(3)", "'a''b'", "a'b"),
    ("varchar", "VARCHAR(200) NOT NULL", quoted(AWKWARD), AWKWARD),
    ("text", "TEXT", "''", ""),
    ("smallint", "SMALLINT", "-32768", -32768),
    ("integer", "INTEGER NOT NULL", "+2147483647", 2147483647),
    ("bigint", "BIGINT", "-9223372036854775808", -(2**63)),
    ("decimal", "DECIMAL(10, 2) NOT NULL", "-0.5", Decimal("-0.50")),
    ("numeric", "NUMERIC(15)", "-999999999999999", Decimal(-999999999999999)),
    ("real", "REAL", "1.5e10", 1.5e10),
    ("double", "DOUBLE PRECISION", "-2.25e-3", -0.00225),
    ("on", "BOOLEAN NOT NULL", "TRUE", True),
    ("off", "BOOLEAN", "FALSE", False),
    ("date", "DATE", "'2024-02-29'", date(2024, 2, 29)),
    ("time", "TIME", "'23:59:59.000001'", time(23, 59, 59, 1)),
    ("timestamp", "TIMESTAMP", "'2024-05-17 10:00:00.5+05:30'", datetime(2024, 5, 17, 4, 30, 0, 500000, UTC)),
    ("timestamptz", "TIMESTAMP WITH TIME ZONE", "'1999-12-31T23:59:59Z'", datetime(1999, 12, 31, 23, 59, 59, 0, UTC)),
    ("uuid", "UUID", quoted(str(TICKET)), TICKET),
    ("json", "JSON", quoted(json.dumps(DOCUMENT)), DOCUMENT),
    ("jsonb", "JSONB NOT NULL", "'[]'", []),
    ("array", "TEXT[] NOT NULL", "'{}'", []),
    ("uuids", "UUID[]", "'{}'", []),
    ("null", "TEXT", "NULL", None),
]

EVERYTHING = ProjectionSchema(
    "Order",
    [
        ("select", "UUID"),
        ("Part", "SMALLINT"),
        *((name, f"{type_} DEFAULT {default}") for name, type_, default, _ in DEFAULTS),
        ("stamped", "TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP"),
        ("bytes", "BYTEA"),
        *((f"plain_{number}", type_) for number, type_ in enumerate(TYPES)),
        *((f"array_{number}", f"{type_}[]") for number, type_ in enumerate(TYPES)),
        (LONG, "VARCHAR(63) UNIQUE"),
        ("user", "TEXT UNIQUE"),
        ("_version", "BIGINT"),
    ],
    indexes=[
        ("text", "user"),
        ProjectionIndex(["timestamp", "bigint"], descending=["timestamp"]),
        ProjectionIndex([LONG, "Part"], unique=True, where={"varchar": {"$ne": AWKWARD}, "user": None}),
        ProjectionIndex(
            "date", where={"off": False, "decimal": Decimal("-1.5"), "uuid": TICKET, "text": {"$ne": None}}
        ),
        ProjectionIndex("time", where={"timestamp": datetime(2024, 5, 17, tzinfo=UTC), "date": date(2024, 2, 29)}),
        ProjectionIndex("smallint", name="Table"),
    ],
    primary_key=["Part", "select"],
)

LONG_NAMED = ProjectionSchema(LONG, [("id", "TEXT PRIMARY KEY"), (LONG, "TEXT UNIQUE")], indexes=[LONG])
