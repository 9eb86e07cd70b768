"""Stores of a table that another process migrates."""

from __future__ import annotations

import pytest
from sqlalchemy.pool import AsyncAdaptedQueuePool

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionPositionStore, SQLAlchemyProjectionStore
from tests.advanced.projections.migrated.accounts import creation, run_elsewhere, schema_of, seed
from tests.support.engines import configured_engine, create_async_engine


@pytest.fixture
async def made(database):
    """The table, made elsewhere."""
    engine = create_async_engine(database.url)
    await run_elsewhere(database, *creation(engine, schema_of()))
    await engine.dispose()


@pytest.fixture
async def engine(database):
    """An engine whose pool keeps ten connections."""
    async with configured_engine(database.url, pool_size=10, poolclass=AsyncAdaptedQueuePool) as made:
        yield made


@pytest.fixture(params=["types from the database", "types from schemas"])
def store(request, session_factory, made):
    """A store that knows its columns in either way."""
    return SQLAlchemyProjectionStore(session_factory, schemas=() if "database" in request.param else (schema_of(),))


@pytest.fixture(params=["own", "joined"])
async def uow(request, session_factory):
    """No unit of work, or one in which something was done before."""
    if request.param == "own":
        yield None
        return
    async with SQLAlchemyUnitOfWork(session_factory) as unit:
        if "sqlite" not in str(session_factory.kw["bind"].url):  # there nobody else could migrate meanwhile
            await SQLAlchemyProjectionPositionStore(session_factory).save_position("other", 1, uow=unit)
        yield unit


@pytest.fixture
async def reader(session_factory, made):
    """A store that has read the types from the database, before the migration."""
    store = SQLAlchemyProjectionStore(session_factory)
    await seed(store)
    return store
