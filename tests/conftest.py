"""What every test stands on: a real PostgreSQL, fresh databases on both kinds, and a look for leaked connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.pool import AsyncAdaptedQueuePool

from tests.support import pgbouncer
from tests.support.databases import Database, Databases
from tests.support.engines import configured_engine, engine_maker
from tests.support.kinds import KINDS
from tests.support.postgres import Server, running_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.support.pgbouncer import Proxy


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
def postgresql(databases: Databases) -> Iterator[Database]:
    """A migrated PostgreSQL database, for what SQLite has not."""
    with databases.fresh("postgresql") as fresh:
        yield fresh


@pytest.fixture
def empty_postgresql(databases: Databases) -> Iterator[Database]:
    """A PostgreSQL database without any table, for what SQLite has not."""
    with databases.fresh("postgresql", migrated=False) as fresh:
        yield fresh


@pytest.fixture
def sqlite(databases: Databases) -> Iterator[Database]:
    """A migrated SQLite database, for what PostgreSQL does otherwise."""
    with databases.fresh("sqlite") as fresh:
        yield fresh


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """A configured engine on the migrated database, checked for leaks in the end."""
    # Named, as SQLAlchemy 2.0 has none for SQLite files, and so nothing to look for leaks in.
    async with configured_engine(database.url, poolclass=AsyncAdaptedQueuePool) as made:
        yield made


@pytest.fixture
async def stock_engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """An engine as `create_async_engine` makes it, on the same database."""
    async with engine_maker() as make:
        yield make(database.url)


@pytest.fixture
async def make_engine() -> AsyncIterator[Callable[..., AsyncEngine]]:
    """Makes engines without any settings; they are checked for leaks, and disposed of however the test ends."""
    async with engine_maker() as make:
        yield make


@pytest.fixture
def session_factory(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """Sessions on the configured engine."""
    return async_sessionmaker(engine, expire_on_commit=False)
