"""Many writers at once: who gets in, who is told, and what becomes of deadlocks."""
# ruff: noqa: ARG002  (fixtures are asked for their effect)

from __future__ import annotations

import asyncio

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError
from tests.core.bystander import scalar, so_many_wait
from tests.support.engines import configured_engine
from tests.support.events import an_event, everything
from tests.support.kinds import ONLY_POSTGRESQL
from tests.support.waiting import until


def a_hasty_engine(database):
    """Give an engine in whose sessions the server does not wait a second before it looks for deadlocks."""
    settings = {"server_settings": {"deadlock_timeout": "50ms"}}  # which a proxy would refuse
    return configured_engine(database.direct_url, connect_args=settings)


class TestConcurrency:
    async def test_without_expected_version_everybody_gets_in(self, store):
        """Twelve tasks that append batches to one stream at once all succeed: versions from 1 without gaps."""

        async def writer(number):
            for step in range(5):
                await store.append([an_event("hot", payload={"writer": number, "step": step}) for _ in range(2)])

        await asyncio.gather(*(writer(number) for number in range(12)))
        stored = await store.get_events("hot")
        assert [event.version for event in stored] == list(range(1, 121))
        assert [event.position for event in stored] == sorted(event.position for event in stored)
        assert stored == await everything(store)
        for number in range(12):
            own = [event.payload["step"] for event in stored if event.payload["writer"] == number]
            assert own == [step for step in range(5) for _ in range(2)]

    async def test_with_expected_version_one_wins(self, store):
        """Of twelve tasks that expect the same version exactly one succeeds, the others are told."""
        for expected in range(5):
            results = await asyncio.gather(
                *(store.append([an_event("hot")], expected_version=expected) for _ in range(12)),
                return_exceptions=True,
            )
            lost = [result for result in results if isinstance(result, OptimisticConcurrencyError)]
            assert len(lost) == 11
            assert {(error.expected, error.actual) for error in lost} == {(expected, expected + 1)}
        assert [event.version for event in await store.get_events("hot")] == [1, 2, 3, 4, 5]

    async def test_with_claimed_versions_one_wins(self, store):
        """The same goes for versions that the events themselves claim, in batches over two streams."""
        results = await asyncio.gather(
            *(store.append([an_event("hot", version=1), an_event("warm", version=1)]) for _ in range(8)),
            return_exceptions=True,
        )
        assert sum(isinstance(result, OptimisticConcurrencyError) for result in results) == 7
        assert sum(isinstance(result, list) for result in results) == 1
        assert len(await everything(store)) == 2

    async def test_one_event_id_is_stored_once(self, store):
        """Of many tasks that append the same event_id to different streams exactly one succeeds."""
        results = await asyncio.gather(
            *(store.append([an_event(f"s-{n}"), an_event(f"s-{n}", event_id="e-1")]) for n in range(8)),
            return_exceptions=True,
        )
        assert sum(isinstance(result, OptimisticConcurrencyError) for result in results) == 7
        assert len(await everything(store)) == 2

    async def test_batches_in_opposite_order_all_succeed(self, store):
        """Batches that touch the same streams in opposite order do not fail each other."""
        await asyncio.gather(
            *(store.append([an_event(stream) for stream in ("ab" if n % 2 else "ba")]) for n in range(12))
        )
        assert [event.version for event in await store.get_events("a")] == list(range(1, 13))
        assert [event.version for event in await store.get_events("b")] == list(range(1, 13))

    @ONLY_POSTGRESQL
    async def test_a_deadlock_is_survived(self, store, engine, session_factory, database):
        """When the database breaks a deadlock between two batches both are stored in the end."""
        async with a_hasty_engine(database) as hasty:
            other = SQLAlchemyEventStore(async_sessionmaker(hasty))
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await store.append([an_event("x")], uow=uow)
                # Holds a, waits for x; will want b.
                first = asyncio.create_task(other.append([an_event("a"), an_event("x"), an_event("b")]))
                await until(lambda: so_many_wait(engine, 1))
                # Holds b, waits for a.
                second = asyncio.create_task(other.append([an_event("b"), an_event("a")]))
                await until(lambda: so_many_wait(engine, 2))
                await uow.rollback()
            assert len(await first) == 3
            assert len(await second) == 2
        await until(lambda: there_was_a_deadlock(engine))
        assert [event.version for event in await store.get_events("a")] == [1, 2]
        assert [event.version for event in await store.get_events("b")] == [1, 2]

    @ONLY_POSTGRESQL
    async def test_a_deadlock_in_a_unit_of_work_is_the_callers(self, store, engine, session_factory, database):
        """In the caller's transaction a deadlock reaches the caller, who alone can begin again."""
        async with a_hasty_engine(database) as hasty:

            async def block(streams, mine, other):
                async with SQLAlchemyUnitOfWork(async_sessionmaker(hasty)) as uow:
                    await store.append([an_event(streams[0])], uow=uow)
                    mine.set()
                    await other.wait()
                    await store.append([an_event(streams[1])], uow=uow)

            events = asyncio.Event(), asyncio.Event()
            results = await asyncio.gather(block("ab", *events), block("ba", *reversed(events)), return_exceptions=True)
        [error] = [result for result in results if result is not None]
        assert isinstance(error, DBAPIError)
        assert "deadlock detected" in str(error)
        assert len(await everything(store)) == 2


async def there_was_a_deadlock(engine):
    return await scalar(engine, "SELECT deadlocks > 0 FROM pg_stat_database WHERE datname = current_database()")
