"""How applications are told to use snapshots, each shape as a whole flow, on both databases."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from cqrs_ddd_advanced_core import AggregateRoot, StoredEvent
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyRepository, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemySnapshotStore
from cqrs_ddd_persistence_sqlalchemy.core.dialect import ExactDecimal, UTCDateTime

logger = logging.getLogger(__name__)

SNAPSHOT_THRESHOLD = 50
PAGE = Path(__file__).parents[1] / "docs" / "snapshots.md"


class Base(DeclarativeBase):
    pass


class OrderModel(Base):
    __tablename__ = "orders"
    id: Mapped[str] = mapped_column(sa.String(50), primary_key=True)
    version: Mapped[int]
    total: Mapped[Decimal] = mapped_column(ExactDecimal(12, 2))
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime())


class Order(AggregateRoot):
    total: Decimal = Decimal(0)

    def apply(self, event):
        assert event.version == self.version + 1
        self.total += Decimal(event.payload["amount"])
        self.version = event.version


class Counting:
    """The event store, and how many events each look into it brought."""

    def __init__(self, events):
        self._events = events
        self.loaded = []

    async def get_events(self, aggregate_id, *, after_version):
        found = await self._events.get_events(aggregate_id, after_version=after_version)
        self.loaded.append(len(found))
        return found


@pytest.fixture
def uow(session_factory):
    """A unit of work that has ended before it is used: each operation has a transaction of its own."""
    return SQLAlchemyUnitOfWork(session_factory)


@pytest.fixture
def snapshot_store(uow):
    return SQLAlchemySnapshotStore(uow_factory=lambda: uow)


@pytest.fixture
def events(session_factory):
    return SQLAlchemyEventStore(session_factory)


def line_added(order_id="order-123"):
    return StoredEvent(
        aggregate_id=order_id, aggregate_type="Order", event_type="LineAdded", payload={"amount": "0.10"}
    )


async def reconstitute_order(order_id, event_store, snapshot_store):
    """Go on from the latest snapshot, and save one when that was far away."""
    snapshot = await snapshot_store.get_latest_snapshot(aggregate_type="Order", aggregate_id=order_id)
    if snapshot:
        order = Order(**snapshot["snapshot_data"])
        version = snapshot["version"]
        logger.info("loaded snapshot at version %s", version)
    else:
        order = Order(id=order_id)
        version = 0
    events = await event_store.get_events(order_id, after_version=version)
    for event in events:
        order.apply(event)
    if len(events) >= SNAPSHOT_THRESHOLD:
        await snapshot_store.save_snapshot(
            aggregate_type="Order", aggregate_id=order_id, snapshot_data=order.model_dump(), version=order.version
        )
    return order


async def test_component_3_an_order_is_reconstituted_from_its_snapshot(events, snapshot_store):
    """Saved after fifty events, gone on from, and deleted, each outside of any unit of work."""
    await events.append([line_added() for _ in range(49)])
    assert (await reconstitute_order("order-123", events, snapshot_store)).version == 49
    assert await snapshot_store.get_latest_snapshot(aggregate_type="Order", aggregate_id="order-123") is None
    await events.append([line_added()])
    await reconstitute_order("order-123", events, snapshot_store)
    await events.append([line_added() for _ in range(3)], expected_version=50)
    counting = Counting(events)
    order = await reconstitute_order("order-123", counting, snapshot_store)
    assert (order.version, order.total, counting.loaded) == (53, Decimal("5.30"), [3])
    assert await snapshot_store.delete_snapshot(aggregate_type="Order", aggregate_id="order-123") == 1
    assert await reconstitute_order("order-123", events, snapshot_store) == order


async def long_stream(events, snapshot_store, length):
    """Grow a stream by fifty events at a time, looking at it after each; then by some more."""
    for number in range(0, length, SNAPSHOT_THRESHOLD):
        await events.append([line_added() for _ in range(SNAPSHOT_THRESHOLD)], expected_version=number)
        await reconstitute_order("order-123", events, snapshot_store)
    await events.append([line_added() for _ in range(SNAPSHOT_THRESHOLD - 1)])
    counting = Counting(events)
    order = await reconstitute_order("order-123", counting, snapshot_store)
    assert (order.version, order.total) == (length + 49, (length + 49) * Decimal("0.10"))
    assert counting.loaded == [49]
    assert await snapshot_store.prune("Order") == length // SNAPSHOT_THRESHOLD - 1
    assert await reconstitute_order("order-123", counting, snapshot_store) == order
    assert counting.loaded == [49, 49]


async def test_a_long_stream_loads_no_more_than_the_threshold(events, snapshot_store):
    """Of two thousand events only those since the latest snapshot are read, however many snapshots there are."""
    await long_stream(events, snapshot_store, 2_000)


@pytest.mark.slow
async def test_a_very_long_stream_loads_no_more_than_the_threshold(events, snapshot_store):
    """The same with a hundred thousand."""
    await long_stream(events, snapshot_store, 100_000)


async def maybe_snapshot(aggregate, snapshot_store):
    """Save one at every fiftieth version, a new aggregate's version 0 included."""
    if aggregate.version % SNAPSHOT_THRESHOLD == 0:
        await snapshot_store.save_snapshot(
            aggregate_type=type(aggregate).__name__,
            aggregate_id=aggregate.id,
            snapshot_data=aggregate.model_dump(),
            version=aggregate.version,
        )


async def test_strategy_1_a_threshold_of_events(events, snapshot_store):
    """The snapshots are those of the versions 0, 50 and 100."""
    order = Order(id="order-123")
    await maybe_snapshot(order, snapshot_store)
    for event in await events.append([line_added() for _ in range(120)]):
        order.apply(event)
        await maybe_snapshot(order, snapshot_store)
    found = [
        await snapshot_store.get_latest_snapshot("Order", "order-123", max_version=most) for most in (0, 49, 99, 120)
    ]
    assert [each["version"] for each in found] == [0, 0, 50, 100]
    assert Order(**found[-1]["snapshot_data"]).total == Decimal("10.00")


async def test_strategy_2_aggregates_that_were_not_updated_for_long(engine, uow, snapshot_store):
    """Those that a repository finds, each at the version that it has."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    repo = SQLAlchemyRepository(Order, OrderModel, lambda: uow)
    for name in ("old", "new"):
        await repo.add(Order(id=name, total=Decimal("9.90")))
    old = await repo.get("old")
    await repo.save(old)
    async with engine.begin() as connection:
        yesterday = datetime.now(UTC) - timedelta(hours=25)
        await connection.execute(sa.update(OrderModel).where(OrderModel.id == "old").values(updated_at=yesterday))
    threshold = datetime.now(UTC) - timedelta(hours=24)
    for aggregate in await repo.find_not_updated_since(threshold=threshold):
        await snapshot_store.save_snapshot(
            aggregate_type=type(aggregate).__name__,
            aggregate_id=aggregate.id,
            snapshot_data=aggregate.model_dump(),
            version=aggregate.version,
        )
    snapshot = await snapshot_store.get_latest_snapshot("Order", "old")
    assert Order(**snapshot["snapshot_data"]) == Order(id="old", version=2, total=Decimal("9.90"))
    assert await snapshot_store.get_latest_snapshot("Order", "new") is None


async def test_the_code_of_the_page_runs(session_factory, events):
    """What docs/snapshots.md shows saves at each fiftieth version that is passed, and loads from there."""
    page = {"SQLAlchemySnapshotStore": SQLAlchemySnapshotStore, "sessions": session_factory, "Account": Order}
    counting = page["events"] = Counting(events)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    exec(next(block for block in blocks if "async def load" in block), page)
    await events.append([line_added("a1") for _ in range(60)])
    await page["snapshot_every_fifty"](await page["load"]("a1"), version_before=49)
    await events.append([line_added("a1") for _ in range(5)])
    account = await page["load"]("a1")
    await page["snapshot_every_fifty"](account, version_before=60)
    assert (account.version, account.total) == (65, Decimal("6.50"))
    await page["load"]("a1")
    assert counting.loaded == [60, 5, 5]
