"""Engines other than the suite's own, and how many of an engine's connections are in use."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager

from cqrs_ddd_persistence_sqlalchemy import configure_engine
from tests.conftest import check_no_leaks
from tests.support.engines import create_async_engine


@asynccontextmanager
async def engine_maker():
    """Give a function that makes engines; they are checked for leaks and disposed of when the block ends, anyhow."""
    async with AsyncExitStack() as stack:

        def make(url, **options):
            engine = create_async_engine(url, **options)
            stack.push_async_callback(check_no_leaks, engine)
            return engine

        yield make


@asynccontextmanager
async def a_configured_engine(url, **options):
    """Give one such engine with the recommended settings."""
    async with engine_maker() as make:
        yield configure_engine(make(url, **options))


def checked_out(engine):
    """Count the connections that are out of the pool."""
    return engine.sync_engine.pool.checkedout()
