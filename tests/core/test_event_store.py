"""The event store's behaviour, on both databases."""

from __future__ import annotations

from cqrs_ddd_advanced_core import StoredEvent
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore


def an_event(stream="order-1", **given):
    return StoredEvent(**{"aggregate_id": stream, "event_type": "Placed", "payload": {}} | given)


async def test_positions_start_at_one_and_rise_by_one(session_factory):
    """Positions number the events of all streams from 1, versions those of each."""
    store = SQLAlchemyEventStore(session_factory)
    stored = await store.append([an_event("a"), an_event("a"), an_event("b")])
    assert [(event.position, event.version) for event in stored] == [(1, 1), (2, 2), (3, 1)]
