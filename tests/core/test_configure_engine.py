"""configure_engine: the recommended settings, and many processes writing one SQLite file."""

from __future__ import annotations

import asyncio
import sys
import textwrap
from asyncio.subprocess import PIPE, STDOUT

import pytest
import sqlalchemy as sa
import sqlalchemy.ext.asyncio
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork, configure_engine
from cqrs_ddd_persistence_sqlalchemy.exceptions import PersistenceError
from tests.support.databases import ROOT
from tests.support.engines import check_no_leaks
from tests.support.events import an_event
from tests.support.kinds import ONLY_POSTGRESQL, ONLY_SQLITE

# One process of the many: reads before it writes, in one transaction, as applications do.
WRITER = """
    import asyncio, sys
    from cqrs_ddd_advanced_core import StoredEvent
    from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork, configure_engine
    from sqlalchemy.ext.asyncio import async_sessionmaker
    from tests.support.engines import create_async_engine

    async def main(url, name, blocks):
        engine = configure_engine(create_async_engine(url))
        factory, store = async_sessionmaker(engine), SQLAlchemyEventStore()
        for _ in range(blocks):
            async with SQLAlchemyUnitOfWork(factory) as uow:
                known = len(await store.get_events(name, uow=uow))
                await store.append(
                    [StoredEvent(aggregate_id=name, event_type="Counted", payload={"known": known})],
                    expected_version=known, uow=uow,
                )
                await store.append([StoredEvent(aggregate_id="all", event_type="Counted", payload={})], uow=uow)
        await engine.dispose()

    sys.stdin.readline()  # all start at once
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


async def test_returns_the_engine(database, make_engine):
    """The engine that goes in comes out, so that it can be configured where it is made."""
    engine = make_engine(database.url)
    assert configure_engine(engine) is engine


@ONLY_SQLITE
async def test_sets_the_pragmas_on_every_connection(engine):
    """Each connection has the write-ahead log, the busy timeout and foreign keys."""
    async with engine.connect() as one, engine.connect() as two:
        for connection in (one, two):
            await connection.execution_options(sqlite_begin="DEFERRED")
            assert await connection.scalar(sa.text("PRAGMA journal_mode")) == "wal"
            assert await connection.scalar(sa.text("PRAGMA busy_timeout")) == 60_000
            assert await connection.scalar(sa.text("PRAGMA foreign_keys")) == 1


@ONLY_SQLITE
async def test_transactions_of_the_application_take_the_write_lock_as_they_begin(engine, database):
    """engine.begin() without a unit of work reads, then writes, and never meets 'database is locked'."""

    async def count_up():
        async with engine.begin() as connection:
            known = await connection.scalar(sa.text("SELECT count(*) FROM projection_positions"))
            await connection.execute(sa.text("INSERT INTO projection_positions VALUES (:n, 1, '')"), {"n": str(known)})

    await asyncio.gather(*(count_up() for _ in range(8)))
    async with engine.connect() as connection:
        assert await connection.scalar(sa.text("SELECT count(*) FROM projection_positions")) == 8


@ONLY_SQLITE
async def test_a_deferred_connection_waits_for_nobody(engine, session_factory):
    """A connection with sqlite_begin="DEFERRED" reads while another one writes."""
    store = SQLAlchemyEventStore(session_factory)
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await store.append([an_event()], uow=uow)
        async with asyncio.timeout(5), engine.connect() as connection:  # the busy timeout is 60 seconds
            await connection.execution_options(sqlite_begin="DEFERRED")
            assert await connection.scalar(sa.text("SELECT count(*) FROM events")) == 0


@ONLY_SQLITE
async def test_another_way_to_begin_is_refused(engine):
    """An unknown value of sqlite_begin is refused, and the ones there are are named."""
    async with engine.connect() as connection:
        await connection.execution_options(sqlite_begin="EXCLUSIVE; DROP TABLE events")
        with pytest.raises(PersistenceError, match="use 'IMMEDIATE' or 'DEFERRED'"):
            await connection.execute(sa.text("SELECT 1"))


@ONLY_SQLITE
async def test_a_savepoint_before_any_write_does_not_survive_a_rollback(engine):
    """The driver's own transaction handling is off: a released savepoint goes with its transaction."""
    async with engine.connect() as connection:
        async with connection.begin_nested():
            await connection.execute(sa.text("INSERT INTO projection_positions VALUES ('a', 1, '')"))
        await connection.rollback()
        assert await connection.scalar(sa.text("SELECT count(*) FROM projection_positions")) == 0


async def test_twice_is_harmless(database, make_engine):
    """An engine that is configured twice, by a library and by its user, works."""
    engine = configure_engine(configure_engine(make_engine(database.url)))
    store = SQLAlchemyEventStore(async_sessionmaker(engine))
    assert len(await store.append([an_event()])) == 1
    assert len(await store.get_events("order-1")) == 1


async def test_a_configured_engine_may_be_used_in_several_event_loops(database, make_engine):
    """The settings hold no event loop: an engine disposed of in one works in the next."""
    engine = configure_engine(make_engine(database.url))

    async def append():
        await SQLAlchemyEventStore(async_sessionmaker(engine)).append([an_event()])
        await engine.dispose()

    await asyncio.to_thread(asyncio.run, append())
    await append()
    assert len(await SQLAlchemyEventStore(async_sessionmaker(engine)).get_events("order-1")) == 2


@ONLY_SQLITE
async def test_a_stock_engine_works_beside_a_configured_one(engine, session_factory, stock_engine):
    """A file that one engine has switched to a write-ahead log is read and written by stock engines too."""
    await SQLAlchemyEventStore(session_factory).append([an_event()])
    await SQLAlchemyEventStore(async_sessionmaker(stock_engine)).append([an_event()])
    assert len(await SQLAlchemyEventStore(session_factory).get_events("order-1")) == 2


async def test_many_tasks_write_at_once(engine, session_factory):
    """Forty units of work at once, more than the pool has connections, all succeed."""
    store = SQLAlchemyEventStore()

    async def block(number):
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await store.get_events("all", uow=uow)
            await store.append([an_event("all", payload={"number": number})], uow=uow)

    await asyncio.gather(*(block(number) for number in range(40)))
    stored = await SQLAlchemyEventStore(session_factory).get_events("all")
    assert [event.version for event in stored] == list(range(1, 41))
    assert {event.payload["number"] for event in stored} == set(range(40))


async def test_many_processes_write_one_database(database, make_engine):
    """Four processes with fifty units of work each write one database without a single error."""
    names = [f"process-{number}" for number in range(4)]
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(WRITER), database.url]
    writers = [
        await asyncio.create_subprocess_exec(*command, name, "50", stdin=PIPE, stdout=PIPE, stderr=STDOUT, cwd=ROOT)
        for name in names
    ]
    async with asyncio.timeout(120):
        outputs = await asyncio.gather(*(writer.communicate(b"go\n") for writer in writers))
    assert [output for output, _ in outputs] == [b""] * 4
    assert [writer.returncode for writer in writers] == [0] * 4
    engine = configure_engine(make_engine(database.url))
    store = SQLAlchemyEventStore(async_sessionmaker(engine))
    for name in names:
        assert [event.version for event in await store.get_events(name)] == list(range(1, 51))
    assert [event.version for event in await store.get_events("all")] == list(range(1, 201))
    if database.kind == "sqlite":
        assert await store.last_position() == 400


@pytest.mark.parametrize("pooling", [True, False])
@ONLY_POSTGRESQL
async def test_with_transaction_pooling_no_statement_stays_on_the_server(database, pooling):
    """Other arguments of the connection are kept; without the setting the driver's named statements are there."""
    made = sqlalchemy.ext.asyncio.create_async_engine(
        database.direct_url, connect_args={"server_settings": {"application_name": "tests"}}
    )
    engine = configure_engine(made, transaction_pooling=pooling)
    async with engine.connect() as connection:
        for n in range(3):
            assert await connection.scalar(sa.text("SELECT CAST(:n AS int) + 1"), {"n": n}) == n + 1
        await connection.execute(sa.text("CREATE TEMPORARY TABLE many (n int)"))
        await connection.execute(sa.text("INSERT INTO many VALUES (:n)"), [{"n": n} for n in range(5)])
        rows = await connection.stream(sa.text("SELECT n FROM many ORDER BY n"), execution_options={"yield_per": 2})
        assert [row.n async for row in rows] == [0, 1, 2, 3, 4]
        prepared = await connection.scalar(sa.text("SELECT count(*) FROM pg_prepared_statements"))
        assert (prepared == 0) is pooling
        assert await connection.scalar(sa.text("SHOW application_name")) == "tests"
    await check_no_leaks(engine)


@ONLY_SQLITE
async def test_sqlite_ignores_transaction_pooling(database, make_engine):
    """An application that says so of both databases works on both."""
    engine = configure_engine(make_engine(database.url), transaction_pooling=True)
    store = SQLAlchemyEventStore(async_sessionmaker(engine))
    await store.append([an_event()])
    assert len(await store.get_events("order-1")) == 1
