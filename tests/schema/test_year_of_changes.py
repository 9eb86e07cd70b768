"""A year of one read model: ten changes, each generated on one database, and applied with rows inside on both."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from cqrs_ddd_advanced_core.projections import ProjectionIndex, ProjectionSchema
from tests.support.command_line import column, execute, generate, make_application, schema, succeed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.databases import Database

ROWS = 10_000
FIRST = [
    ("order_id", "VARCHAR(36) PRIMARY KEY"),
    ("customer", "VARCHAR(40) NOT NULL"),
    ("status", "VARCHAR(10) DEFAULT 'it''s: new'"),
    ("total", "DECIMAL(10, 2) NOT NULL DEFAULT 0"),
    ("items", "SMALLINT"),
    ("note", "VARCHAR(200)"),
    ("tags", "TEXT[]"),
    ("placed_at", "TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP"),
    ("lateral", "INTEGER"),
    ("_version", "INTEGER NOT NULL DEFAULT 1"),
]
NEWEST = ProjectionIndex(["placed_at", "order_id"], descending=["placed_at"], name="newest")
UNPAID = ProjectionIndex("customer", where={"status": {"$ne": "paid: all"}}, name="unpaid")


def changed(fields: list[tuple[str, str]], **definitions: str | None) -> list[tuple[str, str]]:
    """Return the fields with some defined anew, and without those that are None."""
    merged = dict(fields) | definitions
    return [(name, definition) for name, definition in merged.items() if definition is not None]


def _year() -> list[tuple[str, ProjectionSchema]]:
    fields, steps = FIRST, []

    def step(message: str, indexes: list, **definitions: str | None) -> None:
        nonlocal fields
        fields = changed(fields, **definitions)
        steps.append((message, ProjectionSchema("orders", fields, indexes)))

    step("create orders", ["customer", NEWEST])
    step("add columns", ["customer", NEWEST], currency="CHAR(3) NOT NULL DEFAULT 'EUR'", rate="DOUBLE PRECISION")
    step("add an index", ["customer", NEWEST, UNPAID])
    step("widen", ["customer", NEWEST, UNPAID], items="BIGINT", customer="VARCHAR(80) NOT NULL", note="TEXT")
    step(
        "change defaults",
        ["customer", NEWEST, UNPAID],
        status="VARCHAR(10)",
        total="DECIMAL(12, 2) NOT NULL DEFAULT 9.5",
    )
    step("stamp", ["customer", NEWEST, UNPAID], stamped="TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP", ref="UUID")
    step("require", [NEWEST, UNPAID], status="VARCHAR(10) NOT NULL DEFAULT 'open'", number="BIGINT UNIQUE")
    step("drop columns", [NEWEST, UNPAID], rate=None, note=None, total="DECIMAL(12, 2) DEFAULT 9.5")
    unpaid = ProjectionIndex(["customer", "status"], where={"total": {"$ne": None}, "status": "open"}, name="unpaid")
    step("another condition", [NEWEST, unpaid, "lateral"], tags=None, labels="JSONB NOT NULL DEFAULT '[]'")
    by_status = ProjectionIndex(["status", "total"], descending=["status", "total"])
    step("narrow", [by_status, unpaid], items="TEXT", status="VARCHAR(8) NOT NULL DEFAULT 'open'", number="BIGINT")
    step("one more", [by_status, unpaid, ProjectionIndex("number", unique=True)], number="BIGINT", customer="TEXT")
    return steps


YEAR = _year()


def fill(database: Database) -> None:
    """Insert the rows that have to survive the year."""
    numbers = (
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)"
        if database.kind == "sqlite"
        else "WITH n AS (SELECT generate_series(1, 10000) AS i)"
    )
    tags = "'[\"a\"]'" if database.kind == "sqlite" else "ARRAY['a']"
    execute(
        database,
        "INSERT INTO orders (order_id, customer, status, total, items, note, tags, lateral) "
        f"{numbers} SELECT 'o-' || i, 'c' || (i % 100), CASE (i % 3) WHEN 0 THEN 'paid' ELSE 'open' END, "
        f"i * 1.25, i % 50, 'n', {tags}, i FROM n".replace(", lateral)", ', "lateral")'),
    )


def totals(database: Database) -> list:
    """Return what must stay the same, whatever happens to the other columns."""
    [found] = column(
        database,
        "SELECT count(*) || ' ' || cast(sum(total) AS INTEGER) || ' ' || count(DISTINCT customer) || ' ' "
        "|| sum(\"lateral\") || ' ' || count(DISTINCT order_id) || ' ' || sum(length(status)) FROM orders",
    )
    return found.split()


def shape(database: Database) -> list[str]:
    """Return what the database says of the table, its columns in the order of their names."""
    if database.kind == "postgresql":
        lines = [line for line in schema(database) if re.search(r"\borders\b|orders", line)]
        return sorted(re.sub(r"^orders \d+ ", "orders ", line) for line in lines)
    with closing(sqlite3.connect(database.path)) as connection:
        found = [str(row[1:5]) for row in connection.execute("PRAGMA table_info(orders)")]
        found += [
            row[0] for row in connection.execute("SELECT sql FROM sqlite_master WHERE type = 'index' AND sql > ''")
        ]
        [table] = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'orders'")
        found += re.findall(r"CONSTRAINT \S+ \w+[^\n]*?\)", table[0])
    return sorted(found)


@pytest.mark.parametrize("generator", ["sqlite", "postgresql"])
def test_a_year_of_changes(databases, generator, tmp_path):
    """Ten changes keep ten thousand rows on both databases, and every one ends in the table that was declared."""
    other = {"sqlite": "postgresql", "postgresql": "sqlite"}[generator]
    app = make_application(tmp_path / "app")
    with databases.fresh(generator, migrated=False) as here:
        for number, (message, wanted) in enumerate(YEAR):
            assert generate(app, here, message, wanted)
            succeed("upgrade", "head", cwd=app, url=here.url)
            assert "No new upgrade operations" in succeed("check", cwd=app, url=here.url), message
            assert generate(app, here, "nothing", wanted) == []
            if number == 0:
                first = succeed("heads", cwd=app, url=here.url).split()[0]
                fill(here)
                kept = totals(here)
            assert totals(here) == kept, message
        with databases.fresh(other, migrated=False) as there:
            succeed("upgrade", first, cwd=app, url=there.url)
            fill(there)
            succeed("upgrade", "head", cwd=app, url=there.url)
            for database in (here, there):
                assert "No new upgrade operations" in succeed("check", cwd=app, url=database.url)
                assert totals(database) == kept
                end = shape(database)
                assert end == created_at_once(databases, database.kind, tmp_path / f"at_once_{database.kind}")
                succeed("-x", "allow-data-loss=yes", "downgrade", "base", cwd=app, url=database.url)
                succeed("upgrade", "head", cwd=app, url=database.url)
                assert shape(database) == end


def created_at_once(databases, kind: str, folder: Path) -> list[str]:
    """Return the shape of the last schema's table, created by one revision."""
    app = make_application(folder)
    with databases.fresh(kind, migrated=False) as database:
        generate(app, database, "all", YEAR[-1][1])
        succeed("upgrade", "head", cwd=app, url=database.url)
        return shape(database)
