"""A read model of eight columns, in tables of the same shape for the library and for the driver."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from benchmarks.raw_events import as_text, as_time
from benchmarks.workload import LIBRARY, RAW
from cqrs_ddd_advanced_core.projections import ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.bench import Bench

ORDERS, GUARDED = "bench_orders", "bench_guarded"
FIELDS = [
    ("id", "VARCHAR(50) PRIMARY KEY"),
    ("customer_id", "VARCHAR(50) NOT NULL"),
    ("status", "VARCHAR(20) NOT NULL"),
    ("total", "DECIMAL(10, 2) NOT NULL"),
    ("items", "INTEGER NOT NULL"),
    ("paid", "BOOLEAN NOT NULL"),
    ("placed_at", "TIMESTAMP WITH TIME ZONE NOT NULL"),
    ("note", "TEXT"),
]
GUARDS = [("_version", "BIGINT"), ("_last_event_id", "VARCHAR(255)"), ("_last_event_position", "BIGINT")]
COLUMNS = tuple(name for name, _ in FIELDS)
_BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


def an_order(order_id: str, number: int) -> dict[str, Any]:
    """Make a document; another number is another content."""
    return {
        "id": order_id,
        "customer_id": f"customer-{number % 997}",
        "status": "shipped" if number % 3 else "pending",
        "total": Decimal(number % 100_000) / 100,
        "items": number % 7,
        "paid": number % 2 == 0,
        "placed_at": _BEGINNING + timedelta(seconds=number),
        "note": f"leave it with the neighbours at number {number}",
    }


def on_sqlite(doc: dict[str, Any]) -> tuple[Any, ...]:
    """Return the values as SQLite holds them."""
    values = list(doc.values())
    values[3] = float(values[3])
    values[6] = as_text(values[6])
    return tuple(values)


def from_sqlite(row: Sequence[Any]) -> dict[str, Any]:
    """Return a document with the values that it had."""
    doc = dict(zip(COLUMNS, row, strict=True))
    doc["total"] = Decimal(repr(doc["total"])).quantize(Decimal("0.01"))
    doc["paid"] = bool(doc["paid"])
    doc["placed_at"] = as_time(doc["placed_at"])
    return doc


def schemas() -> list[ProjectionSchema]:
    """Return the tables of both sides."""
    return [
        ProjectionSchema(collection=f"{name}_{side}", fields=fields)
        for name, fields in ((ORDERS, FIELDS), (GUARDED, FIELDS + GUARDS))
        for side in (LIBRARY, RAW)
    ]


async def tables(bench: Bench, stored: int) -> SQLAlchemyProjectionStore:
    """Make the tables, with so many documents in those without guards, and return a store that knows them."""
    made = schemas()
    store = SQLAlchemyProjectionStore(bench.sessions, allow_auto_ddl=True, schemas=made)
    for schema in made:
        await store.ensure_collection(schema.collection, schema=schema)
    await store.bulk_upsert(f"{ORDERS}_{LIBRARY}", (an_order(f"s{n}", n) for n in range(stored)))
    await bench.execute(f"INSERT INTO {ORDERS}_{RAW} SELECT * FROM {ORDERS}_{LIBRARY}")
    await bench.settle(*(schema.collection for schema in made))
    return store
