"""Orders that are fulfilled by sagas: the saga, what its steps talk to, and what tests ask about them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from cqrs_ddd_advanced_core.sagas.decorators import saga_step
from cqrs_ddd_advanced_core.sagas.state import SagaState
from cqrs_ddd_persistence_sqlalchemy import SagaStateModel, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SagaRunner, SQLAlchemySagaRepository
from tests.support.waiting import until

LEASE = timedelta(seconds=30)
SHORT = timedelta(milliseconds=20)


class Outside:
    """Whatever steps talk to: notes what it is asked, and fails or waits as a test says.

    Attributes:
        asked: (what, key) in order.
        failing: how often each is to fail yet.
        gates: what waits until its event is set, after it has set its `reached`.
    """

    def __init__(self):
        self.asked = []
        self.failing = {}
        self.gates = {}
        self.reached = asyncio.Event()
        self.then = {}

    async def do(self, what, key=None):
        self.asked.append((what, key))
        if what in self.gates:
            self.reached.set()
            await self.gates[what].wait()
        if self.failing.get(what, 0) > 0:
            self.failing[what] -= 1
            raise ConnectionError(f"no {what} today")

    @property
    def done(self):
        return [what for what, _ in self.asked]


class Order(SagaState):
    parcel: str | None = None
    paid: bool = False

    @saga_step(compensation="refund", retries=2)
    async def pay(self, outside):
        await outside.do("pay", self.step_key("pay"))
        self.paid = True

    @saga_step(compensation="call_back", timeout=timedelta(seconds=5))
    async def ship(self, outside):
        await outside.do("ship", self.step_key("ship"))
        self.parcel = f"parcel of {self.id}"

    @saga_step()
    async def thank(self, outside):
        await outside.do("thank", self.step_key("thank"))

    async def refund(self, outside):
        await outside.do("refund", self.step_key("refund"))
        self.paid = False

    async def call_back(self, outside):
        await outside.do("call back", self.step_key("call_back"))


@pytest.fixture
def outside():
    return Outside()


@pytest.fixture
def uow_factory(session_factory):
    return lambda: SQLAlchemyUnitOfWork(session_factory)


@pytest.fixture
def orders(uow_factory):
    return SQLAlchemySagaRepository(Order, uow_factory)


@pytest.fixture
def make_runner(orders, uow_factory, outside):
    """Make a runner that hurries."""

    def make(repository=orders, **options):
        hurry = {"backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=2), "poll_interval": SHORT}
        return SagaRunner(repository, uow_factory, **{"services": {"outside": outside}, **hurry, **options})

    return make


@pytest.fixture
def runner(make_runner):
    return make_runner()


async def run_until(runner, condition):
    """Run a runner until a condition holds, then stop it."""
    task = asyncio.create_task(runner.run())
    try:
        await until(condition)
    finally:
        runner.stop()
        await task


async def end_lease(engine, saga_id):
    """Let the time go by until a saga's lease has ended, as far as the database can tell."""
    past = datetime.now(UTC) - timedelta(seconds=1)
    async with engine.begin() as connection:
        statement = sa.update(SagaStateModel).where(SagaStateModel.id == saga_id)
        await connection.execute(statement.values(lease_until=past))
