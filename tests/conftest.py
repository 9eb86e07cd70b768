"""What every test stands on: a real PostgreSQL, fresh databases on both kinds, and a look for leaked connections."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool

from cqrs_ddd_persistence_sqlalchemy import configure_engine
from tests.support import pgbouncer
from tests.support.databases import Database, Databases
from tests.support.engines import create_async_engine
from tests.support.postgres import Server, running_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.support.pgbouncer import Proxy

KINDS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The PostgreSQL of this run."""
    with running_server() as running:
        yield running


@pytest.fixture(scope="session")
def proxy(server: Server) -> Iterator[Proxy | None]:
    """The PgBouncer through which engines go, where TEST_POSTGRES_PROXY asks for it."""
    if not pgbouncer.is_wanted():
        yield None
        return
    with pgbouncer.running_pgbouncer(server) as running:
        yield running


@pytest.fixture(scope="session")
def databases(server: Server, proxy: Proxy | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    """Makes databases for fixtures and for tests that need more than one."""
    made = Databases(server, tmp_path_factory.mktemp("databases"), proxy)
    yield made
    made.close()


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, databases: Databases) -> Iterator[Database]:
    """A migrated database of the test's own, once on each kind."""
    with databases.fresh(request.param) as fresh:
        yield fresh


@pytest.fixture(params=KINDS)
def empty_database(request: pytest.FixtureRequest, databases: Databases) -> Iterator[Database]:
    """A database without any table, once on each kind."""
    with databases.fresh(request.param, migrated=False) as fresh:
        yield fresh


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """A configured engine on the migrated database, checked for leaks in the end."""
    # Named, as SQLAlchemy 2.0 has none for SQLite files, and so nothing to look for leaks in.
    made = configure_engine(create_async_engine(database.url, poolclass=AsyncAdaptedQueuePool))
    yield made
    await check_no_leaks(made)


@pytest.fixture
async def stock_engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """An engine as `create_async_engine` makes it, on the same database."""
    made = create_async_engine(database.url)
    yield made
    await check_no_leaks(made)


@pytest.fixture
def session_factory(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """Sessions on the configured engine."""
    return async_sessionmaker(engine, expire_on_commit=False)


async def check_no_leaks(engine: AsyncEngine) -> None:
    """Fail when a connection was not given back, or given back inside a transaction; then dispose of the engine."""
    pool = engine.sync_engine.pool
    # A task that was cancelled leaves the closing of its connection to another one, shielded, which may not have ended.
    give_up = time.monotonic() + 5
    while (checked_out := pool.checkedout() if isinstance(pool, QueuePool) else 0) and time.monotonic() < give_up:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    open_transactions = 0
    if engine.dialect.name == "postgresql":
        async with engine.connect() as connection:
            open_transactions = await connection.scalar(
                sa.text(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%'"
                )
            )
    await engine.dispose()
    assert checked_out == 0, f"{checked_out} connections were not given back to the pool"
    assert open_transactions == 0, f"{open_transactions} transactions were left open"
