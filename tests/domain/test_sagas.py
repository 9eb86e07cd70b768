"""Sagas without a database: transitions, steps, and how they are undone."""

from __future__ import annotations

import asyncio
import pickle
from datetime import UTC, datetime, timedelta, timezone

import pytest

from cqrs_ddd_advanced_core.exceptions import CompensationError, DomainError, InvalidTransitionError
from cqrs_ddd_advanced_core.sagas import SagaState, SagaStatus, StepStatus, saga_step

S = SagaStatus
TERMINAL = [S.COMPLETED, S.CANCELLED, S.FAILED]


class Services:
    """Everything outside, which can be told to fail, and notes what it was asked."""

    def __init__(self, *failing):
        self.asked = []
        self.failing = set(failing)

    def ask(self, what):
        self.asked.append(what)
        if what in self.failing:
            raise ConnectionError(f"{what} does not answer")


class Trip(SagaState):
    city: str = "Oslo"
    flight: str | None = None
    hotel: str | None = None

    @saga_step(compensation="cancel_flight")
    async def book_flight(self, air, seats=1):
        """Book the flight."""
        air.ask("flight")
        self.flight = f"{self.city} {seats}"
        return self.flight

    @saga_step(compensation="cancel_hotel")
    async def book_hotel(self, inn):
        inn.ask("hotel")
        self.hotel = "12"

    @saga_step()
    async def tell(self, *words, loud=False, **more):
        return words, loud, more

    async def cancel_flight(self, air, seats=1):
        air.ask(f"no flight {seats}")

    async def cancel_hotel(self, inn):
        inn.ask("no hotel")


def trip(status=S.PENDING, **fields):
    return Trip(id="t1", status=status, **fields)


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
    do, target, legal = ACTIONS[action]
    saga = trip(status, timeout_at=datetime(2026, 1, 1, tzinfo=UTC))
    before = saga.model_dump()
    if status in legal:
        do(saga)
        assert saga.status is target
        return
    with pytest.raises(InvalidTransitionError, match=f"saga 't1' is {status}, and cannot become {target}") as caught:
        do(saga)
    assert (caught.value.current, caught.value.target) == (status, target)
    assert saga.model_dump() == before


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


async def test_a_saga_survives_its_journey_through_json():
    """History, deadlines and fields of the subclass included."""
    saga = trip(correlation_id="o1")
    await saga.book_flight(Services())
    saga.suspend("why", until=datetime(2026, 5, 1, tzinfo=UTC))
    assert Trip.model_validate_json(saga.model_dump_json()).model_dump() == saga.model_dump()


class Journey(SagaState):
    @saga_step(compensation="stay", retries=1)
    async def leave(self):
        pass

    @saga_step()
    async def arrive(self):
        pass

    async def stay(self):
        pass


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
    assert (journey.status, record.status, record.attempts) == (SagaStatus.RUNNING, StepStatus.RUNNING, 1)
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


def test_errors_are_recorded_as_every_database_stores_them():
    """Without NUL and lone surrogates, and not at any length."""
    journey = Journey()
    journey.begin_step(Journey.steps["leave"])
    journey.fail_step("leave", ValueError("a\0b\ud800" + "x" * 10_000))
    error = journey.step_history[0].error
    assert error.startswith("ValueError: a\N{REPLACEMENT CHARACTER}b?x")
    assert len(error) < 5000
