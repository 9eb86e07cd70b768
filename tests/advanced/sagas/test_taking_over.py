"""Workers that stop, are cancelled, lose a saga or die, and what becomes of the saga."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from cqrs_ddd_advanced_core.sagas import SagaState, SagaStatus, StepStatus, saga_step
from cqrs_ddd_persistence_sqlalchemy import SagaStateModel
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemySagaRepository
from cqrs_ddd_persistence_sqlalchemy.exceptions import LeaseLostError, OptimisticConcurrencyError
from tests.advanced.sagas.conftest import LEASE, Order, Outside, end_lease
from tests.support.waiting import PATIENCE_SECONDS, until


@pytest.fixture
async def waiting(orders, outside):
    """A saga whose second step will wait at a gate."""
    outside.gates["ship"] = asyncio.Event()
    return await orders.add(Order(id="o1"))


async def test_stop_lets_the_step_end_and_gives_the_saga_back(orders, waiting, make_runner, outside):
    """The next runner goes on behind it at once."""
    runner = make_runner()
    task = asyncio.create_task(runner.run())
    await outside.reached.wait()
    runner.stop()
    outside.gates["ship"].set()
    await task
    saga = await orders.get("o1")
    assert [(each.name, each.status) for each in saga.step_history][1:] == [("ship", StepStatus.COMPLETED)]
    assert outside.done == ["pay", "ship"]
    assert await make_runner().run_due() == 1
    assert outside.done == ["pay", "ship", "thank"]


async def test_stop_between_compensations_gives_the_saga_back(orders, make_runner, outside):
    """What is undone is recorded, what is left is the next one's."""
    await orders.add(Order(id="o1"))
    outside.failing["thank"] = 1
    outside.gates["call back"] = asyncio.Event()
    runner = make_runner()
    task = asyncio.create_task(runner.run())
    await outside.reached.wait()
    runner.stop()
    outside.gates["call back"].set()
    await task
    assert (await orders.get("o1")).status is SagaStatus.COMPENSATING
    assert outside.done[-1] == "call back"
    assert await make_runner().run_due() == 1
    assert outside.done[-2:] == ["call back", "refund"]


async def test_a_cancelled_runner_leaves_its_step_begun(orders, waiting, make_runner, outside):
    """It is run again at once, with the same key, and counted."""
    task = asyncio.create_task(make_runner().run())
    await outside.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    outside.gates.clear()

    async def taken():
        return await make_runner().run_due() == 1

    await until(taken)
    assert outside.asked[1:3] == [("ship", "Order:o1:ship:0")] * 2
    saga = await orders.get("o1")
    assert (saga.status, saga.step_history[1].attempts) == (SagaStatus.COMPLETED, 2)


async def test_nobody_takes_a_saga_whose_worker_renews_its_lease(waiting, make_runner, outside, orders):
    """However long the step takes."""
    lease = timedelta(seconds=1.5)
    task = asyncio.create_task(make_runner(lease=lease).run_due())
    await outside.reached.wait()
    other = Outside()
    loop = asyncio.get_running_loop()
    end = loop.time() + 1.5 * lease.total_seconds()
    while loop.time() < end:
        assert await make_runner(services={"outside": other}).run_due() == 0
        await asyncio.sleep(0.05)  # others write, too
    outside.gates["ship"].set()
    assert await task == 1
    assert (await orders.get("o1")).status is SagaStatus.COMPLETED
    assert other.done == []


async def test_a_worker_that_has_lost_its_saga_stops_and_writes_nothing(orders, waiting, make_runner, outside, engine):
    """The step under way is cancelled; whoever has taken the saga runs it."""
    task = asyncio.create_task(make_runner(lease=timedelta(milliseconds=300)).run_due())
    await outside.reached.wait()
    async with engine.begin() as connection:  # as if another worker had claimed it after the lease
        await connection.execute(sa.update(SagaStateModel).values(version=SagaStateModel.version + 1))
    assert await task == 1
    outside.gates["ship"].set()
    saga = await orders.get("o1")
    assert [(each.name, each.status) for each in saga.step_history][1:] == [("ship", StepStatus.RUNNING)]
    await end_lease(engine, "o1")
    assert await make_runner().run_due() == 1
    assert outside.done == ["pay", "ship", "ship", "thank"]


async def test_a_worker_that_cannot_renew_lets_go_before_its_lease_ends(
    orders, waiting, make_runner, outside, monkeypatch
):
    """Where the database does not answer, somebody else might have the saga already."""
    runner = make_runner(lease=timedelta(seconds=1))
    task = asyncio.create_task(runner.run_due())
    async with asyncio.timeout(PATIENCE_SECONDS):  # a machine that takes a lease's time to get there fails, and says so
        await outside.reached.wait()

    async def hangs(*_, **__):
        await asyncio.Event().wait()

    monkeypatch.setattr(orders, "renew_claim", hangs)
    runner.stop()  # so that it does not take the saga again
    assert await task == 1
    assert outside.done == ["pay", "ship"]
    monkeypatch.undo()
    outside.gates.clear()

    async def taken():
        return await make_runner().run_due() == 1

    await until(taken)
    assert outside.done == ["pay", "ship", "ship", "thank"]


async def test_a_write_that_fails_in_passing_is_tried_again(orders, make_runner, outside, monkeypatch):
    """So that a step which has ended is not run again for it."""
    await orders.add(Order(id="o1"))
    save, failures = orders.save_claimed, [1, 1]

    async def save_sometimes(saga, **options):
        if len(outside.asked) == 1 and failures:
            failures.pop()
            raise TimeoutError("the database is away")
        return await save(saga, **options)

    monkeypatch.setattr(orders, "save_claimed", save_sometimes)
    monkeypatch.setattr(
        "cqrs_ddd_persistence_sqlalchemy.advanced.running.guarding.is_passing",
        lambda error: type(error) is TimeoutError,
    )
    assert await make_runner().run_due() == 1
    assert outside.done == ["pay", "ship", "thank"]
    assert failures == []


async def test_a_saga_that_cannot_be_loaded_keeps_nobody_from_the_others(orders, make_runner, outside, engine, caplog):
    """It is logged by name, and left until its lease ends."""
    for name in ("broken", "whole"):
        await orders.add(Order(id=name))
    async with engine.begin() as connection:
        broken = sa.update(SagaStateModel).where(SagaStateModel.id == "broken")
        await connection.execute(broken.values(state={"paid": "perhaps"}))
    assert await make_runner().run_due() == 1
    assert (await orders.get("whole")).status is SagaStatus.COMPLETED
    assert "saga 'broken' of type 'Order' cannot be loaded: mend its class or its row" in caplog.text
    caplog.clear()
    assert await make_runner().run_due() == 0
    assert caplog.text == ""


async def test_a_saga_that_cannot_be_stored_is_left_as_it_was(uow_factory, make_runner, caplog):
    """Loudly, for `max_backoff`; the other sagas are run."""

    class Measured(SagaState):
        value: float = 0.0

        @saga_step()
        async def measure(self):
            self.value = float("nan") if self.id == "bad" else 1.0

    measured = SQLAlchemySagaRepository(Measured, uow_factory)
    for name in ("bad", "good"):
        await measured.add(Measured(id=name))
    runner = make_runner(measured, max_backoff=timedelta(hours=1))
    assert await runner.run_due() == 2
    assert await runner.run_due() == 0
    assert ((await measured.get("good")).status, (await measured.get("bad")).status) == ("COMPLETED", "RUNNING")
    assert "saga 'bad' is left for 1:00:00" in caplog.text


async def test_a_runner_outlives_trouble_with_the_database(orders, make_runner, outside, monkeypatch, caplog):
    """It tries again, with growing pauses; other errors end it."""
    caplog.set_level(logging.WARNING)
    claim, troubles = orders.claim_due_sagas, [TimeoutError("away"), TimeoutError("away")]

    async def claim_sometimes(*arguments, **options):
        if troubles:
            raise troubles.pop()
        return await claim(*arguments, **options)

    monkeypatch.setattr(orders, "claim_due_sagas", claim_sometimes)
    monkeypatch.setattr(
        "cqrs_ddd_persistence_sqlalchemy.advanced.sagas.runner.is_passing", lambda error: type(error) is TimeoutError
    )
    await orders.add(Order(id="o1"))
    runner = make_runner()
    task = asyncio.create_task(runner.run())

    async def completed():
        return (await orders.get("o1")).status is SagaStatus.COMPLETED

    await until(completed)
    assert "trying again in 0.1 s" in caplog.text
    assert "trying again in 0.2 s" in caplog.text
    troubles.append(ValueError("a mistake"))
    with pytest.raises(ValueError, match="a mistake"):
        await task


async def test_a_saga_whose_save_meets_another_one_is_left_to_it(orders, waiting, make_runner, outside, caplog):
    """Whoever saves a saga that a runner has wins; the runner says so and goes on with others."""
    task = asyncio.create_task(make_runner().run_due())
    await outside.reached.wait()
    saga = await orders.get("o1")
    saga.mark_as_cancelled("by hand")
    await orders.add(saga)
    outside.gates["ship"].set()
    assert await task == 1
    assert (await orders.get("o1")).reason == "by hand"
    assert "is left to whoever has it now" in caplog.text
    assert outside.done == ["pay", "ship"]


async def test_a_saga_that_is_to_be_undone_ends_its_step_first(orders, waiting, make_runner, outside, engine):
    """Asked for in the middle of a step: nobody begins to undo while it runs, and what it has done is undone, too."""
    task = asyncio.create_task(make_runner().run_due())
    await outside.reached.wait()
    saga = await orders.get("o1")
    saga.request_compensation("the customer has changed their mind")
    await orders.add(saga)
    assert await make_runner().run_due() == 0
    outside.gates["ship"].set()
    assert await task == 1
    assert outside.done == ["pay", "ship"]
    await end_lease(engine, "o1")
    assert await make_runner().run_due() == 1
    saga = await orders.get("o1")
    assert (saga.status, saga.reason) == (SagaStatus.CANCELLED, "the customer has changed their mind")
    assert outside.done == ["pay", "ship", "ship", "call back", "refund"]
    assert len({key for what, key in outside.asked if what == "ship"}) == 1


async def test_a_claim_is_renewed_and_saved_by_its_holder_only(orders, engine):
    """Whoever has lost it gets an error that says what, and changes nothing."""
    await orders.add(Order(id="o1"))
    (mine,) = await orders.claim_due_sagas(lease=LEASE)
    await orders.renew_claim(mine, lease=LEASE)
    await orders.save_claimed(mine, lease=LEASE)
    assert await orders.claim_due_sagas(lease=LEASE) == []
    await orders.renew_claim(mine, lease=timedelta(microseconds=1))
    await end_lease(engine, "o1")
    (theirs,) = await orders.claim_due_sagas(lease=LEASE)
    with pytest.raises(LeaseLostError, match="the lease of saga 'o1' is lost"):
        await orders.renew_claim(mine, lease=timedelta(hours=1))
    with pytest.raises(OptimisticConcurrencyError):
        await orders.save_claimed(mine, lease=LEASE)
    for refused in (orders.renew_claim, orders.save_claimed):
        with pytest.raises(ValueError, match="give a timedelta above 0"):
            await refused(theirs, lease=timedelta(0))
    await orders.add(theirs)
    assert await orders.claim_due_sagas(lease=LEASE) == []
    await orders.give_back(theirs)
    assert [each.id for each in await orders.claim_due_sagas(10, lease=LEASE)] == ["o1"]


async def test_claims_of_a_unit_of_work_are_rolled_back_with_it(orders, session_factory, uow_factory):
    """Nobody else waits for them then; and a limit of 0 takes nothing."""
    await orders.add(Order(id="o1"))
    assert await orders.claim_due_sagas(0, lease=LEASE) == []
    async with uow_factory() as uow:
        assert len(await orders.claim_due_sagas(lease=LEASE, uow=uow)) == 1
        await uow.rollback()
    assert len(await orders.claim_due_sagas(lease=LEASE)) == 1


async def test_the_database_going_away_ends_no_saga(orders, make_runner, outside, monkeypatch, caplog):
    """A write that cannot be made while the lease holds leaves the saga to whoever comes after it."""
    await orders.add(Order(id="o1"))

    async def away(*_, **__):
        raise OperationalError("SELECT 1", {}, Exception("gone"), connection_invalidated=True)

    monkeypatch.setattr(orders, "save_claimed", away)
    assert await make_runner(lease=timedelta(milliseconds=200)).run_due() >= 1
    assert outside.done == []
    assert "is left until its lease ends" in caplog.text
