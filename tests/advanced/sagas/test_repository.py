"""Sagas in their table: saved, found, and claimed by one worker each."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa

from cqrs_ddd_advanced_core.sagas.decorators import saga_step
from cqrs_ddd_advanced_core.sagas.state import SagaState
from cqrs_ddd_advanced_core.sagas.status import SagaStatus
from cqrs_ddd_persistence_sqlalchemy import SagaStateModel, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemySagaRepository
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError

LEASE = timedelta(seconds=30)


class Fulfilment(SagaState):
    order_id: str = "o"
    payment_id: str | None = None
    status: SagaStatus = SagaStatus.RUNNING

    @saga_step(compensation="refund")
    async def pay(self, bank):
        self.payment_id = await bank.charge(self.order_id)

    async def refund(self, bank):
        await bank.refund(self.payment_id)


class Return(SagaState):
    status: SagaStatus = SagaStatus.RUNNING


class Bank:
    def __init__(self):
        self.asked = []

    async def charge(self, order_id):
        self.asked.append(f"charge {order_id}")
        return f"payment of {order_id}"

    async def refund(self, payment_id):
        self.asked.append(f"refund {payment_id}")


@pytest.fixture
def bank():
    return Bank()


@pytest.fixture
def uow_factory(session_factory):
    return lambda: SQLAlchemyUnitOfWork(session_factory)


@pytest.fixture
def sagas(uow_factory, bank):
    return SQLAlchemySagaRepository(Fulfilment, uow_factory, stalled_after_seconds=0.0, services={"bank": bank})


async def set_column(engine, saga_id, **values):
    async with engine.begin() as connection:
        await connection.execute(sa.update(SagaStateModel).where(SagaStateModel.id == saga_id).values(values))


def ids(found):
    return [saga.id for saga in found]


async def test_a_saga_comes_back_whole(sagas, bank):
    """State, history and deadline; with the repository's services bound, so that it can be undone elsewhere."""
    saga = Fulfilment(id="s1", order_id="o1", correlation_id="o1")
    await saga.pay(bank)
    saga.suspend("waits", until=datetime(2026, 5, 1, tzinfo=UTC))
    await sagas.add(saga)
    found = await sagas.get("s1")
    assert found.model_dump() == saga.model_dump()
    found.resume()
    await found.compensate_all()
    found.mark_as_cancelled("too late")
    await sagas.save(found)
    assert bank.asked == ["charge o1", "refund payment of o1"]
    assert ((await sagas.get("s1")).status, (await sagas.get("s1")).reason) == (SagaStatus.CANCELLED, "too late")


async def test_state_and_history_have_columns_of_their_own(sagas, bank, session_factory):
    """`state` holds what the saga remembers but for the history, `events` the history."""
    saga = Fulfilment(id="s1", correlation_id="o1")
    await saga.pay(bank)
    await sagas.add(saga)
    async with session_factory() as session:
        model = await session.get(SagaStateModel, "s1")
        assert (model.saga_type, model.correlation_id, model.status) == ("Fulfilment", "o1", SagaStatus.RUNNING)
        assert model.state == saga.model_dump(mode="json", exclude={"step_history"})
        assert [event["name"] for event in model.events] == ["pay"]


async def test_classes_share_the_table_without_meeting_each_other(sagas, uow_factory):
    """Neither by id nor by correlation id, status or claim; one correlation id is one saga of each type."""
    returns = SQLAlchemySagaRepository(Return, uow_factory, stalled_after_seconds=0.0)
    await sagas.add(Fulfilment(id="s1", correlation_id="o1"))
    await returns.add(Return(id="r1", correlation_id="o1"))
    assert await returns.get("s1") is None
    assert not await returns.exists("s1")
    assert not await returns.delete("s1")
    assert (await sagas.find_by_correlation_id("o1")).id == "s1"
    assert (await returns.find_by_correlation_id(correlation_id="o1", saga_type="Return")).id == "r1"
    assert (ids(await sagas.list()), ids(await returns.list())) == (["s1"], ["r1"])
    assert ids(await returns.find_stalled_sagas(limit=10)) == ["r1"]
    assert ids(await returns.claim_stalled_sagas(10, lease=LEASE)) == ["r1"]
    with pytest.raises(ValueError, match="another one has the same saga_type, correlation_id"):
        await sagas.add(Fulfilment(id="s2", correlation_id="o1"))
    with pytest.raises(ValueError, match="has sagas of type 'Fulfilment', not 'Return'"):
        await sagas.find_by_correlation_id("o1", "Return")
    await sagas.add(Fulfilment(id="s3"))
    await sagas.add(Fulfilment(id="s4"))


async def test_stalled_sagas_are_those_at_work_that_nobody_saves(engine, sagas, uow_factory):
    """RUNNING or COMPENSATING, by the database's time of the last save, longest first."""
    for status in SagaStatus:
        await sagas.add(Fulfilment(id=status, status=status))
    assert ids(await sagas.find_stalled_sagas(limit=10)) == ["RUNNING", "COMPENSATING"]
    await sagas.save(await sagas.get("RUNNING"))
    assert ids(await sagas.find_stalled_sagas()) == ["COMPENSATING", "RUNNING"]
    patient = SQLAlchemySagaRepository(Fulfilment, uow_factory, stalled_after_seconds=300)
    assert await patient.find_stalled_sagas() == []
    await set_column(engine, "RUNNING", updated_at=datetime.now(UTC) - timedelta(seconds=301))
    assert ids(await patient.find_stalled_sagas()) == ["RUNNING"]


async def test_suspended_sagas_expire_by_the_databases_clock(engine, sagas):
    """A duration becomes a deadline when the saga is saved, and saving again does not put it off."""
    for name, timeout in {"never": None, "late": timedelta(hours=1), "now": timedelta(0)}.items():
        saga = Fulfilment(id=name)
        saga.suspend("waits", timeout=timeout)
        await sagas.add(saga)
    assert saga.timeout is None
    assert saga.timeout_at == (await sagas.get("now")).timeout_at
    assert ids(await sagas.find_suspended_sagas(limit=10)) == ["never", "late", "now"]
    assert ids(await sagas.find_expired_suspended_sagas(limit=10)) == ["now"]
    deadline = (await sagas.get("late")).timeout_at
    assert timedelta(minutes=59) < deadline - datetime.now(UTC) < timedelta(minutes=61)
    await sagas.save(await sagas.get("late"))
    assert (await sagas.get("late")).timeout_at == deadline
    expired = (await sagas.find_expired_suspended_sagas())[0]
    expired.resume()
    await sagas.save(expired)
    assert await sagas.find_expired_suspended_sagas() == []


async def test_a_duration_survives_a_rollback(session_factory, sagas):
    """Saved again it counts from then."""
    saga = Fulfilment(id="s1")
    saga.suspend("waits", timeout=timedelta(hours=1))
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await sagas.add(saga, uow=uow)
        await uow.rollback()
    assert (saga.timeout, saga.timeout_at) == (timedelta(hours=1), None)
    await sagas.add(saga)
    assert (await sagas.get("s1")).timeout_at == saga.timeout_at


async def test_each_stalled_saga_is_claimed_once(sagas):
    """Ten workers at once share twenty sagas; while the leases hold, nobody finds one of them."""
    for number in range(20):
        await sagas.add(Fulfilment(id=f"s{number:02}"))
    claims = await asyncio.gather(*(sagas.claim_stalled_sagas(3, lease=LEASE) for _ in range(10)))
    claimed = sorted(saga.id for claim in claims for saga in claim)
    assert claimed == [f"s{number:02}" for number in range(20)]
    assert await sagas.claim_stalled_sagas(3, lease=LEASE) == []
    assert await sagas.find_stalled_sagas() == []


async def test_a_claim_ends_with_its_lease_and_the_loser_cannot_save(engine, sagas):
    """Whoever had loaded the saga before it was claimed meets a conflict."""
    await sagas.add(Fulfilment(id="s1"))
    before = await sagas.get("s1")
    (lost,) = await sagas.claim_stalled_sagas(lease=LEASE)
    with pytest.raises(OptimisticConcurrencyError):
        await sagas.save(before)
    await set_column(engine, "s1", lease_until=datetime.now(UTC) - timedelta(seconds=1))
    (mine,) = await sagas.claim_stalled_sagas(lease=LEASE)
    with pytest.raises(OptimisticConcurrencyError):
        await sagas.save(lost)
    await sagas.save(mine)
    assert await sagas.find_stalled_sagas() == []
    await sagas.give_back(mine)
    assert ids(await sagas.find_stalled_sagas()) == ["s1"]


async def test_expired_sagas_are_claimed_once(sagas):
    """The deadline that passed first comes first."""
    for name in ("a", "b"):
        saga = Fulfilment(id=name)
        saga.suspend("waits", timeout=timedelta(0))
        await sagas.add(saga)
    claims = [ids(await sagas.claim_expired_suspended_sagas(lease=LEASE)) for _ in range(3)]
    assert claims == [["a"], ["b"], []]


@pytest.mark.parametrize("lease", [timedelta(0), timedelta(seconds=-1)])
async def test_a_lease_that_makes_no_sense_is_refused(sagas, lease):
    """Nothing is claimed."""
    await sagas.add(Fulfilment(id="s1"))
    with pytest.raises(ValueError, match="give a timedelta above 0"):
        await sagas.claim_stalled_sagas(lease=lease)
    assert ids(await sagas.find_stalled_sagas()) == ["s1"]


async def test_a_unit_of_work_may_be_used_after_its_end(session_factory, bank):
    """As a factory that returns it, and as uow= of an operation: each is then a transaction of its own."""
    uow = SQLAlchemyUnitOfWork(session_factory)
    repository = SQLAlchemySagaRepository(
        saga_cls=Fulfilment, uow_factory=lambda: uow, stalled_after_seconds=0, services={"bank": bank}
    )
    async with uow:
        saga = Fulfilment(id=str(uuid4()), order_id="o1", correlation_id="o1")
        await saga.pay(bank)
        await repository.add(saga, uow=uow)
        await uow.commit()
    assert ids(await repository.find_stalled_sagas(limit=10)) == [saga.id]
    saga.suspend("waits", timeout=timedelta(0))
    await repository.add(saga)
    for expired in await repository.find_expired_suspended_sagas(limit=10):
        await expired.compensate_all()
        expired.mark_as_cancelled("Timeout exceeded")
        await repository.add(expired, uow=uow)
        await uow.commit()
    found = await repository.find_by_correlation_id(correlation_id="o1", saga_type="Fulfilment")
    assert (found.status, found.reason) == (SagaStatus.CANCELLED, "Timeout exceeded")
    assert bank.asked == ["charge o1", "refund payment of o1"]


async def test_a_state_that_json_cannot_hold_is_refused(uow_factory):
    """By the name of the field, on both databases alike; nothing is saved."""

    class Measured(SagaState):
        value: float

    measured = SQLAlchemySagaRepository(Measured, uow_factory)
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"state.value is (nan|inf), which JSON cannot hold"):
            await measured.add(Measured(id="m1", value=value))
    assert not await measured.exists("m1")
