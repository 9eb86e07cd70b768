"""The shapes in which applications are told to call the library, each as a whole flow, on both databases."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from cqrs_ddd_advanced_core.events import StoredEvent
from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionPositionStore, SQLAlchemyProjectionStore
from cqrs_ddd_persistence_sqlalchemy.exceptions import AutoDDLDisabledError, OptimisticConcurrencyError

logger = logging.getLogger(__name__)

ORDER_SUMMARIES = ProjectionSchema(
    collection="order_summaries",
    fields=[
        ("order_id", "VARCHAR(50) PRIMARY KEY"),
        ("customer_name", "VARCHAR(200)"),
        ("total_amount", "DECIMAL(10, 2)"),
        ("item_count", "INTEGER"),
        ("status", "VARCHAR(50)"),
        ("created_at", "TIMESTAMP"),
        ("_version", "INTEGER DEFAULT 1"),
        ("_last_event_id", "VARCHAR(100)"),
    ],
)


@dataclass
class OrderCreated:
    event_id: str
    order_id: str
    customer_name: str = "Ada"
    total: float = 12.5
    items: list[str] = field(default_factory=lambda: ["pen", "ink"])
    status: str = "pending"
    occurred_at: datetime = field(default_factory=lambda: datetime.now(UTC))


@pytest.fixture
async def collection(session_factory):
    """The table of the samples, as its revision would make it."""
    store = SQLAlchemyProjectionStore(session_factory=session_factory, allow_auto_ddl=True)
    await store.ensure_collection("order_summaries", schema=ORDER_SUMMARIES)


@pytest.fixture
def projection_store(session_factory, collection):
    return SQLAlchemyProjectionStore(session_factory=session_factory)


async def test_ensure_collection_points_to_the_revision_command(session_factory):
    """Without auto DDL a missing table is an error that holds the command, and none is created."""
    store = SQLAlchemyProjectionStore(
        session_factory=session_factory, allow_auto_ddl=False, default_id_column="order_id"
    )
    with pytest.raises(AutoDDLDisabledError, match=r"alembic -x projection=package\.module:schema revision -m"):
        await store.ensure_collection("order_summaries", schema=ORDER_SUMMARIES)
    assert not await store.collection_exists("order_summaries")


async def test_component_2_upsert_read_query_and_batch(session_factory, projection_store):
    """A document is upserted in a unit of work, read back, found by a filter, and joined by a hundred others."""
    created_at = datetime.now(UTC)
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        doc = {
            "order_id": "order-123",
            "customer_name": "Grace",
            "total_amount": 99.99,
            "item_count": 3,
            "status": "pending",
            "created_at": created_at,
            "_version": 1,
            "_last_event_id": "event-456",
        }
        await projection_store.upsert(collection="order_summaries", doc_id="order-123", doc=doc, uow=uow)
        await uow.commit()

    projection = await projection_store.find_one(collection="order_summaries", doc_id="order-123")
    assert projection == doc | {"total_amount": Decimal("99.99")}
    assert projection["created_at"].utcoffset().total_seconds() == 0
    projections = await projection_store.find(
        collection="order_summaries", filter={"status": "pending"}, sort=[("created_at", -1)], limit=10
    )
    assert projections == [projection]

    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        docs = [{"order_id": f"order-{i}", "customer_name": f"Customer {i}"} for i in range(100)]
        written = await projection_store.bulk_upsert(
            collection="order_summaries", docs=docs, doc_id_field="order_id", uow=uow
        )
        await uow.commit()
    assert written == 100
    assert len(await projection_store.find("order_summaries", limit=1000)) == 101


async def test_component_2_idempotent_handler_outside_its_block(session_factory, projection_store):
    """A handler that looks for its event first applies it once, also with a unit of work that was left already."""
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        pass

    async def handle_order_created(event):
        existing = await projection_store.find_one(collection="order_summaries", doc_id=event.order_id)
        if existing and existing.get("_last_event_id") == event.event_id:
            return
        doc = {
            "order_id": event.order_id,
            "customer_name": event.customer_name,
            "_version": (existing.get("_version", 0) + 1) if existing else 1,
            "_last_event_id": event.event_id,
        }
        await projection_store.upsert(collection="order_summaries", doc_id=event.order_id, doc=doc, uow=uow)

    event = OrderCreated("event-1", "order-1")
    await handle_order_created(event)
    await handle_order_created(event)
    assert (await projection_store.find_one("order_summaries", "order-1"))["_version"] == 1


async def test_component_2_injection_is_refused_by_name(projection_store):
    """A collection's name that is no identifier never reaches the database."""
    with pytest.raises(ValueError, match=r"^Invalid SQL table name: 'order_summaries; DROP TABLE users; --'$"):
        await projection_store.find_one(collection="order_summaries; DROP TABLE users; --", doc_id="order-123")


async def test_component_2_update_with_version_check(session_factory, projection_store):
    """A read-modify-write with expected_version stores the next version."""
    await projection_store.upsert("order_summaries", "order-1", {"status": "pending", "_version": 1})
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        projection = await projection_store.find_one(collection="order_summaries", doc_id="order-1", uow=uow)
        updated_doc = {**projection, "status": "shipped", "_version": projection["_version"] + 1}
        await projection_store.upsert(
            collection="order_summaries",
            doc_id="order-1",
            doc=updated_doc,
            expected_version=projection["_version"],
            uow=uow,
        )
        await uow.commit()
    stored = await projection_store.find_one("order_summaries", "order-1")
    assert (stored["status"], stored["_version"]) == ("shipped", 2)


async def test_component_5_positions_follow_the_events(session_factory, projection_store):
    """A projection reads on from its position, and several projections have one each."""
    event_store = SQLAlchemyEventStore(session_factory)
    position_store = SQLAlchemyProjectionPositionStore(
        session_factory=session_factory, table_name="projection_positions"
    )
    await event_store.append(
        [StoredEvent(aggregate_id=f"order-{i % 3}", event_type="Placed", payload={"n": i}) for i in range(10)]
    )
    uow = SQLAlchemyUnitOfWork(session_factory)

    async def update_projection(event):
        await projection_store.upsert("order_summaries", event.aggregate_id, {"item_count": event.payload["n"]})

    position = await position_store.get_position(projection_name="OrderSummaryProjection")
    assert position is None
    position = 0
    events = await event_store.get_events_after(position, limit=1000)
    for event in events:
        await update_projection(event)
        await position_store.save_position(projection_name="OrderSummaryProjection", position=event.position, uow=uow)
    # Saved once for a whole batch, as a faster projection does.
    await position_store.save_position(projection_name="CustomerStats", position=events[-1].position)
    for name in ("OrderSummaryProjection", "CustomerStats"):
        assert await position_store.get_position(name) == 10
    assert {row["order_id"]: row["item_count"] for row in await projection_store.find("order_summaries")} == {
        "order-0": 9,
        "order-1": 7,
        "order-2": 8,
    }


async def test_pattern_2_projection_builder_is_idempotent(session_factory, projection_store):
    """A builder that returns early from its block on a known event leaves the document as it is."""

    async def build_order_summary_projection(event):
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            existing = await projection_store.find_one(collection="order_summaries", doc_id=event.order_id, uow=uow)
            if existing and existing.get("_last_event_id") == event.event_id:
                logger.info("Event %s is known", event.event_id)
                return
            doc = {
                "order_id": event.order_id,
                "customer_name": event.customer_name,
                "total_amount": event.total,
                "item_count": len(event.items),
                "status": event.status,
                "created_at": event.occurred_at,
                "_version": (existing["_version"] + 1) if existing else 1,
                "_last_event_id": event.event_id,
            }
            await projection_store.upsert(collection="order_summaries", doc_id=event.order_id, doc=doc, uow=uow)
            await uow.commit()

    first = OrderCreated("event-1", "order-1")
    for event in (first, first, OrderCreated("event-2", "order-1", status="paid")):
        await build_order_summary_projection(event)
    stored = await projection_store.find_one("order_summaries", "order-1")
    assert (stored["_version"], stored["status"], stored["total_amount"]) == (2, "paid", Decimal("12.50"))


async def test_version_conflict_is_retried_until_all_have_written(session_factory, projection_store):
    """Concurrent updates of one document, each retried on a conflict, all count."""

    async def update_with_retry(order_id, new_status, max_retries=30):
        for attempt in range(max_retries):
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                try:
                    projection = await projection_store.find_one(collection="order_summaries", doc_id=order_id, uow=uow)
                    updated_doc = {**projection, "status": new_status, "_version": projection["_version"] + 1}
                    await projection_store.upsert(
                        collection="order_summaries",
                        doc_id=order_id,
                        doc=updated_doc,
                        expected_version=projection["_version"],
                        uow=uow,
                    )
                    await uow.commit()
                    return  # noqa: TRY300  (the sample's shape)
                except OptimisticConcurrencyError:
                    if attempt == max_retries - 1:
                        raise
                    await asyncio.sleep(0.001 * attempt)

    await projection_store.upsert("order_summaries", "order-1", {"status": "new"})
    async with asyncio.TaskGroup() as tasks:
        for number in range(10):
            tasks.create_task(update_with_retry("order-1", f"status {number}"))
    assert (await projection_store.find_one("order_summaries", "order-1"))["_version"] == 11
