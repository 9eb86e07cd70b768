"""Readers by position and events that are committed late: nothing is missed, nothing comes out of order."""
# ruff: noqa: ARG002  (fixtures are asked for their effect)

from __future__ import annotations

import asyncio
import random
import signal
import sys
import textwrap
import time
from asyncio.subprocess import PIPE

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.pool import AsyncAdaptedQueuePool

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork, configure_engine
from tests.support.databases import ROOT
from tests.support.events import an_event
from tests.support.kinds import ONLY_POSTGRESQL

WRITERS = 12
EVENTS = 1500
ROLLED_BACK = 0.15
DELAY_SECONDS = {"postgresql": 0.02, "sqlite": 0.005}  # SQLite's writers wait for each other

# Appends, says so, and then neither commits nor goes away until it is killed.
STUCK_WRITER = """
    import asyncio, sys
    from cqrs_ddd_advanced_core import StoredEvent
    from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork, configure_engine
    from sqlalchemy.ext.asyncio import async_sessionmaker
    from tests.support.engines import create_async_engine

    async def main(url):
        factory = async_sessionmaker(configure_engine(create_async_engine(url)))
        async with SQLAlchemyUnitOfWork(factory) as uow:
            await SQLAlchemyEventStore().append([StoredEvent(aggregate_id="s", event_type="Lost", payload={})], uow=uow)
            print("appended", flush=True)
            await asyncio.Event().wait()

    asyncio.run(main(sys.argv[1]))
"""


async def naive_page(session_factory, position, limit):
    """Read as one would who does not know of late commits."""
    statement = sa.text(
        "SELECT position, event_id, aggregate_id, version FROM events WHERE position > :after "
        "ORDER BY position LIMIT :limit"
    )
    async with session_factory() as session:
        return (await session.execute(statement, {"after": position, "limit": limit})).all()


class Follower:
    """A projection's reader: goes on from the last position it was given."""

    def __init__(self, read_page):
        self.read_page = read_page
        self.position = 0
        self.seen = []

    async def read(self):
        while page := await self.read_page(self.position):
            self.seen += page
            self.position = page[-1].position


def followers(session_factory):
    """Return the store's reader and, to show that the checks can fail, a naive one."""
    store = SQLAlchemyEventStore(session_factory)
    return (
        Follower(lambda position: store.get_events_after(position, limit=50)),
        Follower(lambda position: naive_page(session_factory, position, 50)),
    )


class TestManyWriters:
    async def run(self, session_factory, delay_seconds, seed):
        """Let writers write and followers follow; return the followers and the committed event ids in their order."""
        store = SQLAlchemyEventStore(session_factory)
        rng = random.Random(seed)
        careful, naive = followers(session_factory)
        committed, done = [], asyncio.Event()

        async def write(number):
            while len(committed) < EVENTS:
                batch = [an_event(f"stream-{rng.randrange(40)}") for _ in range(rng.randint(1, 4))]
                uow = SQLAlchemyUnitOfWork(session_factory)
                async with uow:
                    await store.append(sorted(batch, key=lambda event: event.aggregate_id), uow=uow)
                    await asyncio.sleep(rng.random() * delay_seconds)  # the late commit, which is what this is about
                    if rng.random() < ROLLED_BACK:
                        await uow.rollback()
                    else:
                        await uow.commit()
                        committed.extend(event.event_id for event in batch)

        async def follow(follower):
            while not done.is_set():
                await follower.read()
                await asyncio.sleep(0)
            await follower.read()

        following = [asyncio.create_task(follow(follower)) for follower in (careful, naive)]
        await asyncio.gather(*(write(number) for number in range(WRITERS)))
        done.set()
        await asyncio.gather(*following)
        return careful, naive, committed

    @pytest.fixture
    def roomy_engine(self, database, make_engine):
        """An engine with a connection for everybody."""
        return configure_engine(make_engine(database.url, poolclass=AsyncAdaptedQueuePool, pool_size=WRITERS + 2))

    async def test_every_event_is_seen_once_and_in_order(self, database, roomy_engine):
        """Twelve writers with late commits and rollbacks: a reader sees each committed event once, streams in order."""
        factory = async_sessionmaker(roomy_engine)
        careful, naive, committed = await self.run(factory, DELAY_SECONDS[database.kind], seed=7)
        ids = [event.event_id for event in careful.seen]
        assert len(ids) == len(set(ids))
        assert set(ids) == set(committed)
        assert len(committed) >= EVENTS
        assert [event.position for event in careful.seen] == sorted(event.position for event in careful.seen)
        streams = {}
        for event in careful.seen:
            assert event.version == streams.get(event.aggregate_id, 0) + 1
            streams[event.aggregate_id] = event.version
        if database.kind == "postgresql":
            missed = set(committed) - {event.event_id for event in naive.seen}
            assert missed, "nothing was committed late: the test shows nothing"


class TestOneLateCommit:
    @ONLY_POSTGRESQL
    @pytest.mark.parametrize("committed", [True, False])
    async def test_holds_the_reader_and_would_be_missed_by_a_naive_one(self, session_factory, committed):
        """While A is open at position 1 and B has committed 2, a naive reader passes A and the store's stops before."""
        store = SQLAlchemyEventStore(session_factory)
        careful, naive = followers(session_factory)
        async with SQLAlchemyUnitOfWork(session_factory) as a:
            [late] = await store.append([an_event("a")], uow=a)
            async with SQLAlchemyUnitOfWork(session_factory) as b:
                [early] = await store.append([an_event("b")], uow=b)
            assert (late.position, early.position) == (1, 2)
            for follower in (careful, naive):
                await follower.read()
            assert [event.position for event in naive.seen] == [2]
            assert [event.position for event in careful.seen] == []
            if not committed:
                await a.rollback()
        for follower in (careful, naive):
            await follower.read()
        assert [event.position for event in naive.seen] == [2]
        assert [event.position for event in careful.seen] == ([1, 2] if committed else [2])

    @ONLY_POSTGRESQL
    async def test_an_inverted_stream_is_never_seen(self, session_factory):
        """A stream whose second version would be readable before its first is read in order."""
        store = SQLAlchemyEventStore(session_factory)
        careful, _ = followers(session_factory)
        async with SQLAlchemyUnitOfWork(session_factory) as a:
            await store.append([an_event("other")], uow=a)
            await store.append([an_event("s")])
            await store.append([an_event("s")])
            await careful.read()
            assert careful.seen == []
        await careful.read()
        assert [(event.aggregate_id, event.version) for event in careful.seen] == [("other", 1), ("s", 1), ("s", 2)]

    @ONLY_POSTGRESQL
    async def test_holds_until_the_last_writer_ends(self, session_factory):
        """Of several open writers the first position counts, whichever ends first."""
        store = SQLAlchemyEventStore(session_factory)
        careful, _ = followers(session_factory)
        units = [SQLAlchemyUnitOfWork(session_factory) for _ in range(4)]
        for number, uow in enumerate(units):
            await uow.__aenter__()
            await store.append([an_event(f"s-{number}")], uow=uow)
        for end, expected in ((2, []), (0, [1]), (3, [1]), (1, [1, 2, 3, 4])):
            await units[end].__aexit__(None, None, None)
            await careful.read()
            assert [event.position for event in careful.seen] == expected

    @ONLY_POSTGRESQL
    async def test_a_writer_that_waits_for_another_holds_readers_too(self, session_factory, engine):
        """A writer that has drawn its position and waits for a stream's other writer is not passed."""
        store = SQLAlchemyEventStore(session_factory)
        careful, _ = followers(session_factory)
        async with SQLAlchemyUnitOfWork(session_factory) as first:
            await store.append([an_event("s")], uow=first)
            waiting = asyncio.create_task(store.append([an_event("t"), an_event("s")]))
            async with asyncio.timeout(20), engine.connect() as connection:
                while not await connection.scalar(
                    sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()")
                ):
                    await connection.rollback()
            await store.append([an_event("u")])
            await careful.read()
            assert careful.seen == []
        await waiting
        await careful.read()
        assert sorted(event.aggregate_id for event in careful.seen) == ["s", "s", "t", "u"]
        assert [event.version for event in careful.seen if event.aggregate_id == "s"] == [1, 2]

    async def test_a_reader_in_a_unit_of_work_of_its_own_goes_on(self, session_factory, database):
        """A projection that reads and saves in one open unit of work sees what is committed between its reads."""
        store = SQLAlchemyEventStore(session_factory)
        await store.append([an_event("a")])
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            assert len(await store.get_events_after(0, uow=uow)) == 1
            if database.kind == "postgresql":
                await store.append([an_event("b")])
                assert len(await store.get_events_after(0, uow=uow)) == 2


class TestKilledWriter:
    async def test_delays_readers_for_two_seconds_at_most(self, database, session_factory, engine):
        """A process killed between append and commit leaves nothing behind that holds readers or writers back."""
        store = SQLAlchemyEventStore(session_factory)
        await store.append([an_event("a")])
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", textwrap.dedent(STUCK_WRITER), database.url, stdout=PIPE, cwd=ROOT
        )
        try:
            async with asyncio.timeout(30):
                assert await process.stdout.readline() == b"appended\n"
            if database.kind == "postgresql":
                await store.append([an_event("b")])
            assert [event.aggregate_id for event in await store.get_events_after(0)] == ["a"]  # held, or not there yet
        finally:
            process.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            await process.wait()
        async with asyncio.timeout(20):
            if database.kind == "sqlite":
                await store.append([an_event("b")])
            while len(read := await store.get_events_after(0)) < 2:  # noqa: ASYNC110  (nothing tells us when the server has noticed)
                await asyncio.sleep(0.01)
        assert time.monotonic() - killed < 2
        assert [event.aggregate_id for event in read] == ["a", "b"]
        assert await store.get_events("s") == []
        assert len(await store.append([an_event("s")], expected_version=0)) == 1
