"""Steps of a saga: how they are defined, when they run, what is recorded of them, and under which key."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from cqrs_ddd_advanced_core.exceptions import DomainError, InvalidTransitionError
from cqrs_ddd_advanced_core.sagas import SagaState, StepStatus, saga_step
from cqrs_ddd_advanced_core.sagas import SagaStatus as S
from tests.domain.trips import Journey, Services, Trip, trip

TERMINAL = [S.COMPLETED, S.CANCELLED, S.FAILED]


def test_steps_are_known_in_the_order_of_their_definition():
    """Those of a base class come first, and an overriding method keeps its place."""

    class Longer(Trip):
        @saga_step(retries=2, timeout=timedelta(seconds=3))
        async def pay(self):
            pass

        @saga_step(compensation="cancel_flight")
        async def book_flight(self, air):
            pass

    assert list(Longer.steps) == ["book_flight", "book_hotel", "tell", "pay"]
    assert (Longer.steps["pay"].retries, Longer.steps["pay"].timeout) == (2, timedelta(seconds=3))
    assert list(Trip.steps) == ["book_flight", "book_hotel", "tell"]


def test_what_undoes_a_step_must_be_there():
    """A mistyped name is found when the class is made, not when it is needed."""
    with pytest.raises(DomainError, match="step 'pay' is undone by 'refund', which is no method of it"):

        class Broken(SagaState):
            @saga_step(compensation="refund")
            async def pay(self):
                pass


@pytest.mark.parametrize(
    "arguments", [{"retries": -1}, {"retries": True}, {"retries": 1.5}, {"timeout": 5}, {"timeout": timedelta(0)}]
)
def test_settings_of_a_step_that_make_no_sense_are_refused(arguments):
    """The argument is named."""
    with pytest.raises(DomainError, match=next(iter(arguments))):
        saga_step(**arguments)


def test_a_step_is_async():
    """A plain function would be done before anybody could await it."""
    with pytest.raises(DomainError, match="is not an async method"):

        @saga_step()
        def pay(self):
            pass


async def test_a_step_is_recorded_and_otherwise_as_it_was():
    """Arguments, return value, name and docstring stay; the record says when it began and ended."""
    saga = trip()
    assert await saga.book_flight(Services(), seats=2) == "Oslo 2"
    assert await saga.tell("a", "b", loud=True, more=1) == (("a", "b"), True, {"more": 1})
    assert (Trip.book_flight.__name__, Trip.book_flight.__doc__) == ("book_flight", "Book the flight.")
    flight, told = saga.step_history
    assert (flight.name, flight.status, flight.compensation) == ("book_flight", StepStatus.COMPLETED, "cancel_flight")
    assert (told.name, told.status, told.compensation) == ("tell", StepStatus.COMPLETED, None)
    assert flight.started_at <= flight.finished_at <= told.started_at
    assert flight.started_at.utcoffset() == timedelta(0)
    assert saga.status is S.RUNNING


async def test_a_failed_step_is_recorded_and_its_error_passes():
    """The exception is the very same object."""
    saga = trip()
    with pytest.raises(ConnectionError, match="flight does not answer"):
        await saga.book_flight(Services("flight"))
    (record,) = saga.step_history
    assert (record.status, record.error) == (StepStatus.FAILED, "ConnectionError: flight does not answer")
    assert record.finished_at is not None


async def test_a_wrong_call_is_no_run_of_a_step():
    """A TypeError for arguments that the method does not take leaves no record."""
    saga = trip()
    with pytest.raises(TypeError, match="missing a required argument: 'air'"):
        await saga.book_flight()
    assert saga.step_history == []
    assert saga.status is S.PENDING


@pytest.mark.parametrize("status", [S.SUSPENDED, S.COMPENSATING, *TERMINAL])
async def test_steps_run_in_a_running_saga_only(status):
    """The service is not asked."""
    saga, services = trip(status), Services()
    with pytest.raises(InvalidTransitionError, match=f"is {status}: step 'book_flight' runs only in a saga"):
        await saga.book_flight(services)
    assert (saga.step_history, services.asked) == ([], [])


async def test_a_cancelled_task_leaves_its_step_begun():
    """It may be tried again, under the same key and in the same record."""
    saga = trip()

    key, slow = saga.step_key("book_flight"), Services()

    def cancelled(_what):
        raise asyncio.CancelledError

    slow.ask = cancelled
    with pytest.raises(asyncio.CancelledError):
        await saga.book_flight(slow)
    (record,) = saga.step_history
    assert record.status is StepStatus.RUNNING
    assert saga.step_key("book_flight") == key
    await saga.book_flight(Services())
    assert [each.status for each in saga.step_history] == [StepStatus.COMPLETED]


async def test_a_step_s_key_changes_only_when_it_has_succeeded():
    """Failures and crashes are tried again under the same key; another saga's is another one."""
    saga = trip()
    key = saga.step_key("book_flight")
    with pytest.raises(ConnectionError):
        await saga.book_flight(Services("flight"))
    assert saga.step_key("book_flight") == key
    await saga.book_flight(Services())
    assert saga.step_key("book_flight") != key
    assert Trip(id="t2").step_key("book_flight") != key
    assert saga.step_key("book_hotel") != key
    with pytest.raises(DomainError, match="saga Trip has no step 'fly'; its steps: book_flight, book_hotel, tell"):
        saga.step_key("fly")


async def test_the_next_step_is_the_first_that_is_not_completed():
    """In the order of their definition; None when all are."""
    journey = Journey()
    assert journey.next_step().name == "leave"
    await journey.leave()
    assert journey.next_step().name == "arrive"
    await journey.arrive()
    assert journey.next_step() is None


async def test_a_step_that_is_begun_beforehand_is_one_run():
    """Whoever records the beginning first, and calls the method then, has one record of one attempt."""
    journey = Journey()
    record = journey.begin_step(Journey.steps["leave"])
    assert (journey.status, record.status, record.attempts) == (S.RUNNING, StepStatus.RUNNING, 1)
    await journey.leave()
    assert [(each.status, each.attempts) for each in journey.step_history] == [(StepStatus.COMPLETED, 1)]


async def test_a_run_that_nobody_saw_end_is_begun_again_and_counted():
    """Whether its beginning is recorded first or not; the key stays the same."""
    journey = Journey()
    journey.begin_step(Journey.steps["leave"])
    found = Journey.model_validate(journey.model_dump())
    key = found.step_key("leave")
    assert found.begin_step(Journey.steps["leave"]).attempts == 2
    assert found.unfinished_step().name == "leave"
    again = Journey.model_validate(found.model_dump())
    await again.leave()
    assert [(each.status, each.attempts) for each in again.step_history] == [(StepStatus.COMPLETED, 3)]
    assert key == f"Journey:{journey.id}:leave:0"


def test_failures_are_counted_since_the_last_completion():
    """And a run that was given up by whoever watched it counts, too."""
    journey = Journey()
    for failures in (1, 2):
        journey.begin_step(Journey.steps["leave"])
        journey.fail_step("leave", TimeoutError("too long"))
        journey.fail_step("leave", TimeoutError("said twice"))
        assert journey.failures_of("leave") == failures
    assert [each.error for each in journey.step_history] == ["TimeoutError: too long"] * 2
    assert journey.failures_of("arrive") == 0


def test_errors_are_recorded_as_every_database_stores_them():
    """Without NUL and lone surrogates, and not at any length."""
    journey = Journey()
    journey.begin_step(Journey.steps["leave"])
    journey.fail_step("leave", ValueError("a\0b\ud800" + "x" * 10_000))
    error = journey.step_history[0].error
    assert error.startswith("ValueError: a\N{REPLACEMENT CHARACTER}b?x")
    assert len(error) < 5000
