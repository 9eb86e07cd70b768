"""The saga: a trip is paid for, its room is booked, its traveller is told; and each step can be taken back."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from cqrs_ddd_advanced_core.sagas import SagaState, saga_step

if TYPE_CHECKING:
    from outside import Bank, Hotel


class Trip(SagaState):
    """What has to be remembered of a trip between its steps."""

    traveller: str
    price: int
    payment: str | None = None
    room: str | None = None

    @saga_step(compensation="refund", retries=3, timeout=timedelta(seconds=10))
    async def pay(self, bank: Bank) -> None:
        """Charge the traveller; the key lets the bank recognise a charge that it has made already."""
        self.payment = await bank.charge(self.traveller, self.price, key=self.step_key("pay"))

    @saga_step(compensation="cancel_room")
    async def book_room(self, hotel: Hotel) -> None:
        """Book a room."""
        self.room = await hotel.book(self.traveller, key=self.step_key("book_room"))

    @saga_step()
    async def confirm(self, hotel: Hotel) -> None:
        """Tell the hotel when to expect the traveller."""
        await hotel.confirm(self.room, key=self.step_key("confirm"))

    async def refund(self, bank: Bank) -> None:
        """Give the money back."""
        await bank.refund(self.payment, key=self.step_key("refund"))

    async def cancel_room(self, hotel: Hotel) -> None:
        """Give the room back."""
        await hotel.cancel(self.room, key=self.step_key("cancel_room"))
