"""Steps and compensations that do odd things: what they did is neither lost nor done for ever."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

import pytest
from pydantic import BaseModel, ConfigDict, Field, computed_field

from cqrs_ddd_advanced_core.exceptions import CompensationError, DomainError
from cqrs_ddd_advanced_core.sagas import SagaState, SagaStatus, StepStatus, saga_step
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemySagaRepository
from tests.advanced.sagas.conftest import Order, end_lease, run_until
from tests.support.waiting import until


class Charge(SagaState):
    """Asks for money, and waits for it."""

    @saga_step(compensation="refund", retries=3)
    async def pay(self, outside):
        await outside.do("pay", self.step_key("pay"))
        self.suspend("waits for the bank")

    async def refund(self, outside):
        await outside.do("refund")


def over(repository, saga_id):
    """A condition: a saga has ended."""

    async def holds():
        return (await repository.get(saga_id)).status.is_terminal

    return holds


async def begun_and_to_be_undone(repository, make_runner, outside, engine, saga):
    """Let a step be begun by a worker that dies in it, and ask for the saga to be undone."""
    await repository.add(saga)
    outside.gates["pay"] = asyncio.Event()
    task = asyncio.create_task(make_runner(repository).run_due())
    await outside.reached.wait()
    task.cancel()
    await asyncio.wait([task])
    outside.gates.clear()
    found = await repository.get(saga.id)
    found.request_compensation("no longer wanted")
    await repository.add(found)
    await end_lease(engine, saga.id)


async def test_a_step_that_suspends_is_undone_when_it_is_brought_to_its_end(uow_factory, make_runner, outside, engine):
    """In a saga that is to be undone nothing is suspended."""
    charges = SQLAlchemySagaRepository(Charge, uow_factory)
    await begun_and_to_be_undone(charges, make_runner, outside, engine, Charge(id="c1"))
    assert await make_runner(charges).run_due() == 1
    saga = await charges.get("c1")
    assert (saga.status, saga.reason) == (SagaStatus.CANCELLED, "no longer wanted")
    assert outside.done == ["pay", "pay", "refund"]


async def test_a_step_that_is_brought_to_its_end_has_its_retries(uow_factory, make_runner, outside, engine):
    """Its run that nobody saw end may have succeeded, and only a success tells what to undo."""
    charges = SQLAlchemySagaRepository(Charge, uow_factory)
    await begun_and_to_be_undone(charges, make_runner, outside, engine, Charge(id="c1"))
    outside.failing["pay"] = 2
    await run_until(make_runner(charges), over(charges, "c1"))
    assert outside.done == ["pay", "pay", "pay", "pay", "refund"]
    assert len({key for what, key in outside.asked if what == "pay"}) == 1


async def test_a_try_that_fails_suspends_nothing(uow_factory, make_runner, outside):
    """What a step has said before it failed does not count; it is tried again."""

    class Ask(SagaState):
        @saga_step(retries=2)
        async def ask(self, outside):
            self.suspend("waits for an answer", timeout=timedelta(hours=1))
            await outside.do("ask")

    asks = SQLAlchemySagaRepository(Ask, uow_factory)
    await asks.add(Ask(id="a1"))
    outside.failing["ask"] = 2

    async def waits():
        return (await asks.get("a1")).status is SagaStatus.SUSPENDED

    await run_until(make_runner(asks), waits)
    saga = await asks.get("a1")
    assert outside.done == ["ask"] * 3
    assert [each.status for each in saga.step_history] == [StepStatus.FAILED] * 2 + [StepStatus.COMPLETED]
    assert saga.timeout_at is not None


async def test_a_step_that_calls_the_one_it_overrides_is_one_run(uow_factory, make_runner, outside):
    """It ends when it ends, not when the other one does."""

    class Careful(Order):
        @saga_step(compensation="refund", timeout=timedelta(milliseconds=50))
        async def pay(self, outside):
            await super().pay(outside)
            await asyncio.Event().wait()

    careful = SQLAlchemySagaRepository(Careful, uow_factory)
    await careful.add(Careful(id="o1"))
    await make_runner(careful).run_due()
    saga = await careful.get("o1")
    assert [(each.name, each.status, each.attempts) for each in saga.step_history] == [("pay", StepStatus.FAILED, 1)]
    assert saga.status is SagaStatus.CANCELLED


async def test_a_cancelled_runner_begins_no_further_step(uow_factory, make_runner, outside, orders):
    """Also where a step takes its cancellation for something else and ends as if nothing had been."""

    class Stubborn(SagaState):
        @saga_step()
        async def clean_up(self, outside):
            try:
                await outside.do("wait")
            except asyncio.CancelledError:
                await outside.do("clean up")

        @saga_step()
        async def never(self, outside):
            await outside.do("never")

    stubborn = SQLAlchemySagaRepository(Stubborn, uow_factory)
    await stubborn.add(Stubborn(id="s1"))
    outside.gates["wait"] = asyncio.Event()
    task = asyncio.create_task(make_runner(stubborn).run())
    await outside.reached.wait()
    task.cancel()
    await asyncio.wait([task])
    assert outside.done == ["wait", "clean up"]
    assert [each.status for each in (await stubborn.get("s1")).step_history] == [StepStatus.RUNNING]


async def test_steps_that_share_a_compensation_have_keys_of_their_own(uow_factory, make_runner, outside):
    """Each the same at every try, whatever is undone in between."""

    class Trip(SagaState):
        @saga_step(compensation="release")
        async def hotel(self, outside):
            await outside.do("hotel")

        @saga_step(compensation="release")
        async def car(self, outside):
            await outside.do("car")

        @saga_step()
        async def confirm(self):
            raise ValueError("no")

        async def release(self, outside):
            await outside.do("release", self.step_key("release"))

    trips = SQLAlchemySagaRepository(Trip, uow_factory)
    await trips.add(Trip(id="t1"))
    outside.failing["release"] = 1
    await run_until(make_runner(trips), over(trips, "t1"))
    keys = [key for what, key in outside.asked if what == "release"]
    assert keys == ["Trip:t1:release:1", "Trip:t1:release:0", "Trip:t1:release:1"]


@pytest.mark.parametrize("error", [asyncio.CancelledError(), ValueError("no")], ids=["cancelled", "failed"])
async def test_what_is_cancelled_from_inside_has_failed(uow_factory, make_runner, error):
    """A step is retried and undone, and a compensation retried and given up, as for any other error."""
    runs = []

    class Odd(SagaState):
        @saga_step(compensation="undo_first")
        async def first(self):
            runs.append("first")

        @saga_step(compensation="undo_second")
        async def second(self):
            runs.append("second")

        @saga_step(retries=1)
        async def third(self):
            runs.append("third")
            raise error

        async def undo_first(self):
            runs.append("undo first")

        async def undo_second(self):
            runs.append("undo second")
            raise error

    odd = SQLAlchemySagaRepository(Odd, uow_factory)
    await odd.add(Odd(id="o1"))
    await run_until(make_runner(odd, compensation_retries=1), over(odd, "o1"))
    assert (await odd.get("o1")).status is SagaStatus.FAILED
    assert runs == ["first", "second", "third", "third", "undo second", "undo first", "undo second"]


async def in_a_group():
    async def fail():
        raise LookupError("one of a group")

    async with asyncio.TaskGroup() as group:
        group.create_task(fail())


async def cancelling_itself():
    asyncio.current_task().cancel()
    await asyncio.sleep(0)


async def swallowing_that():
    with suppress(asyncio.CancelledError):
        await cancelling_itself()
    raise LookupError("afterwards")


class Stop(BaseException):
    pass


async def raising_no_exception():
    raise Stop("now")


async def closing_itself():
    await asyncio.sleep(0.05)  # for its lease to be renewed
    raise GeneratorExit


@pytest.mark.parametrize("act", [in_a_group, cancelling_itself, swallowing_that, raising_no_exception, closing_itself])
@pytest.mark.parametrize("where", ["step", "compensation"])
async def test_what_a_step_does_to_its_task_is_done_to_no_other(uow_factory, make_runner, act, where):
    """It fails as by any other error, once, and its saga with it."""
    runs = []

    class Odd(SagaState):
        @saga_step(compensation="undo")
        async def first(self):
            runs.append("first")

        @saga_step()
        async def second(self):
            runs.append("second")
            await (act() if where == "step" else cancelling_itself())

        async def undo(self):
            runs.append("undo")
            if where == "compensation":
                await act()

    odd = SQLAlchemySagaRepository(Odd, uow_factory)
    await odd.add(Odd(id="o1"))
    lease = timedelta(seconds=0.1) if act is closing_itself else timedelta(seconds=30)
    assert await make_runner(odd, compensation_retries=0, lease=lease).run_due() == 1
    assert len(asyncio.all_tasks()) == 1
    saga = await odd.get("o1")
    assert saga.status is (SagaStatus.CANCELLED if where == "step" else SagaStatus.FAILED)
    assert runs == ["first", "second", "undo"]
    assert saga.failures_of("second") == 1


async def test_a_compensation_ends_no_saga_that_has_more_to_be_undone(uow_factory, make_runner):
    """Whatever it says."""

    class Hasty(SagaState):
        undone: int = 0

        @saga_step(compensation="undo")
        async def first(self):
            pass

        @saga_step(compensation="undo")
        async def second(self):
            self.request_compensation("enough")

        async def undo(self):
            self.undone += 1
            self.mark_as_cancelled("in haste")

    hasty = SQLAlchemySagaRepository(Hasty, uow_factory)
    await hasty.add(Hasty(id="h1"))
    await make_runner(hasty).run_due()
    saga = await hasty.get("h1")
    assert (saga.status, saga.reason, saga.undone) == (SagaStatus.CANCELLED, "enough", 2)


async def test_an_error_that_cannot_be_told_is_an_error(uow_factory, make_runner):
    """Its class is."""

    class MuteError(Exception):
        def __str__(self):
            raise RuntimeError

    class Silent(SagaState):
        @saga_step()
        async def speak(self):
            raise MuteError

    silent = SQLAlchemySagaRepository(Silent, uow_factory)
    await silent.add(Silent(id="s1"))
    await make_runner(silent).run_due()
    assert (await silent.get("s1")).step_history[0].error == "MuteError: (it cannot be told)"


async def test_a_failed_saga_that_is_to_be_undone_again_keeps_its_reason(uow_factory, make_runner, outside, orders):
    """And has all retries of its compensations again; the error is gone with the failure."""
    await orders.add(Order(id="o1"))
    outside.failing = {"thank": 1, "call back": 5}
    await run_until(make_runner(compensation_retries=1), over(orders, "o1"))
    saga = await orders.get("o1")
    assert saga.status is SagaStatus.FAILED
    saga.request_compensation()
    await orders.add(saga)
    await run_until(make_runner(compensation_retries=3), over(orders, "o1"))
    saga = await orders.get("o1")
    assert (saga.status, saga.error) == (SagaStatus.CANCELLED, None)
    assert saga.reason == "step 'thank' failed: ConnectionError: no thank today"


async def test_a_new_saga_that_is_changed_before_any_runner_has_it_is_a_runners_all_the_same(
    uow_factory, make_runner, orders, outside
):
    """To be undone, or suspended and resumed: it is due at once."""
    for name, change in {
        "undone": lambda saga: saga.request_compensation("never mind"),
        "resumed": lambda saga: saga.resume(),
    }.items():
        await orders.add(Order(id=name))
        saga = await orders.get(name)
        change(saga)
        await orders.add(saga)
    assert await make_runner().run_due() == 2
    assert [(await orders.get(name)).status for name in ("undone", "resumed")] == ["CANCELLED", "COMPLETED"]


async def test_fields_with_aliases_come_back(uow_factory):
    """By their names, whatever the aliases; so do models within, and computed fields stand in nobody's way."""

    class Address(BaseModel):
        street: str = Field(alias="streetName")

    class Aliased(SagaState):
        model_config = ConfigDict(extra="forbid")
        payment: str | None = Field(default=None, alias="paymentId")
        room: str | None = Field(default=None, validation_alias="roomIn", serialization_alias="roomOut")
        address: Address | None = None

        @computed_field
        @property
        def is_paid(self) -> bool:
            return self.payment is not None

    aliased = SQLAlchemySagaRepository(Aliased, uow_factory)
    saga = Aliased(id="a1", paymentId="p-1", roomIn="r-1", address={"streetName": "Main"})
    await aliased.add(saga)
    assert await aliased.get("a1") == saga


@pytest.mark.parametrize("end", ["run", "run_due"])
async def test_a_runner_runs_once_at_a_time(orders, make_runner, waiting_order, outside, end):
    """A second call is refused while the first one is at work, and welcome afterwards."""
    runner = make_runner()
    task = asyncio.create_task(runner.run())
    await outside.reached.wait()
    with pytest.raises(RuntimeError, match="runs already"):
        await getattr(runner, end)()
    runner.stop()
    outside.gates["pay"].set()
    await task
    assert await runner.run_due() == 1


@pytest.fixture
async def waiting_order(orders, outside):
    outside.gates["pay"] = asyncio.Event()
    return await orders.add(Order(id="o1"))


def test_what_cannot_be_run_is_refused_with_the_class():
    """Compensations that are not async or are steps, and steps overridden by what is none."""
    with pytest.raises(DomainError, match="'undo', which is not an async method"):

        class Sync(SagaState):
            @saga_step(compensation="undo")
            async def do(self):
                pass

            def undo(self):
                pass

    with pytest.raises(DomainError, match="'other', which is a step itself"):

        class Circular(SagaState):
            @saga_step(compensation="other")
            async def do(self):
                pass

            @saga_step()
            async def other(self):
                pass

    with pytest.raises(DomainError, match="'pay' overrides a step and is none"):

        class Dropped(Order):
            async def pay(self):
                pass


async def test_another_name_for_a_step_is_no_further_step(uow_factory, make_runner, outside):
    """It runs once."""

    class Renamed(SagaState):
        @saga_step()
        async def pay(self, outside):
            await outside.do("pay")

        charge = pay

    assert list(Renamed.steps) == ["pay"]
    renamed = SQLAlchemySagaRepository(Renamed, uow_factory)
    await renamed.add(Renamed(id="r1"))
    await make_runner(renamed).run_due()
    assert outside.done == ["pay"]


async def test_a_runner_that_is_cancelled_again_and_again(uow_factory, make_runner):
    """It ends its steps, if it must in the background, and can be run again."""
    begun, may_end = asyncio.Event(), asyncio.Event()

    class Slow(SagaState):
        @saga_step()
        async def only(self):
            if begun.is_set():
                return
            try:
                begun.set()
                await asyncio.Event().wait()
            finally:
                await may_end.wait()

    slow = SQLAlchemySagaRepository(Slow, uow_factory)
    await slow.add(Slow(id="s1"))
    runner = make_runner(slow)
    task = asyncio.create_task(runner.run())
    await begun.wait()
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    may_end.set()
    await until(lambda: len(asyncio.all_tasks()) == 1)
    await run_until(runner, over(slow, "s1"))
    assert (await slow.get("s1")).status is SagaStatus.COMPLETED


async def test_compensations_in_a_task_that_was_cancelled_before():
    """What cancels itself is recorded as not undone, and the others are undone all the same."""
    undone = []

    class Odd(SagaState):
        @saga_step(compensation="undo_first")
        async def first(self):
            """Do it."""

        @saga_step(compensation="undo_second")
        async def second(self):
            """Do it."""

        async def undo_first(self):
            undone.append("first")

        async def undo_second(self):
            undone.append("second")
            raise asyncio.CancelledError

    saga = Odd(id="o1")
    await saga.first()
    await saga.second()
    asyncio.current_task().cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
    with pytest.raises(CompensationError):
        await saga.compensate_all()
    asyncio.current_task().uncancel()
    assert undone == ["second", "first"]
    assert saga.status is SagaStatus.FAILED
