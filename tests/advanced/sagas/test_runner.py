"""A runner takes sagas through their steps, and undoes them when a step has failed for good."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from cqrs_ddd_advanced_core.sagas import SagaState, SagaStatus, StepStatus, saga_step
from cqrs_ddd_persistence_sqlalchemy.advanced import SagaRunner, SQLAlchemySagaRepository
from tests.advanced.sagas.conftest import Order, end_lease, run_until
from tests.support.waiting import until


def of(orders, saga_id, status):
    """A condition: a saga has a status."""

    async def holds():
        return (await orders.get(saga_id)).status is status

    return holds


async def test_steps_run_in_their_order_and_the_saga_is_completed(orders, runner, outside):
    """Each is recorded with its beginning and its end, and what the steps have set is saved."""
    await orders.add(Order(id="o1"))
    assert await runner.run_due() == 1
    saga = await orders.get("o1")
    assert (saga.status, saga.paid, saga.parcel) == (SagaStatus.COMPLETED, True, "parcel of o1")
    assert outside.asked == [("pay", "Order:o1:pay:0"), ("ship", "Order:o1:ship:0"), ("thank", "Order:o1:thank:0")]
    assert [(each.name, each.status, each.attempts) for each in saga.step_history] == [
        (name, StepStatus.COMPLETED, 1) for name in ("pay", "ship", "thank")
    ]
    assert all(each.started_at <= each.finished_at for each in saga.step_history)
    assert await runner.run_due() == 0


async def test_a_step_is_saved_as_begun_before_it_runs(orders, runner, outside):
    """Somebody who looks meanwhile sees it, and what was completed before it."""
    await orders.add(Order(id="o1"))
    outside.gates["ship"] = asyncio.Event()
    running = asyncio.create_task(runner.run_due())
    await outside.reached.wait()
    seen = await orders.get("o1")
    assert [(each.name, each.status) for each in seen.step_history] == [
        ("pay", StepStatus.COMPLETED),
        ("ship", StepStatus.RUNNING),
    ]
    assert (seen.status, seen.paid) == (SagaStatus.RUNNING, True)
    outside.gates["ship"].set()
    await running


async def test_a_failed_step_is_tried_again_with_the_same_key(orders, runner, outside):
    """As often as its decorator says; each failure stays in the history."""
    await orders.add(Order(id="o1"))
    outside.failing["pay"] = 2
    await run_until(runner, of(orders, "o1", SagaStatus.COMPLETED))
    assert outside.done == ["pay", "pay", "pay", "ship", "thank"]
    assert len({key for what, key in outside.asked if what == "pay"}) == 1
    saga = await orders.get("o1")
    assert [(each.status, each.error) for each in saga.step_history if each.name == "pay"] == [
        (StepStatus.FAILED, "ConnectionError: no pay today"),
        (StepStatus.FAILED, "ConnectionError: no pay today"),
        (StepStatus.COMPLETED, None),
    ]


async def test_nobody_tries_again_before_the_pause_ends(orders, make_runner, outside, engine):
    """The pause is kept by the database, so another runner waits for its end, too."""
    await orders.add(Order(id="o1"))
    outside.failing["pay"] = 1
    patient = make_runner(backoff=timedelta(hours=1), max_backoff=timedelta(hours=2))
    assert await patient.run_due() == 1
    assert await make_runner().run_due() == 0
    await end_lease(engine, "o1")
    assert await make_runner().run_due() == 1
    assert (await orders.get("o1")).status is SagaStatus.COMPLETED


async def test_after_the_last_try_the_completed_steps_are_undone_last_first(orders, runner, outside):
    """The saga is cancelled, with the failure as the reason; what was never completed is not undone."""
    await orders.add(Order(id="o1"))
    outside.failing["thank"] = 1
    await run_until(runner, of(orders, "o1", SagaStatus.CANCELLED))
    assert outside.done == ["pay", "ship", "thank", "call back", "refund"]
    saga = await orders.get("o1")
    assert saga.reason == "step 'thank' failed: ConnectionError: no thank today"
    assert [(each.name, each.status) for each in saga.step_history] == [
        ("pay", StepStatus.COMPENSATED),
        ("ship", StepStatus.COMPENSATED),
        ("thank", StepStatus.FAILED),
    ]
    assert saga.paid is False


async def test_a_compensation_that_fails_is_tried_again_and_not_the_ones_that_succeeded(orders, runner, outside):
    """The others are undone meanwhile; its key stays the same."""
    await orders.add(Order(id="o1"))
    outside.failing = {"thank": 1, "call back": 3}
    await run_until(runner, of(orders, "o1", SagaStatus.CANCELLED))
    assert outside.done[3:] == ["call back", "refund", "call back", "call back", "call back"]
    assert {key for what, key in outside.asked if what == "call back"} == {"Order:o1:call_back:0"}


async def test_a_saga_that_cannot_be_undone_has_failed(orders, make_runner, outside):
    """After the last retry of the compensation; undone by hand later, it goes on with what is left."""
    await orders.add(Order(id="o1"))
    outside.failing = {"thank": 1, "call back": 3}
    await run_until(make_runner(compensation_retries=2), of(orders, "o1", SagaStatus.FAILED))
    saga = await orders.get("o1")
    assert saga.error == (
        "CompensationError: saga 'o1': undoing 'ship' failed; mend the cause, then call compensate_all() again, "
        "or have a SagaRunner do it: request_compensation()"
    )
    assert [each.compensation_failures for each in saga.step_history] == [0, 3, 0]
    saga.request_compensation("the parcel is found")
    await orders.add(saga)
    assert await make_runner().run_due() == 1
    saga = await orders.get("o1")
    assert (saga.status, saga.reason) == (SagaStatus.CANCELLED, "the parcel is found")
    assert outside.done.count("refund") == 1


async def test_a_step_or_compensation_that_takes_too_long_has_failed(uow_factory, make_runner):
    """By its timeout; what hangs is cancelled."""

    class Slow(SagaState):
        @saga_step(compensation="unbook", timeout=timedelta(milliseconds=10))
        async def book(self):
            pass

        @saga_step(timeout=timedelta(milliseconds=10))
        async def wait(self):
            await asyncio.Event().wait()

        async def unbook(self):
            await asyncio.Event().wait()

    slow = SQLAlchemySagaRepository(Slow, uow_factory)
    await slow.add(Slow(id="s1"))
    await make_runner(slow, compensation_retries=0).run_due()
    saga = await slow.get("s1")
    assert saga.status is SagaStatus.FAILED
    assert [(each.name, each.status, each.error) for each in saga.step_history] == [
        ("book", StepStatus.COMPENSATION_FAILED, "TimeoutError: "),
        ("wait", StepStatus.FAILED, "TimeoutError: "),
    ]


async def test_a_step_may_suspend_its_saga_which_goes_on_when_it_is_resumed(uow_factory, make_runner, outside):
    """By whoever hears the news; at once, not only when it counts as stalled."""

    class Loan(SagaState):
        approved: bool = False

        @saga_step()
        async def ask(self, outside):
            await outside.do("ask")
            self.suspend("waits for the approval")

        @saga_step()
        async def pay_out(self, outside):
            await outside.do(f"pay out {self.approved}")

    loans = SQLAlchemySagaRepository(Loan, uow_factory)
    runner = make_runner(loans)
    await loans.add(Loan(id="l1", correlation_id="c1"))
    assert await runner.run_due() == 1
    assert await runner.run_due() == 0
    loan = await loans.find_by_correlation_id("c1")
    assert (loan.status, loan.reason) == (SagaStatus.SUSPENDED, "waits for the approval")
    loan.approved = True
    loan.resume()
    await loans.add(loan)
    assert await runner.run_due() == 1
    assert outside.done == ["ask", "pay out True"]
    assert (await loans.get("l1")).status is SagaStatus.COMPLETED


async def test_a_suspended_saga_whose_deadline_has_passed_is_undone(orders, runner, outside):
    """It is cancelled, and says what it has waited for."""
    saga = Order(id="o1")
    await saga.pay(outside)
    saga.suspend("waits for the truck", timeout=timedelta(0))
    await orders.add(saga)
    assert await runner.run_due() == 1
    saga = await orders.get("o1")
    assert saga.status is SagaStatus.CANCELLED
    assert saga.reason == "the deadline passed while it was suspended: waits for the truck"
    assert outside.done == ["pay", "refund"]


async def test_a_step_may_end_its_saga(uow_factory, make_runner):
    """What it says stands; nothing else runs."""

    class Short(SagaState):
        how: SagaStatus = SagaStatus.COMPLETED

        @saga_step(compensation="undo")
        async def decide(self):
            match self.how:
                case SagaStatus.COMPLETED:
                    self.mark_as_completed()
                case SagaStatus.CANCELLED:
                    self.mark_as_cancelled("not needed")
                case SagaStatus.FAILED:
                    self.mark_as_failed("hopeless")
                    raise ValueError("hopeless")

        @saga_step()
        async def never(self):
            self.reason = "has run"

        async def undo(self):
            self.reason = "undone"

    shorts = SQLAlchemySagaRepository(Short, uow_factory)
    for how, reason in {"COMPLETED": None, "CANCELLED": "not needed", "FAILED": None}.items():
        await shorts.add(Short(id=how, how=how))
        await make_runner(shorts).run_due()
        saga = await shorts.get(how)
        assert (saga.status, saga.reason, len(saga.step_history)) == (how, reason, 1)


async def test_a_saga_is_undone_when_somebody_asks_for_it(uow_factory, make_runner, outside):
    """`request_compensation` and a save are enough; the runner undoes what was done and says why."""

    class Rent(SagaState):
        @saga_step(compensation="take_back")
        async def hand_over(self, outside):
            await outside.do("hand over")
            self.suspend("is used")

        async def take_back(self, outside):
            await outside.do("take back")

    rents = SQLAlchemySagaRepository(Rent, uow_factory)
    await rents.add(Rent(id="r1"))
    assert await make_runner(rents).run_due() == 1
    rent = await rents.get("r1")
    rent.request_compensation("the flat has burnt down")
    rent.request_compensation("twice")
    await rents.add(rent)
    assert await make_runner(rents).run_due() == 1
    rent = await rents.get("r1")
    assert (rent.status, rent.reason) == (SagaStatus.CANCELLED, "the flat has burnt down")
    assert outside.done == ["hand over", "take back"]


async def test_a_saga_that_is_at_work_elsewhere_is_left_alone(orders, runner, outside):
    """One that is RUNNING and that no runner has had belongs to whoever began it, until it counts as stalled."""
    saga = Order(id="o1")
    await saga.pay(outside)
    await orders.add(saga)
    assert await runner.run_due() == 0
    await saga.ship(outside)
    await orders.add(saga)


async def test_a_stalled_saga_is_taken_over_where_it_stopped(uow_factory, make_runner, outside):
    """Steps that were completed are not run again."""
    orders = SQLAlchemySagaRepository(Order, uow_factory, stalled_after_seconds=0)
    saga = Order(id="o1")
    await saga.pay(outside)
    await orders.add(saga)
    assert await make_runner(orders).run_due() == 1
    assert outside.done == ["pay", "ship", "thank"]


async def test_many_runners_share_the_sagas(orders, make_runner, outside):
    """Each step of each saga runs once."""
    for number in range(30):
        await orders.add(Order(id=f"o{number:02}"))
    taken = await asyncio.gather(*(make_runner(concurrency=3).run_due() for _ in range(4)))
    assert sum(taken) == 30
    assert len(outside.asked) == len(set(outside.asked)) == 90


async def test_a_runner_runs_so_many_sagas_at_once_and_no_more(orders, make_runner, outside):
    """`concurrency` of them."""
    for number in range(5):
        await orders.add(Order(id=f"o{number}"))
    outside.gates["pay"] = asyncio.Event()
    runner = make_runner(concurrency=2)
    task = asyncio.create_task(runner.run())

    async def two_wait():
        return len(outside.asked) == 2

    await until(two_wait)
    assert await make_runner(concurrency=2, services={"outside": type(outside)()}).run_due() == 3
    assert len(outside.asked) == 2
    outside.gates["pay"].set()
    runner.stop()
    await task


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 0}, "concurrency is 0: it is at least 1"),
        ({"lease": timedelta(0)}, "lease is a timedelta above 0"),
        ({"poll_interval": 1}, "poll_interval is a timedelta above 0"),
        ({"compensation_retries": -1}, "compensation_retries must be a whole number"),
        ({"services": {}}, "saga Order: 'pay' needs 'outside', which nobody gives"),
        ({"services": {"outsides": 1}}, r"SagaRunner\(..., services=\{'outside': ...\}\)"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(orders, outside, options, message):
    """With the name of the argument, or of the service that is missing."""
    with pytest.raises(ValueError, match=message):
        SagaRunner(orders, **{"services": {"outside": outside}, **options})


async def test_services_of_the_repository_will_do(uow_factory, outside):
    """A runner needs none of its own then."""
    orders = SQLAlchemySagaRepository(Order, uow_factory, services={"outside": outside})
    await orders.add(Order(id="o1"))
    assert await SagaRunner(orders).run_due() == 1
    assert outside.done == ["pay", "ship", "thank"]
