"""Many writers of one saga, each reloading and retrying: no change is lost."""

from __future__ import annotations

import asyncio
import random
from itertools import count

import pytest

from cqrs_ddd_advanced_core.sagas import SagaState
from cqrs_ddd_persistence_sqlalchemy import SagaStateModel
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemySagaRepository
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError

TASKS = 32


class Counter(SagaState):
    count: int = 0


async def increment(counters):
    """Add one to the counter, however often somebody else comes first; wait the longer, the more are in the way."""
    for tries in count(1):
        counter = await counters.get("c1")
        counter.count += 1
        try:
            return await counters.save(counter)
        except OptimisticConcurrencyError:
            await asyncio.sleep(random.uniform(0, 0.8 * tries))
    return None


@pytest.mark.parametrize("times", [10, pytest.param(50, marks=pytest.mark.slow)])
async def test_no_increment_is_lost(uow_factory, session_factory, times):
    """32 tasks of 10 increments each, or of 50, leave their product, and one version for each beside the first."""
    counters = SQLAlchemySagaRepository(Counter, uow_factory)
    await counters.add(Counter(id="c1"))

    async def work():
        for _ in range(times):
            await increment(counters)

    await asyncio.gather(*(work() for _ in range(TASKS)))
    assert (await counters.get("c1")).count == TASKS * times
    async with session_factory() as session:
        assert (await session.get(SagaStateModel, "c1")).version == TASKS * times + 1
