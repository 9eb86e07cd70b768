"""Engines as the tests make them: through the proxy, where this run has one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy.ext.asyncio
from sqlalchemy.engine import make_url

from cqrs_ddd_persistence_sqlalchemy import configure_engine
from tests.support import pgbouncer

if TYPE_CHECKING:
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
