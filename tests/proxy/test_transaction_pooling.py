"""The library through a PgBouncer that lends each transaction another of the server's connections."""

from __future__ import annotations

import asyncio
import sys
import textwrap
from asyncio.subprocess import PIPE, STDOUT
from datetime import timedelta

import asyncpg
import pytest
import sqlalchemy as sa
import sqlalchemy.ext.asyncio
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_advanced_core import StoredEvent
from cqrs_ddd_advanced_core.projections import Projection, ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork, configure_engine
from cqrs_ddd_persistence_sqlalchemy.advanced import (
    JobWorker,
    ProjectionRunner,
    SQLAlchemyBackgroundJobRepository,
    SQLAlchemyProjectionStore,
)
from cqrs_ddd_persistence_sqlalchemy.projections.__main__ import main as projections
from cqrs_ddd_persistence_sqlalchemy.schema import rebuild, verify
from tests.advanced.jobs.conftest import Import
from tests.support import pgbouncer
from tests.support.databases import ROOT, alembic
from tests.support.engines import check_no_leaks
from tests.support.kinds import ONLY_POSTGRESQL

PROXIED = "the connection goes through a pooling proxy"
TOTALS = ProjectionSchema(
    collection="totals", fields=[("id", "TEXT PRIMARY KEY"), ("seen", "INTEGER NOT NULL"), ("note", "JSONB")]
)

# What outlives a transaction: should be nothing, as the next client gets the connection.
LEFT_BEHIND = sa.text(
    """
    SELECT 'prepared ' || name FROM pg_prepared_statements
    UNION ALL SELECT 'listening to ' || channel FROM pg_listening_channels() AS channel
    UNION ALL SELECT 'cursor ' || name FROM pg_cursors WHERE is_holdable
    UNION ALL SELECT 'lock ' || mode FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
    UNION ALL SELECT 'temporary ' || relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()
    UNION ALL SELECT 'setting ' || name FROM pg_settings WHERE source = 'session' AND setting IS DISTINCT FROM reset_val
    """
)

# An application as it is without a word on the proxy, or with one.
CLIENT = """
    import asyncio, sys
    import sqlalchemy as sa
    from cqrs_ddd_persistence_sqlalchemy import configure_engine
    from sqlalchemy.ext.asyncio import create_async_engine

    async def main(url, pooling):
        engine = configure_engine(create_async_engine(url), transaction_pooling=pooling == "True")
        for n in range(3):
            async with engine.connect() as connection:
                assert await connection.scalar(sa.text("SELECT CAST(:n AS int) + 1"), {"n": n}) == n + 1
        await engine.dispose()

    asyncio.run(main(*sys.argv[1:]))
"""


def an_event(stream="a", **given):
    return StoredEvent(**{"aggregate_id": stream, "event_type": "Seen", "payload": {}} | given)


def counting():
    projection = Projection("totals", TOTALS)

    @projection.fold("Seen")
    def seen(row, _event):
        return {"seen": (row["seen"] if row else 0) + 1}

    return projection


@pytest.fixture
async def make_engine():
    """Makes engines that are configured for the proxy."""
    made = []

    def make(url, **options):
        engine = sqlalchemy.ext.asyncio.create_async_engine(url, **options)
        made.append(configure_engine(engine, transaction_pooling=True))
        return made[-1]

    yield make
    for engine in made:
        await check_no_leaks(engine)


@pytest.fixture
async def sessions(make_engine, pooled):
    """Sessions through the proxy, and a table for the projection."""
    engine = make_engine(pooled.url)
    store = SQLAlchemyProjectionStore(async_sessionmaker(engine), allow_auto_ddl=True)
    await store.ensure_collection("totals", schema=TOTALS)
    return async_sessionmaker(engine)


async def run_client(url, *, pooling):
    """Run the client in a process of its own, and return how it ended and what it said."""
    command = [sys.executable, "-c", textwrap.dedent(CLIENT), url, str(pooling)]
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=STDOUT, cwd=ROOT)
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, said.decode()


class TestTheRunItself:
    @ONLY_POSTGRESQL
    @pytest.mark.usefixtures("pooled")
    async def test_the_suites_engines_share_the_proxys_connections(self, databases, session_factory, database):
        """Twenty open units of work of the suite's own fixtures are served by five sessions of the server's at most."""
        assert f":{databases.proxy.port}/" in database.url
        pids = set()

        async def work(n):
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await SQLAlchemyEventStore().append([an_event(str(n))], uow=uow)
                pids.add(await uow.session.scalar(sa.text("SELECT pg_backend_pid()")))
                await asyncio.sleep(0.02)

        await asyncio.gather(*(work(n) for n in range(20)))
        assert 1 < len(pids) <= pgbouncer.POOL_SIZE

    async def test_one_connection_meets_several_sessions(self, pooled, make_engine):
        """What a client takes for one connection is another session with the next transaction."""
        engine = make_engine(pooled.url, pool_size=1, max_overflow=0)
        others = [make_engine(pooled.url, pool_size=1, max_overflow=0) for _ in range(3)]
        pids = set()
        for _ in range(8):
            async with engine.connect() as connection:
                pids.add(await connection.scalar(sa.text("SELECT pg_backend_pid()")))
                held = [await other.connect() for other in others]
                for other in held:
                    await other.execute(sa.text("SELECT 1"))
            for other in held:
                await other.close()
        assert len(pids) > 1


class TestStatements:
    async def test_without_the_setting_a_second_process_fails(self, one_session):
        """The names of prepared statements meet on the server's connection: what the setting is for."""
        assert await run_client(one_session, pooling=False) == (0, "")
        code, said = await run_client(one_session, pooling=False)
        assert code == 1
        assert 'prepared statement "__asyncpg_stmt_1__" already exists' in said

    async def test_with_the_setting_processes_do_not_meet(self, one_session):
        """Beside each other, after each other, and beside a client that names its statements."""
        assert await run_client(one_session, pooling=False) == (0, "")
        for _ in range(2):
            both = await asyncio.gather(*(run_client(one_session, pooling=True) for _ in range(2)))
            assert both == [(0, ""), (0, "")]

    async def test_autocommit_works(self, pooled, make_engine):
        """Where each statement is a transaction, it is parsed on the connection that runs it."""
        engine = make_engine(pooled.url, isolation_level="AUTOCOMMIT")

        async def ask(n):
            async with engine.connect() as connection:
                for m in range(20):
                    answer = await connection.scalar(sa.text("SELECT CAST(:n AS int) * :m"), {"n": n, "m": m})
                    assert answer == n * m

        await asyncio.gather(*(ask(n) for n in range(10)))

    async def test_the_stores_leave_nothing_on_the_servers_connection(self, one_session, make_engine):
        """No prepared statement, LISTEN, lock, temporary table or setting is there for the next client."""
        engine = make_engine(one_session)
        factory = async_sessionmaker(engine)
        events = SQLAlchemyEventStore(factory, notify=True)
        documents = SQLAlchemyProjectionStore(factory, allow_auto_ddl=True)
        jobs = SQLAlchemyBackgroundJobRepository(Import, session_factory=factory, notify=True)
        await documents.ensure_collection("totals", schema=TOTALS)
        await events.append([an_event(str(n)) for n in range(200)])
        runner = ProjectionRunner(events, counting(), lambda: SQLAlchemyUnitOfWork(factory))
        await runner.catch_up()
        await rebuild(counting(), factory)  # compares shapes by a temporary table
        await verify(engine, [TOTALS])
        await documents.bulk_upsert("totals", [{"id": str(n), "seen": n, "note": {"n": n}} for n in range(500)], "id")
        assert len([row async for row in documents.stream("totals")]) == 500
        assert len([event async for event in events.stream_after(0, page_size=50)]) == 200
        async with SQLAlchemyUnitOfWork(factory) as uow, events.allow_changes(uow=uow):
            await uow.session.execute(sa.text("UPDATE events SET payload = '{}'"))
            await uow.commit()
        await jobs.enqueue_many([Import() for _ in range(20)])
        worked = Worked()
        await JobWorker(jobs, worked).run_due()
        assert len(worked.jobs) == 20
        async with factory() as session:
            assert (await session.scalars(LEFT_BEHIND)).all() == []


class Worked:
    def __init__(self):
        self.jobs = []

    async def __call__(self, job):
        self.jobs.append(job.id)


class TestNews:
    async def test_a_runner_polls_and_nobody_listens(self, pooled, sessions):
        """An event store that notifies and a runner that would listen: events are applied by polling."""
        events = SQLAlchemyEventStore(sessions, notify=True)
        runner = ProjectionRunner(
            events, counting(), lambda: SQLAlchemyUnitOfWork(sessions), poll_interval=timedelta(milliseconds=30)
        )
        task = asyncio.create_task(runner.run())
        try:
            for n in range(1, 4):
                (event,) = await events.append([an_event()])
                await runner.wait_for("totals", event.position, timeout=20)
                assert (await SQLAlchemyProjectionStore(sessions).find_one("totals", "a"))["seen"] == n
            assert await self.listening(pooled) == 0
        finally:
            runner.stop()
            await asyncio.wait_for(task, 20)

    async def test_a_worker_polls_and_nobody_listens(self, pooled, sessions):
        """The same for jobs."""
        jobs = SQLAlchemyBackgroundJobRepository(Import, session_factory=sessions, notify=True)
        worked = Worked()
        worker = JobWorker(jobs, worked, poll_interval=timedelta(milliseconds=30))
        task = asyncio.create_task(worker.run())
        try:
            await jobs.add(Import())
            async with asyncio.timeout(20):
                while not worked.jobs:  # noqa: ASYNC110  (handlers of jobs have no event for us)
                    await asyncio.sleep(0.01)
            assert await self.listening(pooled) == 0
        finally:
            worker.stop()
            await asyncio.wait_for(task, 20)

    async def listening(self, database):
        connection = await asyncpg.connect(database.dsn)
        try:
            return await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid() AND query LIKE 'LISTEN%'"
            )
        finally:
            await connection.close()


class TestMigrations:
    @pytest.mark.parametrize("arguments", [("upgrade", "head"), ("downgrade", "base"), ("stamp", "head")])
    async def test_are_refused_in_one_line(self, one_session, arguments):
        """Also where another client has prepared statements under the names that the driver would use."""
        assert await run_client(one_session, pooling=False) == (0, "")
        done = await asyncio.to_thread(alembic, *arguments, url=one_session, check=False)
        assert done.returncode != 0
        said = (done.stdout + done.stderr).strip().splitlines()
        assert "\n".join(line for line in said if not line.startswith("INFO")) == (
            f"FAILED: {PROXIED}, where two migrations could hold one lock: connect to the server itself. "
            "If the proxy pools by session, say so with -x allow-proxy=yes"
        )

    async def test_a_look_is_not_refused(self, one_session):
        """`check` and `current` write nothing and need no lock."""
        assert "No new upgrade operations" in (await asyncio.to_thread(alembic, "check", url=one_session)).stdout
        assert "(head)" in (await asyncio.to_thread(alembic, "current", url=one_session)).stdout

    def test_run_where_the_proxy_is_said_to_pool_by_session(self, session_pool):
        """allow-proxy=yes turns the check off; without it a session pool is refused too, as they look alike."""
        url, direct_url = session_pool
        refused = alembic("upgrade", "head", url=url, check=False)
        assert PROXIED in refused.stdout + refused.stderr
        alembic("upgrade", "head", url=url, x=("allow-proxy=yes",))
        assert "(head)" in alembic("current", url=direct_url).stdout


class TestCommands:
    async def test_say_what_they_are_behind(self, one_session):
        """With --transaction-pooling a command works beside clients that name their statements."""
        assert await run_client(one_session, pooling=False) == (0, "")
        arguments = ["--url", one_session, "status"]
        assert await asyncio.to_thread(projections, ["--transaction-pooling", *arguments]) == 0
