"""Events for tests in which it is of no concern what they tell, and short ways to look at them."""

from __future__ import annotations

from cqrs_ddd_advanced_core import StoredEvent
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore


def an_event(stream="order-1", **given):
    return StoredEvent(**{"aggregate_id": stream, "event_type": "Placed", "payload": {}} | given)


def places(events):
    return [(event.aggregate_id, event.version, event.position) for event in events]


async def everything(store):
    return [event async for event in store.stream_after(0)]


async def versions(session_factory, stream="order-1"):
    return [event.version for event in await SQLAlchemyEventStore(session_factory).get_events(stream)]
