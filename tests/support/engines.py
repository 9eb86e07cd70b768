"""Engines as the tests make them, through the proxy where this run has one; and a look for connections that leak."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
import sqlalchemy.ext.asyncio
from sqlalchemy.engine import make_url
from sqlalchemy.pool import QueuePool

from cqrs_ddd_persistence_sqlalchemy import configure_engine
from tests.support import pgbouncer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncEngine


def create_async_engine(url: str | URL, **options: Any) -> AsyncEngine:
    """Make an engine as SQLAlchemy does, with what the proxy asks for where this run goes through one.

    Programs that tests start may use it too.
    """
    engine = sqlalchemy.ext.asyncio.create_async_engine(url, **options)
    if pgbouncer.is_wanted() and make_url(url).get_backend_name() == "postgresql":
        configure_engine(engine, transaction_pooling=True)
    return engine


@asynccontextmanager
async def engine_maker() -> AsyncIterator[Callable[..., AsyncEngine]]:
    """Give a function that makes engines; they are checked for leaks and disposed of when the block ends, anyhow."""
    async with AsyncExitStack() as stack:

        def make(url: str | URL, **options: Any) -> AsyncEngine:
            engine = create_async_engine(url, **options)
            stack.push_async_callback(check_no_leaks, engine)
            return engine

        yield make


@asynccontextmanager
async def configured_engine(url: str | URL, **options: Any) -> AsyncIterator[AsyncEngine]:
    """Give one such engine with the recommended settings."""
    async with engine_maker() as make:
        yield configure_engine(make(url, **options))


def checked_out(engine: AsyncEngine) -> int:
    """Count the connections that are out of the pool."""
    return engine.sync_engine.pool.checkedout()


async def check_no_leaks(engine: AsyncEngine) -> None:
    """Fail when a connection was not given back, or given back inside a transaction; then dispose of the engine."""
    pool = engine.sync_engine.pool
    # A task that was cancelled leaves the closing of its connection to another one, shielded, which may not have ended.
    give_up = time.monotonic() + 5
    while (out := checked_out(engine) if isinstance(pool, QueuePool) else 0) and time.monotonic() < give_up:  # noqa: ASYNC110
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
    assert out == 0, f"{out} connections were not given back to the pool"
    assert open_transactions == 0, f"{open_transactions} transactions were left open"
