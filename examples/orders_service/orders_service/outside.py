"""Stand-ins for other people's services: a warehouse, a payment provider, a carrier, a mail server.

They live in memory and do what real ones do: a request whose key they have seen gets the earlier answer, and nothing
happens twice. In a real service these are HTTP clients with the same methods.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orders_service.domain import Line

logger = logging.getLogger(__name__)

CREDIT = Decimal(1000)
TOO_FAR = "Moon"


class RefusedError(Exception):
    """The answer is no, and asking again would not change it."""


class Warehouse:
    """Has a hundred pieces of everything."""

    def __init__(self) -> None:
        self.stock: dict[str, int] = defaultdict(lambda: 100)
        self._reserved: dict[str, list[Line]] = {}

    async def reserve(self, lines: list[Line], *, key: str) -> str:
        """Put aside what is on the lines, all of it or nothing; return the reservation's name."""
        if key not in self._reserved:
            for line in lines:
                if self.stock[line.article] < sum(each.quantity for each in lines if each.article == line.article):
                    raise RefusedError(f"{line.article} is sold out")
            for line in lines:
                self.stock[line.article] -= line.quantity
            self._reserved[key] = lines
        return key

    async def release(self, reservation: str) -> None:
        """Put it back; a second time does nothing."""
        for line in self._reserved.pop(reservation, []):
            self.stock[line.article] += line.quantity


class Payments:
    """Charges cards that are good for a thousand."""

    def __init__(self) -> None:
        self.charges: dict[str, Decimal] = {}
        self.refunds: dict[str, str] = {}

    async def charge(self, amount: Decimal, *, key: str) -> str:
        """Take money; return the payment's name."""
        if amount > CREDIT:
            raise RefusedError("the card was declined")
        self.charges.setdefault(key, amount)
        return key

    async def refund(self, payment: str, *, key: str) -> None:
        """Give it back."""
        self.refunds.setdefault(key, payment)


class Carrier:
    """Collects parcels for every place on earth."""

    def __init__(self) -> None:
        self.parcels: dict[str, str] = {}

    async def collect(self, address: str, *, key: str) -> str:
        """Take a parcel to an address; return its number."""
        if TOO_FAR in address:
            raise RefusedError("nobody delivers there")
        self.parcels.setdefault(key, address)
        return f"parcel {key}"


class Mailer:
    """Sends mails, and remembers their keys, which mail servers do not: a mail may come twice."""

    def __init__(self) -> None:
        self.sent: dict[str, tuple[str, str]] = {}

    async def send(self, to: str, text: str, *, key: str) -> None:
        """Send a mail."""
        self.sent.setdefault(key, (to, text))
        logger.info("mail to %s: %s", to, text)


@dataclass(frozen=True)
class Outside:
    """All of them."""

    warehouse: Warehouse = field(default_factory=Warehouse)
    payments: Payments = field(default_factory=Payments)
    carrier: Carrier = field(default_factory=Carrier)
    mailer: Mailer = field(default_factory=Mailer)
