"""A schema with a column of each kind, for tests that change one thing of it."""

from __future__ import annotations

from cqrs_ddd_advanced_core.projections import ProjectionSchema

FIELDS = [
    ("cart_id", "VARCHAR(50) PRIMARY KEY"),
    ("owner", "TEXT NOT NULL"),
    ("total", "DECIMAL(10, 2) DEFAULT 0"),
    ("items", "INTEGER"),
    ("weight", "REAL"),
    ("open", "BOOLEAN DEFAULT TRUE"),
    ("opened_at", "TIMESTAMP DEFAULT CURRENT_TIMESTAMP"),
    ("due", "DATE"),
    ("slot", "TIME"),
    ("batch", "UUID"),
    ("tags", "TEXT[] DEFAULT '{}'"),
    ("notes", "JSONB"),
    ("scan", "BYTEA"),
    ("_version", "INTEGER DEFAULT 1"),
    ("_last_event_id", "VARCHAR(100)"),
    ("_last_event_position", "BIGINT"),
]


def schema(fields=FIELDS, **changes):
    """Make a schema that is fine but for what the test changes."""
    return ProjectionSchema(**{"collection": "carts", "fields": fields, **changes})


def two_columns(**changes):
    """Make a schema of two columns without a key of its own."""
    return schema([("a", "INTEGER"), ("b", "INTEGER")], **changes)
