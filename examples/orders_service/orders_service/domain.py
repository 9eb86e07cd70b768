"""The order: what it knows, what may be done with it, and the events that say so. No database, no web."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, Field

from cqrs_ddd_advanced_core import AggregateRoot, StoredEvent

if TYPE_CHECKING:
    from collections.abc import Iterable

# PostgreSQL stores no text with NUL characters; so the library refuses them on SQLite, too, and so do we, at the door.
Text = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]*$")]
Status = Literal["placed", "confirmed", "shipped", "cancelled"]

_STATUS_AFTER: dict[str, Status] = {
    "OrderPlaced": "placed",
    "OrderConfirmed": "confirmed",
    "OrderShipped": "shipped",
    "OrderCancelled": "cancelled",
}


class NotAllowedError(Exception):
    """The order is past the point where this could be done."""


class Line(BaseModel):
    """So many pieces of one article."""

    article: Text = Field(max_length=50)
    quantity: int = Field(ge=1, le=1000)
    price: Decimal = Field(gt=0, max_digits=7, decimal_places=2)


class Draft(BaseModel):
    """What a customer asks for."""

    email: str = Field(max_length=254, pattern=r"^[^@\s\x00]+@[^@\s\x00]+$")
    address: Text = Field(max_length=500)
    lines: list[Line] = Field(min_length=1, max_length=50)

    @property
    def total(self) -> Decimal:
        """What all lines cost."""
        return sum((line.quantity * line.price for line in self.lines), Decimal(0))


class Order(AggregateRoot):
    """An order as its events have made it; `version` is how many there are, 0 for an order that nobody has placed.

    Commands return the event that they lead to, and leave the order as it is: it changes by `apply`.
    """

    draft: Draft | None = None
    status: Status | None = None

    @classmethod
    def of(cls, order_id: str, events: Iterable[StoredEvent]) -> Self:
        """Rebuild an order from its stream."""
        order = cls(id=order_id)
        for event in events:
            order.apply(event)
        return order

    def apply(self, event: StoredEvent) -> None:
        """Change as the event says."""
        if event.event_type == "OrderPlaced":
            self.draft = Draft.model_validate(event.payload)
        elif event.event_type == "AddressChanged" and self.draft is not None:
            self.draft.address = event.payload["address"]
        self.status = _STATUS_AFTER.get(event.event_type, self.status)
        self.version += 1

    def place(self, draft: Draft) -> StoredEvent:
        """Begin."""
        return self._event("OrderPlaced", {**draft.model_dump(), "total": draft.total})

    def change_address(self, address: str) -> StoredEvent:
        """Send it elsewhere, as long as it is not confirmed."""
        if self.status != "placed":
            raise NotAllowedError(f"the order is {self.status}: its address can no longer be changed")
        return self._event("AddressChanged", {"address": address})

    def confirm(self) -> StoredEvent | None:
        """Promise that it will be shipped; None when that has been promised before."""
        return self._event("OrderConfirmed", {}) if self.status == "placed" else None

    def ship(self, parcel: str) -> StoredEvent | None:
        """Record that it is under way; None when that is recorded."""
        return self._event("OrderShipped", {"parcel": parcel}) if self.status != "shipped" else None

    def cancel(self, reason: str) -> StoredEvent | None:
        """Record that nothing will come of it; None when that is recorded."""
        return self._event("OrderCancelled", {"reason": reason}) if self.status != "cancelled" else None

    def _event(self, event_type: str, payload: dict[str, Any]) -> StoredEvent:
        return StoredEvent(aggregate_id=self.id, aggregate_type="Order", event_type=event_type, payload=payload)
