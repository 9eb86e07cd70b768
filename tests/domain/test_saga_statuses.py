"""Which status of a saga leads to which, its deadlines, and its journey through JSON."""

from __future__ import annotations

import asyncio
import pickle
from datetime import UTC, datetime, timedelta, timezone

import pytest

from cqrs_ddd_advanced_core.sagas import SagaStatus as S
from tests.domain.transitions import check_transition
from tests.domain.trips import Services, Trip, trip

ACTIONS = {
    "suspend": (lambda saga: saga.suspend("why"), S.SUSPENDED, {S.PENDING, S.RUNNING}),
    "resume": (lambda saga: saga.resume(), S.RUNNING, {S.PENDING, S.SUSPENDED, S.RUNNING}),
    "complete": (lambda saga: saga.mark_as_completed(), S.COMPLETED, {S.PENDING, S.RUNNING, S.COMPLETED}),
    "cancel": (
        lambda saga: saga.mark_as_cancelled("why"),
        S.CANCELLED,
        {S.PENDING, S.RUNNING, S.SUSPENDED, S.COMPENSATING, S.CANCELLED},
    ),
    "fail": (
        lambda saga: saga.mark_as_failed("why"),
        S.FAILED,
        {S.PENDING, S.RUNNING, S.SUSPENDED, S.COMPENSATING, S.FAILED},
    ),
    "compensate": (
        lambda saga: asyncio.run(saga.compensate_all()),
        S.COMPENSATING,
        {S.PENDING, S.RUNNING, S.SUSPENDED, S.COMPENSATING, S.FAILED},
    ),
}


@pytest.mark.parametrize("status", S)
@pytest.mark.parametrize("action", ACTIONS)
def test_each_transition_is_legal_or_refused(status, action):
    """What is refused says from where to where, and has changed nothing."""
    check_transition(trip(status, timeout_at=datetime(2026, 1, 1, tzinfo=UTC)), "saga 't1'", ACTIONS[action])


@pytest.mark.parametrize(("action", "status"), [("complete", S.COMPLETED), ("cancel", S.CANCELLED), ("fail", S.FAILED)])
def test_a_terminal_status_entered_again_changes_nothing(action, status):
    """Neither the reason nor the error of the first time is lost."""
    saga = trip(status, reason="first", error="first")
    before = saga.model_dump()
    ACTIONS[action][0](saga)
    assert saga.model_dump() == before


def test_waiting_has_a_deadline_or_a_duration():
    """A point in time is kept in UTC, a duration until the saga is saved, and resuming clears both."""
    saga = trip(S.RUNNING)
    saga.suspend("payment", until=datetime(2026, 5, 1, 12, tzinfo=timezone(timedelta(hours=2))))
    assert (saga.status, saga.reason, saga.timeout) == (S.SUSPENDED, "payment", None)
    assert saga.timeout_at == datetime(2026, 5, 1, 10, tzinfo=UTC)
    saga.resume()
    assert (saga.status, saga.reason, saga.timeout_at) == (S.RUNNING, None, None)
    saga.suspend("payment", timeout=timedelta(hours=1))
    assert (saga.timeout, saga.timeout_at) == (timedelta(hours=1), None)
    assert pickle.loads(pickle.dumps(saga.model_copy())).timeout == timedelta(hours=1)
    saga.mark_as_cancelled()
    assert saga.timeout is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"until": datetime(2026, 5, 1)}, "until is an aware datetime"),  # noqa: DTZ001
        ({"until": "tomorrow"}, "until is an aware datetime"),
        ({"timeout": 5}, "timeout is a timedelta from 0"),
        ({"timeout": timedelta(seconds=-1)}, "timeout is a timedelta from 0"),
        ({"timeout": timedelta(1), "until": datetime(2026, 5, 1, tzinfo=UTC)}, "not both"),
    ],
)
def test_a_deadline_that_makes_no_sense_is_refused(arguments, message):
    """The saga goes on running."""
    saga = trip(S.RUNNING)
    with pytest.raises(ValueError, match=message):
        saga.suspend("why", **arguments)
    assert (saga.status, saga.reason) == (S.RUNNING, None)


def test_a_naive_deadline_is_refused_at_construction():
    """The error names the field."""
    with pytest.raises(ValueError, match="timeout_at"):
        trip(timeout_at=datetime(2026, 5, 1))  # noqa: DTZ001


async def test_a_saga_survives_its_journey_through_json():
    """History, deadlines and fields of the subclass included."""
    saga = trip(correlation_id="o1")
    await saga.book_flight(Services())
    saga.suspend("why", until=datetime(2026, 5, 1, tzinfo=UTC))
    assert Trip.model_validate_json(saga.model_dump_json()).model_dump() == saga.model_dump()
