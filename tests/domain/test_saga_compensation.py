"""Undoing what a saga has done: in which order, by which services, and when a compensation fails."""

from __future__ import annotations

import pytest

from cqrs_ddd_advanced_core.exceptions import CompensationError, DomainError, InvalidTransitionError
from cqrs_ddd_advanced_core.sagas import SagaStatus as S
from cqrs_ddd_advanced_core.sagas import StepStatus
from tests.domain.trips import Journey, Services, Trip, trip


async def test_what_is_done_is_undone_last_first():
    """Once each, by services that are given, bound, or were the step's arguments, in this order."""
    air, inn, other = Services(), Services(), Services()
    saga = trip()
    await saga.book_flight(air, 3)
    await saga.book_hotel(inn)
    saga.bind(inn=other)
    asked = []
    air.ask = other.ask = asked.append
    await saga.compensate_all()
    assert asked == ["no hotel", "no flight 3"]
    assert [each.status for each in saga.step_history] == [StepStatus.COMPENSATED] * 2
    assert all(each.compensated_at for each in saga.step_history)
    assert saga.status is S.COMPENSATING
    await saga.compensate_all()
    assert asked == ["no hotel", "no flight 3"]
    saga.mark_as_cancelled("no money")
    assert (saga.status, saga.reason) == (S.CANCELLED, "no money")


async def test_a_missing_service_is_named_before_anything_is_undone():
    """A saga that was loaded in another process has to be told; then it goes on."""
    saga = trip()
    services = Services()
    await saga.book_flight(services)
    await saga.book_hotel(services)
    loaded = Trip(**saga.model_dump())
    with pytest.raises(CompensationError, match=r"'cancel_flight' needs 'air', .*saga\.bind\(air=\.\.\.\)"):
        await loaded.compensate_all(inn=services)
    assert (loaded.status, services.asked) == (S.RUNNING, ["flight", "hotel"])
    await loaded.compensate_all(inn=services, air=services)
    assert services.asked[2:] == ["no hotel", "no flight 1"]


async def test_a_compensation_that_fails_does_not_keep_the_others():
    """The saga is FAILED with all causes; calling again undoes what is left, and only that."""
    services = Services("no hotel")
    saga = trip()
    await saga.book_flight(services)
    await saga.book_hotel(services)
    with pytest.raises(CompensationError, match="undoing 'book_hotel' failed; mend the cause") as caught:
        await saga.compensate_all()
    assert [str(cause) for cause in caught.value.causes] == ["no hotel does not answer"]
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert saga.status is S.FAILED
    assert "undoing 'book_hotel' failed" in saga.error
    assert services.asked[2:] == ["no hotel", "no flight 1"]
    assert saga.step_history[1].error == "ConnectionError: no hotel does not answer"
    services.failing.clear()
    again = Trip(**saga.model_dump())
    await again.compensate_all(inn=services, air=services)
    assert services.asked[4:] == ["no hotel"]
    again.mark_as_cancelled("done")
    assert again.status is S.CANCELLED


async def test_failed_and_unfinished_steps_are_not_undone():
    """Only what was completed has to be undone."""
    services = Services("hotel")
    saga = trip()
    await saga.book_flight(services)
    with pytest.raises(ConnectionError):
        await saga.book_hotel(services)
    await saga.compensate_all()
    assert services.asked == ["flight", "hotel", "no flight 1"]


async def test_the_key_of_a_compensation_is_that_of_its_run():
    """The same until it has ended well."""
    journey = Journey()
    await journey.leave()
    assert journey.step_key("stay") == f"Journey:{journey.id}:stay:0"
    await journey.compensate_all()
    assert journey.step_key("stay") == f"Journey:{journey.id}:stay:1"
    with pytest.raises(DomainError, match="has no step 'fly'; its steps: leave, arrive"):
        journey.step_key("fly")


async def test_a_single_step_is_undone_in_a_saga_that_is_to_be_undone():
    """Not before; and what was begun may be brought to its end meanwhile, but nothing new."""
    journey = Journey()
    await journey.leave()
    (record,) = journey.to_be_compensated()
    with pytest.raises(InvalidTransitionError, match="call request_compensation"):
        await journey.compensate_step(record, {})
    journey.begin_step(Journey.steps["leave"])
    journey.request_compensation("no")
    await journey.leave()
    with pytest.raises(InvalidTransitionError, match="step 'arrive' runs only in a saga that is RUNNING"):
        await journey.arrive()
    for each in journey.to_be_compensated():
        await journey.compensate_step(each, {})
    assert journey.to_be_compensated() == []
    assert {each.status for each in journey.step_history} == {StepStatus.COMPENSATED}
