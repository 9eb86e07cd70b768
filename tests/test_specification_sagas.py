"""How applications are told to use sagas, each shape as a whole flow, on both databases."""

from __future__ import annotations

import logging
from uuid import uuid4

import pytest

from cqrs_ddd_advanced_core.sagas.decorators import saga_step
from cqrs_ddd_advanced_core.sagas.state import SagaState, SagaStatus
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemySagaRepository
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError

logger = logging.getLogger(__name__)


class Service:
    """Whatever a step talks to."""

    def __init__(self, *, fails=False):
        self.asked = []
        self.fails = fails

    async def charge(self, order_id):
        self.asked.append(("charge", order_id))
        return f"payment-{order_id}"

    async def refund(self, payment_id):
        self.asked.append(("refund", payment_id))

    async def ship(self, order_id):
        self.asked.append(("ship", order_id))
        if self.fails:
            raise ConnectionError("no truck")
        return f"shipment-{order_id}"

    async def cancel(self, shipment_id):
        self.asked.append(("cancel", shipment_id))


class OrderFulfillmentSaga(SagaState):
    order_id: str
    payment_id: str | None = None
    shipment_id: str | None = None
    status: SagaStatus = SagaStatus.RUNNING

    @saga_step(compensation="cancel_payment")
    async def process_payment(self, payment_service):
        self.payment_id = await payment_service.charge(self.order_id)

    @saga_step(compensation="cancel_shipment")
    async def create_shipment(self, shipment_service):
        self.shipment_id = await shipment_service.ship(self.order_id)

    async def cancel_payment(self, payment_service):
        await payment_service.refund(self.payment_id)

    async def cancel_shipment(self, shipment_service):
        await shipment_service.cancel(self.shipment_id)


@pytest.fixture
def uow(session_factory):
    """A unit of work that has ended before it is used: each operation has a transaction of its own."""
    return SQLAlchemyUnitOfWork(session_factory)


@pytest.fixture
def saga_repo(uow):
    return SQLAlchemySagaRepository(saga_cls=OrderFulfillmentSaga, uow_factory=lambda: uow, stalled_after_seconds=0)


async def test_component_1_a_saga_is_started_found_resumed_and_cancelled(session_factory, saga_repo, uow):
    """By its correlation id, as a stalled and as a suspended one, also after the unit of work has ended."""
    async with SQLAlchemyUnitOfWork(session_factory) as unit:
        saga = OrderFulfillmentSaga(id="saga-123", order_id="order-456", correlation_id="order-456")
        await saga_repo.add(saga, uow=unit)
        await unit.commit()
    saga = await saga_repo.find_by_correlation_id(correlation_id="order-456", saga_type="OrderFulfillmentSaga")
    assert (saga.id, saga.order_id, saga.status) == ("saga-123", "order-456", SagaStatus.RUNNING)
    assert [each.id for each in await saga_repo.find_stalled_sagas(limit=10)] == ["saga-123"]
    saga.suspend("waits for the customer")
    await saga_repo.add(saga, uow=uow)
    for suspended in await saga_repo.find_suspended_sagas(limit=10):
        suspended.resume()
        await saga_repo.add(suspended, uow=uow)
        await uow.commit()
    assert (await saga_repo.get("saga-123")).status is SagaStatus.RUNNING
    assert await saga_repo.find_expired_suspended_sagas(limit=10) == []


async def fulfil_order(order_id, session_factory, saga_repo, payment_service, shipment_service):
    """Run the steps that are not done yet; undo what was done when one fails."""
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        saga = await saga_repo.find_by_correlation_id(correlation_id=order_id, saga_type="OrderFulfillmentSaga")
        if not saga:
            saga = OrderFulfillmentSaga(id=str(uuid4()), order_id=order_id, correlation_id=order_id)
        try:
            if not saga.payment_id:
                await saga.process_payment(payment_service)
            if not saga.shipment_id:
                await saga.create_shipment(shipment_service)
            saga.mark_as_completed()
        except ConnectionError as error:
            await saga.compensate_all()
            saga.mark_as_cancelled(str(error))
        await saga_repo.add(saga, uow=uow)
        await uow.commit()


@pytest.mark.parametrize("fails", [False, True])
async def test_pattern_1_a_saga_with_compensation(session_factory, saga_repo, fails):
    """A step that fails undoes the one before it; the saga says how it ended, and why."""
    payments, shipments = Service(), Service(fails=fails)
    await fulfil_order("order-1", session_factory, saga_repo, payments, shipments)
    saga = await saga_repo.find_by_correlation_id("order-1")
    assert (saga.status, saga.reason) == ((SagaStatus.CANCELLED, "no truck") if fails else (SagaStatus.COMPLETED, None))
    refunds = [("refund", "payment-order-1")] if fails else []
    assert payments.asked == [("charge", "order-1"), *refunds]
    assert shipments.asked == [("ship", "order-1")]
    assert [record.name for record in saga.step_history] == ["process_payment", "create_shipment"]


async def test_an_expired_saga_is_handled_once(session_factory, uow):
    """Of two processes that found it, the later one meets a conflict and leaves it at that."""
    payments = Service()
    repository = SQLAlchemySagaRepository(
        OrderFulfillmentSaga, uow_factory=lambda: uow, services={"payment_service": payments}
    )
    saga = OrderFulfillmentSaga(order_id="order-2")
    await saga.process_payment(payments)
    await repository.add(saga)
    async with SQLAlchemyUnitOfWork(session_factory) as unit:
        found = await repository.get(saga.id, uow=unit)
        found.suspend("waits", until=found.step_history[0].started_at)
        await repository.add(found, uow=unit)
    expired, too_late = [await repository.find_expired_suspended_sagas(limit=10) for _ in range(2)]
    handled = []
    for each in [*expired, *too_late]:
        async with SQLAlchemyUnitOfWork(session_factory) as unit:
            try:
                await each.compensate_all()
                each.mark_as_cancelled("Timeout exceeded")
                await repository.add(each, uow=unit)
                await unit.commit()
                handled.append(each.id)
            except OptimisticConcurrencyError:
                logger.info("saga %s is handled already", each.id)
    assert handled == [saga.id]
    assert (await repository.get(saga.id)).reason == "Timeout exceeded"
