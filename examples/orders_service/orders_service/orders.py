"""What the service can do with orders: each method one use case, in one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError
from orders_service.domain import Draft, Order
from orders_service.jobs import OrderMail
from orders_service.sagas import Fulfilment

if TYPE_CHECKING:
    from collections.abc import Callable

    from cqrs_ddd_advanced_core import StoredEvent
    from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork
    from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyBackgroundJobRepository, SQLAlchemySagaRepository

# Of no meaning but that nobody else makes ids of it.
_NAMESPACE = UUID("4f3c0f5e-0a55-4d3c-8f0e-3c1a7c1d9b42")
_MAILS = {
    "OrderPlaced": "We have your order.",
    "OrderShipped": "Your order is under way.",
    "OrderCancelled": "We are sorry: your order is cancelled.",
}


class UnknownOrderError(Exception):
    """Nobody has placed such an order."""


class KeyReusedError(Exception):
    """The idempotency key belongs to another order, with other contents."""


@dataclass(frozen=True)
class Receipt:
    """What a command has led to.

    Attributes:
        order_id: of the order.
        version: of the order, to be sent back with the next change.
        position: of the event; a reader who waits for it sees the change.
    """

    order_id: str
    version: int
    position: int


class Orders:
    """The use cases. Those that clients ask for join the unit of work of the request; the saga's have one of their own.

    Args:
        unit_of_work: makes units of work that are not open yet.
        events: the orders' streams.
        mails: to customers.
        fulfilments: the sagas.
    """

    def __init__(
        self,
        unit_of_work: Callable[[], SQLAlchemyUnitOfWork],
        events: SQLAlchemyEventStore,
        mails: SQLAlchemyBackgroundJobRepository[OrderMail],
        fulfilments: SQLAlchemySagaRepository[Fulfilment],
    ) -> None:
        self._unit_of_work = unit_of_work
        self._events = events
        self._mails = mails
        self._fulfilments = fulfilments

    async def place(self, draft: Draft, key: str, uow: SQLAlchemyUnitOfWork) -> Receipt:
        """Place an order: its event, its mail and its saga, all or none.

        The order's id comes from the key, so a second order of the same key is a conflict in the event store, however
        close the two are. It gets the answer of the first one. Where clients log in, the key should be theirs alone:
        let the name that goes into the id begin with the client's.

        Args:
            draft: what is ordered.
            key: the client's own, the same when it repeats a request whose answer it has not seen.
            uow: of the request.

        Raises:
            KeyReusedError: the first order of this key was another one.
        """
        order = Order(id=str(uuid5(_NAMESPACE, key)))
        try:
            receipt = await self._record(order, order.place(draft), draft.email, uow)
        except OptimisticConcurrencyError:
            return await self._placed_before(order.id, draft, uow)
        await self._fulfilments.add(Fulfilment(order_id=order.id, correlation_id=order.id), uow=uow)
        return receipt

    async def change_address(self, order_id: str, address: str, version: int, uow: SQLAlchemyUnitOfWork) -> Receipt:
        """Send an order elsewhere.

        Args:
            order_id: of the order.
            address: the new one.
            version: of the order that the client has seen.
            uow: of the request.

        Raises:
            UnknownOrderError: there is none.
            NotAllowedError: it is confirmed, or cancelled.
            OptimisticConcurrencyError: it has changed since that version.
        """
        order = await self._load(order_id, uow)
        event = order.change_address(address)
        return _receipt(await self._events.append([event], expected_version=version, uow=uow))

    async def draft(self, order_id: str) -> Draft:
        """Return what was ordered, with its present address."""
        order = await self._load(order_id)
        if order.draft is None:
            raise UnknownOrderError(f"order {order_id} was never placed")
        return order.draft

    async def confirm(self, order_id: str) -> None:
        """Confirm an order, unless it is confirmed."""
        await self._once(order_id, Order.confirm)

    async def ship(self, order_id: str, parcel: str) -> None:
        """Record that an order is under way, unless it is recorded."""
        await self._once(order_id, lambda order: order.ship(parcel))

    async def cancel(self, order_id: str, reason: str) -> None:
        """Cancel an order, unless it is cancelled."""
        await self._once(order_id, lambda order: order.cancel(reason))

    async def _once(self, order_id: str, command: Callable[[Order], StoredEvent | None]) -> None:
        """Record what a command leads to. Somebody else's event in between is a conflict; the saga tries again."""
        async with self._unit_of_work() as uow:
            order = await self._load(order_id, uow)
            event = command(order)
            if event is not None and order.draft is not None:
                await self._record(order, event, order.draft.email, uow)

    async def _record(self, order: Order, event: StoredEvent, email: str, uow: SQLAlchemyUnitOfWork) -> Receipt:
        """Append an event, and enqueue the mail about it."""
        stored = await self._events.append([event], expected_version=order.version, uow=uow)
        if event.event_type in _MAILS:
            text = f"{_MAILS[event.event_type]} (order {order.id})"
            await self._mails.add(OrderMail(to=email, text=text, correlation_id=order.id), uow=uow)
        return _receipt(stored)

    async def _placed_before(self, order_id: str, draft: Draft, uow: SQLAlchemyUnitOfWork) -> Receipt:
        first = await self._events.get_events(order_id, limit=1, uow=uow)
        if Order.of(order_id, first).draft != draft:
            raise KeyReusedError("this Idempotency-Key was used for another order")
        return _receipt(first)

    async def _load(self, order_id: str, uow: SQLAlchemyUnitOfWork | None = None) -> Order:
        order = Order.of(order_id, await self._events.get_events(order_id, uow=uow))
        if order.version == 0:
            raise UnknownOrderError(f"there is no order {order_id}")
        return order


def _receipt(stored: list[StoredEvent]) -> Receipt:
    last = stored[-1]
    if last.version is None or last.position is None:
        raise ValueError(f"event {last.event_id} is not stored")
    return Receipt(last.aggregate_id, last.version, last.position)
