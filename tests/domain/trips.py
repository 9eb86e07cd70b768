"""Two sagas, and the services that their steps ask."""

from __future__ import annotations

from cqrs_ddd_advanced_core.sagas import SagaState, saga_step
from cqrs_ddd_advanced_core.sagas import SagaStatus as S


class Services:
    """Everything outside, which can be told to fail, and notes what it was asked."""

    def __init__(self, *failing):
        self.asked = []
        self.failing = set(failing)

    def ask(self, what):
        self.asked.append(what)
        if what in self.failing:
            raise ConnectionError(f"{what} does not answer")


class Trip(SagaState):
    city: str = "Oslo"
    flight: str | None = None
    hotel: str | None = None

    @saga_step(compensation="cancel_flight")
    async def book_flight(self, air, seats=1):
        """Book the flight."""
        air.ask("flight")
        self.flight = f"{self.city} {seats}"
        return self.flight

    @saga_step(compensation="cancel_hotel")
    async def book_hotel(self, inn):
        inn.ask("hotel")
        self.hotel = "12"

    @saga_step()
    async def tell(self, *words, loud=False, **more):
        return words, loud, more

    async def cancel_flight(self, air, seats=1):
        air.ask(f"no flight {seats}")

    async def cancel_hotel(self, inn):
        inn.ask("no hotel")


def trip(status=S.PENDING, **fields):
    return Trip(id="t1", status=status, **fields)


class Journey(SagaState):
    @saga_step(compensation="stay", retries=1)
    async def leave(self):
        pass

    @saga_step()
    async def arrive(self):
        pass

    async def stay(self):
        pass
