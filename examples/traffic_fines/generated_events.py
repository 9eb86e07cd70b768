"""A stream of made-up traffic fines: always the same for the same number of cases."""

from __future__ import annotations

import heapq
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import TYPE_CHECKING

from cqrs_ddd_advanced_core import StoredEvent

if TYPE_CHECKING:
    from collections.abc import Iterator

_BEGINNING = datetime(2006, 1, 1, tzinfo=UTC)
_BETWEEN_CASES = timedelta(hours=3)
_UNPAID = ("CreateFine", "SendFine", "InsertFineNotification", "AddPenalty")
_APPEAL = ("InsertDateAppealToPrefecture", "SendAppealToPrefecture")
# How often cases take which course, in per cent, as in the event log that main.py --events was made for.
_COURSES = {
    ("CreateFine", "Payment"): 35,
    ("CreateFine", "SendFine"): 19,
    (*_UNPAID, "SendForCreditCollection"): 33,
    (*_UNPAID, "Payment"): 8,
    (*_UNPAID, "Payment", "Payment"): 3,
    (*_UNPAID, *_APPEAL, "NotifyResultAppealToOffender", "Payment"): 1,
    (*_UNPAID, *_APPEAL): 1,
}


class GeneratedEvents:
    """The events of many cases, interleaved in the order of time; holds the open cases in memory, no more.

    Args:
        cases: how many.
    """

    def __init__(self, cases: int = 2000) -> None:
        self._cases = cases

    def __iter__(self) -> Iterator[StoredEvent]:
        """Make the events one by one."""
        for number, event in enumerate(self._in_time_order(), start=1):
            # Streams of different lengths differ in their order, so their ids say which one they are of.
            yield event.model_copy(update={"event_id": f"generated-{self._cases}-{number}"})

    def __length_hint__(self) -> int:
        """Return the number of events, for a progress bar."""
        return sum(len(_course(_random(case))) for case in range(self._cases))

    def _in_time_order(self) -> Iterator[StoredEvent]:
        waiting: list[tuple[datetime, int, StoredEvent]] = []
        tie_breaker = count()
        for case in range(self._cases):
            events = _events(case)
            while waiting and waiting[0][0] < events[0].occurred_at:
                yield heapq.heappop(waiting)[-1]
            for event in events:
                heapq.heappush(waiting, (event.occurred_at, next(tie_breaker), event))
        while waiting:
            yield heapq.heappop(waiting)[-1]


def _random(case: int) -> random.Random:
    return random.Random(f"traffic fine {case}")


def _course(chance: random.Random) -> tuple[str, ...]:
    return chance.choices(tuple(_COURSES), weights=tuple(_COURSES.values()))[0]


def _events(case: int) -> list[StoredEvent]:
    chance = _random(case)
    course = _course(chance)
    payloads = _payloads(course, chance)
    occurred_at = _BEGINNING + case * _BETWEEN_CASES
    events = []
    for version, (name, payload) in enumerate(zip(course, payloads, strict=True), start=1):
        events.append(
            StoredEvent(
                aggregate_id=f"G{case + 1}",
                aggregate_type="Fine",
                event_type=name,
                version=version,
                payload=payload,
                occurred_at=occurred_at,
            )
        )
        occurred_at += timedelta(days=chance.randint(10, 90), minutes=chance.randrange(24 * 60))
    return events


def _payloads(course: tuple[str, ...], chance: random.Random) -> Iterator[dict[str, str]]:
    fine = Decimal(chance.choice(("22.00", "36.00", "71.50", "143.00")))
    expense = Decimal(chance.choice(("10.00", "11.00", "13.50"))) if "SendFine" in course else Decimal(0)
    due = fine * 2 + expense if "AddPenalty" in course else fine + expense
    instalments = _instalments(due, course.count("Payment"))
    for name in course:
        match name:
            case "CreateFine":
                yield {"amount": str(fine), "vehicle_class": chance.choice("AACM")}
            case "SendFine":
                yield {"expense": str(expense)}
            case "AddPenalty":
                yield {"amount": str(fine * 2)}
            case "Payment":
                yield {"payment_amount": str(next(instalments))}
            case _:
                yield {}


def _instalments(due: Decimal, number: int) -> Iterator[Decimal]:
    for remaining in range(number, 0, -1):
        part = round(due / remaining, 2)
        due -= part
        yield part
