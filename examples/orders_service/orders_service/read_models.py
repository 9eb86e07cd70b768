"""The read model of orders: its table, which revisions in versions/ make, and what each event does to a row."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

from cqrs_ddd_advanced_core.projections import Projection, ProjectionIndex, ProjectionSchema

if TYPE_CHECKING:
    from cqrs_ddd_advanced_core import StoredEvent

Row: TypeAlias = dict[str, Any]

orders = ProjectionSchema(
    collection="orders",
    fields=[
        ("order_id", "VARCHAR(36) PRIMARY KEY"),
        ("status", "VARCHAR(20) NOT NULL"),
        ("email", "VARCHAR(254) NOT NULL"),
        ("address", "VARCHAR(500) NOT NULL"),
        ("lines", "JSON NOT NULL"),
        ("total", "DECIMAL(12, 2) NOT NULL"),
        ("reason", "TEXT"),
        ("placed_at", "TIMESTAMP NOT NULL"),
        # The version of the order that the row shows: what a client sends back with a change.
        ("order_version", "INTEGER NOT NULL"),
        ("_last_event_position", "BIGINT"),
    ],
    indexes=[
        ProjectionIndex(("status", "placed_at"), descending=["placed_at"]),
        ProjectionIndex("placed_at", descending=["placed_at"]),
    ],
)
"""One row an order."""

orders_projection = Projection("orders", orders, aggregate_types=["Order"])


@orders_projection.fold("OrderPlaced")
def placed(_row: Row | None, event: StoredEvent) -> Row:
    """Begin a row."""
    return {
        "order_id": event.aggregate_id,
        "status": "placed",
        "email": event.payload["email"],
        "address": event.payload["address"],
        "lines": event.payload["lines"],
        "total": Decimal(event.payload["total"]),
        "placed_at": event.occurred_at,
        "order_version": event.version,
    }


@orders_projection.fold("AddressChanged")
def address_changed(_row: Row | None, event: StoredEvent) -> Row:
    """Show where it goes now."""
    return {"address": event.payload["address"], "order_version": event.version}


@orders_projection.fold("OrderConfirmed")
def confirmed(_row: Row | None, event: StoredEvent) -> Row:
    """Show that it will come."""
    return {"status": "confirmed", "order_version": event.version}


@orders_projection.fold("OrderShipped")
def shipped(_row: Row | None, event: StoredEvent) -> Row:
    """Show that it is under way."""
    return {"status": "shipped", "order_version": event.version}


@orders_projection.fold("OrderCancelled")
def cancelled(_row: Row | None, event: StoredEvent) -> Row:
    """Show that it will not come, and why."""
    return {"status": "cancelled", "reason": event.payload["reason"], "order_version": event.version}
