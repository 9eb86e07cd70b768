"""What the read model holds, summed up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from read_models import fines

if TYPE_CHECKING:
    from projection import Row

    from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionStore

_SAMPLE_OF_EACH_STATUS = 2


@dataclass(frozen=True)
class Work:
    """What one step of a run has done: none of it when an earlier run had done it already."""

    events: int
    seconds: float


@dataclass(frozen=True)
class Totals:
    """The read model after a run. Two are equal when the read models say the same.

    Attributes:
        events: that were projected, by this run and earlier ones.
        by_status: the number of cases in each status, most frequent first.
        sample: rows of cases in each status.
        imported: what this run appended to the event store.
        projected: what this run projected.
    """

    cases: int
    events: int
    fine_total: Decimal
    expense: Decimal
    paid: Decimal
    by_status: dict[str, int]
    sample: list[Row] = field(compare=False)
    imported: Work = field(compare=False)
    projected: Work = field(compare=False)


async def read_totals(store: SQLAlchemyProjectionStore, *, imported: Work, projected: Work) -> Totals:
    """Sum up all rows. In Python, as SQLite would add decimals as floats."""
    cases = events = 0
    sums = dict.fromkeys(("fine_total", "expense", "paid"), Decimal(0))
    statuses: Counter[str] = Counter()
    async for row in store.stream(fines.collection):
        cases += 1
        events += row["_version"]
        statuses[row["status"]] += 1
        for column in sums:
            sums[column] += row[column]
    by_status = dict(statuses.most_common())
    return Totals(
        cases,
        events,
        **sums,
        by_status=by_status,
        sample=[row for status in by_status for row in await _largest(store, status)],
        imported=imported,
        projected=projected,
    )


async def _largest(store: SQLAlchemyProjectionStore, status: str) -> list[Row]:
    return await store.find(
        fines.collection,
        filter={"status": status},
        sort=[("fine_total", -1)],
        limit=_SAMPLE_OF_EACH_STATUS,
    )
