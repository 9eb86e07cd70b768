"""Many writers of one saga, each reloading and retrying: no change is lost."""

from __future__ import annotations

import asyncio
import random
from itertools import count

from cqrs_ddd_advanced_core.sagas import SagaState
from cqrs_ddd_persistence_sqlalchemy import SagaStateModel
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemySagaRepository
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError

TASKS, TIMES = 32, 50


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


async def test_no_increment_is_lost(uow_factory, session_factory):
    """32 tasks of 50 increments each leave 1,600, and one version for each beside the first."""
    counters = SQLAlchemySagaRepository(Counter, uow_factory)
    await counters.add(Counter(id="c1"))

    async def work():
        for _ in range(TIMES):
            await increment(counters)

    await asyncio.gather(*(work() for _ in range(TASKS)))
    assert (await counters.get("c1")).count == TASKS * TIMES
    async with session_factory() as session:
        assert (await session.get(SagaStateModel, "c1")).version == TASKS * TIMES + 1
