"""Fields that no row can hold are refused, or stored as what they are, in batches of any size."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore
from tests.support.events import an_event


@pytest.mark.parametrize("count", [1, 5, 150])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"correlation_id": 0}, "correlation_id"),
        ({"aggregate_type": False}, "aggregate_type"),
        ({"causation_id": []}, "causation_id"),
        (
            {"occurred_at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-12)))},
            "occurred_at .* outside the years",
        ),
        (
            {"occurred_at": datetime.min.replace(tzinfo=timezone(timedelta(hours=12)))},
            "occurred_at .* outside the years",
        ),
        ({"occurred_at": datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None)}, "occurred_at is the naive"),
    ],
)
async def test_what_no_row_can_hold_is_refused(session_factory, count, values, message):
    """By name, in a batch of any size, and nothing is stored."""
    store = SQLAlchemyEventStore(session_factory)
    events = [an_event(f"a{number}") for number in range(count - 1)]
    with pytest.raises(ValueError, match=message):
        await store.append([*events, an_event("last").model_copy(update=values)])
    assert await store.last_position() == 0


@pytest.mark.parametrize("count", [1, 5, 150])
async def test_offsets_of_any_size(session_factory, count):
    """A time is the same in whichever zone it is given."""
    store, zone = SQLAlchemyEventStore(session_factory), timezone(timedelta(hours=23, minutes=59, seconds=59))
    at = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=zone)
    await store.append([an_event(f"a{number}").model_copy(update={"occurred_at": at}) for number in range(count)])
    assert {event.occurred_at for event in await store.get_events_after(0)} == {at}
