"""Fulfilment: what has to happen to an order after it is placed, and what undoes it when something goes wrong."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from cqrs_ddd_advanced_core.sagas import SagaState, saga_step
from orders_service.outside import RefusedError

if TYPE_CHECKING:
    from orders_service.orders import Orders
    from orders_service.outside import Carrier, Payments, Warehouse

_PATIENCE = timedelta(seconds=10)


class Fulfilment(SagaState):
    """Reserve, charge, confirm, ship.

    Each step may run again after a crash, so each gives a key to whom it calls, or asks the order where it stands. A
    refusal is an answer: it is not tried again, but has the saga undone. Anything else that is raised is tried again.
    """

    order_id: str
    reservation: str | None = None
    payment: str | None = None

    @saga_step(compensation="cancel_order")
    async def accept(self) -> None:
        """Do nothing: once this is done, whatever fails later ends with the order cancelled."""

    @saga_step(compensation="release_stock", retries=5, timeout=_PATIENCE)
    async def reserve_stock(self, orders: Orders, warehouse: Warehouse) -> None:
        """Have the goods put aside."""
        draft = await orders.draft(self.order_id)
        try:
            self.reservation = await warehouse.reserve(draft.lines, key=self.step_key("reserve_stock"))
        except RefusedError as refusal:
            self.request_compensation(str(refusal))

    @saga_step(compensation="refund", retries=5, timeout=_PATIENCE)
    async def charge(self, orders: Orders, payments: Payments) -> None:
        """Take the money."""
        draft = await orders.draft(self.order_id)
        try:
            self.payment = await payments.charge(draft.total, key=self.step_key("charge"))
        except RefusedError as refusal:
            self.request_compensation(str(refusal))

    @saga_step(retries=5, timeout=_PATIENCE)
    async def confirm(self, orders: Orders) -> None:
        """Promise it. From here on the address stands."""
        await orders.confirm(self.order_id)

    @saga_step(retries=5, timeout=_PATIENCE)
    async def ship(self, orders: Orders, carrier: Carrier) -> None:
        """Hand the parcel over."""
        draft = await orders.draft(self.order_id)
        try:
            parcel = await carrier.collect(draft.address, key=self.step_key("ship"))
        except RefusedError as refusal:
            self.request_compensation(str(refusal))
        else:
            await orders.ship(self.order_id, parcel)

    async def refund(self, payments: Payments) -> None:
        """Give the money back, if any was taken."""
        if self.payment is not None:
            await payments.refund(self.payment, key=self.step_key("refund"))

    async def release_stock(self, warehouse: Warehouse) -> None:
        """Put the goods back, if any were put aside."""
        if self.reservation is not None:
            await warehouse.release(self.reservation)

    async def cancel_order(self, orders: Orders) -> None:
        """Tell the customer, and everybody else."""
        await orders.cancel(self.order_id, self.reason or "")
