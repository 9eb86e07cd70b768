"""Transactions of other isolation levels than READ COMMITTED."""
# ruff: noqa: PT012  (what must fail is the end of a block)

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.exceptions import PersistenceError
from tests.support.engines import configured_engine
from tests.support.events import an_event, everything
from tests.support.kinds import ONLY_POSTGRESQL


class TestIsolation:
    @ONLY_POSTGRESQL
    @pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
    @pytest.mark.parametrize("how", ["engine", "option"])
    async def test_reading_by_position_needs_read_committed(self, database, level, how):
        """Under another isolation level, which would lose events silently, reads by position are refused."""
        options = {"isolation_level": level} if how == "engine" else {"execution_options": {"isolation_level": level}}
        async with configured_engine(database.url, **options) as engine:
            store = SQLAlchemyEventStore(async_sessionmaker(engine))
            await store.append([an_event()])
            assert len(await store.get_events("order-1")) == 1
            message = f"needs READ COMMITTED, this transaction is {level}: use a unit of work of its own"
            with pytest.raises(PersistenceError, match=message):
                await store.get_events_after(0)
            with pytest.raises(PersistenceError, match=message):
                await store.last_position()
            with pytest.raises(PersistenceError, match=message):
                await everything(store)
            async with SQLAlchemyUnitOfWork(async_sessionmaker(engine)) as uow:
                with pytest.raises(PersistenceError, match=message):
                    await store.get_events_after(0, uow=uow)
                await store.append([an_event()], uow=uow)
            assert len(await store.get_events("order-1")) == 2

    @ONLY_POSTGRESQL
    async def test_an_append_on_an_old_snapshot_fails_instead_of_trying_forever(self, database, store):
        """Under REPEATABLE READ an append that cannot see the stream's end is refused by the database."""
        async with configured_engine(database.url, isolation_level="REPEATABLE READ") as engine:
            async with asyncio.timeout(10):
                with pytest.raises(DBAPIError, match="could not serialize access"):
                    async with SQLAlchemyUnitOfWork(async_sessionmaker(engine)) as uow:
                        assert await store.get_events("order-1", uow=uow) == []
                        await store.append([an_event()])
                        await store.append([an_event()], uow=uow)
        assert len(await store.get_events("order-1")) == 1
