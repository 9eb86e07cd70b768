"""A table of accounts, migrations of it that run elsewhere, and a call of each of the store's methods."""

from __future__ import annotations

import sqlite3
from contextlib import aclosing, closing
from dataclasses import dataclass

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.schema import CreateIndex, CreateTable

from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.tables import build_table
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError

FIELDS = {
    "id": "VARCHAR(50) PRIMARY KEY",
    "owner": "VARCHAR(20) NOT NULL",
    "points": "INTEGER",
    "total": "DECIMAL(10, 2)",
    "note": "TEXT",
    "state": "VARCHAR(20) DEFAULT 'new'",
    "tags": "TEXT[]",
    "_version": "INTEGER DEFAULT 1",
}

TABLE = "ALTER TABLE accounts"


@dataclass
class Change:
    """What a migration does to the table and how it is taken back; SQLite builds the table anew from its fields."""

    forth: str
    back: str
    fields: dict[str, str | None]
    indexes: tuple = ()


CHANGES = {
    "column added": Change(
        f"{TABLE} ADD COLUMN colour VARCHAR(20)", f"{TABLE} DROP COLUMN colour", {"colour": "VARCHAR(20)"}
    ),
    "column dropped": Change(f"{TABLE} DROP COLUMN note", f"{TABLE} ADD COLUMN note TEXT", {"note": None}),
    "text widened": Change(
        f"{TABLE} ALTER owner TYPE TEXT", f"{TABLE} ALTER owner TYPE VARCHAR(20)", {"owner": "TEXT NOT NULL"}
    ),
    "integer widened": Change(
        f"{TABLE} ALTER points TYPE BIGINT", f"{TABLE} ALTER points TYPE INTEGER", {"points": "BIGINT"}
    ),
    "decimal widened": Change(
        f"{TABLE} ALTER total TYPE DECIMAL(12, 4)",
        f"{TABLE} ALTER total TYPE DECIMAL(10, 2)",
        {"total": "DECIMAL(12, 4)"},
    ),
    "made nullable": Change(
        f"{TABLE} ALTER owner DROP NOT NULL", f"{TABLE} ALTER owner SET NOT NULL", {"owner": "VARCHAR(20)"}
    ),
    "made not null": Change(
        f"{TABLE} ALTER total SET NOT NULL", f"{TABLE} ALTER total DROP NOT NULL", {"total": "DECIMAL(10, 2) NOT NULL"}
    ),
    "default changed": Change(
        f"{TABLE} ALTER state SET DEFAULT 'old'",
        f"{TABLE} ALTER state SET DEFAULT 'new'",
        {"state": "VARCHAR(20) DEFAULT 'old'"},
    ),
    "index added": Change("CREATE INDEX by_total ON accounts (total)", "DROP INDEX by_total", {}, (("total",),)),
    "made anew": Change("", "", {"extra": "TEXT"}),
}


def schema_of(change: Change | None = None) -> ProjectionSchema:
    fields = FIELDS | (change.fields if change else {})
    return ProjectionSchema(
        collection="accounts",
        fields=[(name, kind) for name, kind in fields.items() if kind],
        indexes=change.indexes if change else [],
    )


def keyed_by(*key, more=None):
    """Return the schema with another key, and with the columns more that are given."""
    fields = FIELDS | {"id": "VARCHAR(50)"} | (more or {})
    return ProjectionSchema(collection="accounts", fields=list(fields.items()), primary_key=list(key))


async def run_elsewhere(database, *statements):
    """Run statements on a connection that the engine under test knows nothing of."""
    if database.kind == "postgresql":
        connection = await asyncpg.connect(database.dsn)
        try:
            await connection.execute(";".join(statements))
        finally:
            await connection.close()
    else:
        with closing(sqlite3.connect(database.path)) as connection:
            connection.executescript(f"BEGIN;{';'.join(statements)};COMMIT")


def creation(engine, schema):
    """Return the statements that create the table."""
    table = build_table(schema, sa.MetaData())
    statements = [CreateTable(table), *(CreateIndex(index) for index in table.indexes)]
    return [str(statement.compile(dialect=engine.dialect)) for statement in statements]


def rebuilding(engine, schema):
    """Return the statements that make the table anew with the documents that it has."""
    wide = ", ".join(f'"{name}"' for name, _ in schema.fields if name in FIELDS)
    return [
        "CREATE TABLE kept AS SELECT * FROM accounts",
        "DROP TABLE accounts",
        *creation(engine, schema),
        f"INSERT INTO accounts ({wide}) SELECT {wide} FROM kept",
        "DROP TABLE kept",
    ]


async def migrate(database, engine, change, *, back=False):
    """Migrate the table elsewhere, or take the migration back."""
    if database.kind == "postgresql" and change.forth:
        await run_elsewhere(database, change.back if back else change.forth)
    else:
        if back and None in change.fields.values():  # what was dropped comes back empty
            await run_elsewhere(database, *(f"{TABLE} ADD COLUMN {name} {FIELDS[name]}" for name in change.fields))
        await run_elsewhere(database, *rebuilding(engine, schema_of(None if back else change)))


async def warm(engine, connections):
    """Fill the pool."""
    opened = [await engine.connect() for _ in range(connections)]
    for connection in opened:
        await connection.close()


async def rows_of(stream):
    async with aclosing(stream) as rows:
        return [row["id"] async for row in rows]


async def conflict(store):
    with pytest.raises(OptimisticConcurrencyError) as raised:
        await store.upsert("accounts", "a1", {"points": 5}, expected_version=9)
    return raised.value.actual


METHODS = {
    "find_one": lambda store: store.find_one("accounts", "a1"),
    "find_many": lambda store: store.find_many("accounts", ["a1", "nope", "a2", "a1"]),
    "find": lambda store: store.find("accounts", {"points": {"$gte": 1}}, sort=[("total", -1)]),
    "count": lambda store: store.count("accounts", {"owner": "Ada"}),
    "stream": lambda store: rows_of(store.stream("accounts", {"owner": "Ada"})),
    "upsert": lambda store: store.upsert("accounts", "a3", {"owner": "Bob", "points": 5, "total": 1}),
    "upsert of a part": lambda store: store.upsert("accounts", "a1", {"points": 7}),
    "upsert refused": conflict,
    "bulk_upsert": lambda store: store.bulk_upsert(
        "accounts", ({"id": f"a{n}", "owner": "Eve", "total": n} for n in range(5))
    ),
    "delete": lambda store: store.delete("accounts", "a1", expected_version=3),
    "truncate": lambda store: store.truncate("accounts"),
}


async def seed(store):
    """Bring the table to a state in which every answer is known."""
    await store.truncate("accounts")
    common = {"owner": "Ada", "points": 5, "state": "old", "tags": ["x"], "_version": 3}
    await store.bulk_upsert("accounts", [common | {"id": f"a{n}", "total": n} for n in (1, 2)])
