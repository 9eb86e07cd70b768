"""Collections for the tests of projections."""

from __future__ import annotations

import re

import pytest
import sqlalchemy as sa

from cqrs_ddd_advanced_core.projections.schema import ProjectionIndex, ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionStore
from cqrs_ddd_persistence_sqlalchemy.core.dialect.postgresql import PostgreSQL

ORDERS = ProjectionSchema(
    collection="orders",
    fields=[
        ("id", "VARCHAR(50) PRIMARY KEY"),
        ("customer", "TEXT NOT NULL"),
        ("total", "DECIMAL(10, 2) DEFAULT 7.50"),
        ("email", "VARCHAR(80) UNIQUE"),
        ("status", "VARCHAR(20) DEFAULT 'new'"),
        ("placed_at", "TIMESTAMP"),
        ("_version", "INTEGER DEFAULT 1"),
        ("_last_event_id", "VARCHAR(100)"),
        ("_last_event_position", "BIGINT"),
    ],
    indexes=[ProjectionIndex(("status", "placed_at"), descending=("placed_at",))],
)

LINES = ProjectionSchema(
    collection="order lines".replace(" ", "_"),
    fields=[
        ("order", "VARCHAR(50)"),  # a reserved word
        ("Line", "INTEGER"),  # mixed case
        ("product", "TEXT"),
        ("quantity", "INTEGER DEFAULT 1"),
    ],
    primary_key=["order", "Line"],
)

EVERYTHING = ProjectionSchema(
    collection="everything",
    fields=[
        ("id", "BIGINT PRIMARY KEY"),
        ("char", "CHAR(5)"),
        ("varchar", "VARCHAR(5)"),
        ("text", "TEXT"),
        ("small", "SMALLINT"),
        ("whole", "INTEGER"),
        ("big", "BIGINT"),
        ("decimal", "DECIMAL(15, 4)"),
        ("real", "REAL"),
        ("double", "DOUBLE PRECISION"),
        ("yes", "BOOLEAN"),
        ("day", "DATE"),
        ("clock", "TIME"),
        ("moment", "TIMESTAMP WITH TIME ZONE"),
        ("uid", "UUID"),
        ("doc", "JSONB"),
        ("bytes", "BYTEA"),
        ("tags", "TEXT[]"),
    ],
)


@pytest.fixture
async def made(session_factory):
    """The tables, as their revisions would make them."""
    store = SQLAlchemyProjectionStore(session_factory, allow_auto_ddl=True)
    for schema in (ORDERS, LINES, EVERYTHING):
        await store.ensure_collection(schema.collection, schema=schema)


@pytest.fixture(params=["types from the database", "types from schemas"])
def store(request, session_factory, made):
    """A store that knows its columns in either way."""
    schemas = () if "database" in request.param else (ORDERS, LINES, EVERYTHING)
    return SQLAlchemyProjectionStore(session_factory, schemas=schemas)


@pytest.fixture
def statements(engine):
    """What is sent to the database, as a list that grows; not looks at the catalogue, which precede a refusal."""
    sent = []

    def note(_connection, _cursor, statement, *_):
        if not re.search(r"PRAGMA (table|index)_|to_regclass|pg_attribute|pg_index", statement):
            sent.append(statement)

    sa.event.listen(engine.sync_engine, "before_cursor_execute", note)
    yield sent
    sa.event.remove(engine.sync_engine, "before_cursor_execute", note)


@pytest.fixture
def copied(monkeypatch):
    """The batches that PostgreSQL copies: how many rows each has, and whether it came as text."""
    made, copy = [], PostgreSQL.copy_rows

    async def noted(self, connection, table, names, columns, text=None):
        made.append((len(columns[0]), text is not None))
        return await copy(self, connection, table, names, columns, text)

    monkeypatch.setattr(PostgreSQL, "copy_rows", noted)
    return made
