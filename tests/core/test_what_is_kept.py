"""What stores keep for an engine goes with it, once it is disposed of and forgotten."""

from __future__ import annotations

import gc
import weakref

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_advanced_core.background_jobs.entity import BaseBackgroundJob
from cqrs_ddd_advanced_core.projections import ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork, configure_engine
from cqrs_ddd_persistence_sqlalchemy.advanced import (
    SQLAlchemyBackgroundJobRepository,
    SQLAlchemyProjectionPositionStore,
    SQLAlchemyProjectionStore,
)
from tests.support.engines import create_async_engine
from tests.support.events import an_event

DOCS = ProjectionSchema("docs", [("id", "INTEGER PRIMARY KEY"), ("at", "TIMESTAMP"), ("what", "JSON")])


class Job(BaseBackgroundJob):
    pass


async def save_a_position(factory):
    await SQLAlchemyProjectionPositionStore(factory).save_position("p", 1)


async def append_some(factory):
    store = SQLAlchemyEventStore(factory)
    async with SQLAlchemyUnitOfWork(factory) as uow:
        await store.append([an_event()], uow=uow)
    await store.append([an_event() for _ in range(200)])
    assert len(await store.get_events_after(0)) == 201


async def upsert_many(factory):
    store = SQLAlchemyProjectionStore(factory, schemas=[DOCS])
    for count in (3, 30, 3000):
        await store.bulk_upsert("docs", [{"id": number, "at": None, "what": {}} for number in range(count)])
    assert len(await store.find_many("docs", [1, 2, 3])) == 3


async def enqueue_some(factory):
    jobs = SQLAlchemyBackgroundJobRepository(Job, session_factory=factory)
    await jobs.enqueue_many([Job()])
    await jobs.enqueue_many([Job() for _ in range(10)])


@pytest.mark.parametrize("work", [save_a_position, append_some, upsert_many, enqueue_some])
async def test_goes_with_its_engine(database, session_factory, work):
    """Neither compiled statements nor the dialect that they were compiled for stay behind."""
    # On another engine, as SQLAlchemy keeps those that have looked at tables.
    await SQLAlchemyProjectionStore(session_factory, allow_auto_ddl=True).ensure_collection("docs", schema=DOCS)
    engine = configure_engine(create_async_engine(database.url))
    await work(async_sessionmaker(engine))
    await engine.dispose()
    dialect = weakref.ref(engine.sync_engine.dialect)
    del engine
    gc.collect()
    assert dialect() is None
