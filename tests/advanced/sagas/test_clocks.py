"""A worker whose clock is wrong does no harm: what is compared in the database goes by the database's clock."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

import cqrs_ddd_advanced_core.sagas.lifecycle
import cqrs_ddd_advanced_core.sagas.state
import cqrs_ddd_advanced_core.sagas.steps
from cqrs_ddd_advanced_core.sagas import SagaStatus
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemySagaRepository
from tests.advanced.sagas.conftest import LEASE, Order, Outside

# Whoever reads the time in Python, reads it here.
MODULES = (cqrs_ddd_advanced_core.sagas.lifecycle, cqrs_ddd_advanced_core.sagas.steps)


@pytest.fixture(params=[timedelta(minutes=10), timedelta(minutes=-10)], ids=["fast", "slow"])
def wrong(request, monkeypatch):
    """Let this process's clock be ten minutes off, as the library reads it."""
    off, right = request.param, time.time

    class Wrong(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.fromtimestamp(right(), UTC).astimezone(tz) + off

    for module in MODULES:
        monkeypatch.setattr(module, "datetime", Wrong)
    monkeypatch.setattr(time, "time", lambda: right() + off.total_seconds())
    return off


async def test_leases_and_pauses_of_a_wrong_clock_are_as_long_as_others(orders, make_runner, outside, wrong):
    """While it works nobody else takes its saga; when it gives the saga back, others take it at once."""
    await orders.add(Order(id="o1"))
    outside.gates["ship"] = asyncio.Event()
    working = make_runner()
    task = asyncio.create_task(working.run_due())
    await outside.reached.wait()
    other = Outside()
    assert await make_runner(services={"outside": other}).run_due() == 0
    working.stop()
    outside.gates["ship"].set()
    await task
    assert await make_runner(services={"outside": other}).run_due() == 1
    assert (outside.done, other.done) == (["pay", "ship"], ["thank"])


async def test_deadlines_of_a_wrong_clock_are_the_databases(orders, uow_factory, wrong):
    """What is suspended for five minutes has not expired, and expires in five minutes."""
    saga = Order(id="o1", status=SagaStatus.RUNNING)
    saga.suspend("waits", timeout=timedelta(minutes=5))
    await orders.add(saga)
    assert await orders.find_expired_suspended_sagas() == []
    assert await orders.claim_due_sagas(lease=LEASE) == []
    left = saga.timeout_at - datetime.now(UTC)
    assert timedelta(minutes=4) < left < timedelta(minutes=6)


async def test_staleness_is_the_databases(uow_factory, wrong):
    """A saga that was saved just now is not stalled for a clock that is fast, and is for one that waits for nothing."""
    patient, impatient = (
        SQLAlchemySagaRepository(Order, uow_factory, stalled_after_seconds=seconds) for seconds in (300, 0)
    )
    await patient.add(Order(id="o1", status=SagaStatus.RUNNING))
    assert await patient.find_stalled_sagas() == []
    assert [saga.id for saga in await impatient.find_stalled_sagas()] == ["o1"]
