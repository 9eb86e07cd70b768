"""Others who want the same stream: one who keeps it, and one who got there first."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError
from tests.support.events import an_event


@asynccontextmanager
async def stream_in_use(session_factory, stream):
    """Keep other appends to the stream waiting, on both databases."""
    async with SQLAlchemyUnitOfWork(session_factory) as other:
        await SQLAlchemyEventStore().append([an_event(stream, event_type="Other")], uow=other)
        yield
        await other.rollback()


async def a_conflict(uow):
    """Lose a race inside the unit of work, and swallow it as the specification does."""
    with pytest.raises(OptimisticConcurrencyError):
        await SQLAlchemyEventStore().append([an_event("nobody's")], expected_version=5, uow=uow)
