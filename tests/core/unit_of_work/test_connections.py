"""When a connection is taken and given back, and what happens when it is lost."""
# ruff: noqa: PT012  (what must fail is the end of a block)

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.pool import AsyncAdaptedQueuePool

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork, configure_engine
from cqrs_ddd_persistence_sqlalchemy.exceptions import UnitOfWorkError
from tests.core.contention import a_conflict
from tests.core.notes import note, notes
from tests.support.engines import checked_out
from tests.support.events import an_event
from tests.support.kinds import ONLY_POSTGRESQL


@pytest.fixture
def one_connection(database, make_engine):
    """An engine that has one connection and does not wait long for a second."""
    return configure_engine(
        make_engine(database.url, poolclass=AsyncAdaptedQueuePool, pool_size=1, max_overflow=0, pool_timeout=0.5)
    )


class TestConnections:
    async def test_a_connection_is_taken_late_and_given_back_early(self, engine, session_factory):
        """No connection is out before the first statement, nor after commit, rollback or the end."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            _ = uow.session
            assert checked_out(engine) == 0
            await uow.session.execute(note("a"))
            assert checked_out(engine) == 1
            await uow.commit()
            assert checked_out(engine) == 0
            await uow.session.execute(note("b"))
            await uow.rollback()
            assert checked_out(engine) == 0
            await uow.session.execute(note("c"))
        assert checked_out(engine) == 0

    async def test_no_connection_is_out_after_an_exception(self, engine, session_factory):
        """An exception gives the connection back."""
        with pytest.raises(LookupError, match="mine"):
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await uow.session.execute(note("a"))
                raise LookupError("mine")
        assert checked_out(engine) == 0

    async def test_a_block_without_statements_takes_no_connection(self, empty_database, make_engine):
        """A unit of work that does nothing never connects."""
        engine = make_engine(empty_database.url)
        connects = []
        sa.event.listen(engine.sync_engine, "connect", lambda *_: connects.append(1))
        async with SQLAlchemyUnitOfWork(async_sessionmaker(engine)) as uow:
            await uow.commit()
            await uow.rollback()
        assert connects == []

    async def test_a_pool_of_one_is_enough(self, one_connection):
        """Stores that join an open unit of work never need a second connection."""
        factory = async_sessionmaker(one_connection)
        store = SQLAlchemyEventStore(factory)
        async with SQLAlchemyUnitOfWork(factory) as uow:
            await uow.session.execute(note("a"))
            await store.append([an_event(), an_event()], uow=uow)
            await store.append([an_event()], expected_version=2, uow=uow)
            await store.get_events("order-1", uow=uow)
            assert [event.version async for event in store.stream_after(0, page_size=1, uow=uow)] == [1, 2, 3]
            assert await store.last_position(uow=uow) == 3
            await a_conflict(uow)
            await uow.commit()
        assert len(await store.get_events("order-1")) == 3

    async def test_callbacks_find_the_connection_given_back(self, one_connection):
        """A callback may use the pool's only connection, after commit() as after the end of the block."""
        factory = async_sessionmaker(one_connection)
        store = SQLAlchemyEventStore(factory)
        found = []

        async def look():
            found.append(await store.last_position())

        async with SQLAlchemyUnitOfWork(factory) as uow:
            await store.append([an_event()], uow=uow)
            uow.on_commit(look)
            await uow.commit()
            await store.append([an_event()], uow=uow)
            uow.on_commit(look)
        assert found == [1, 2]


class TestLostConnections:
    @ONLY_POSTGRESQL
    @pytest.mark.parametrize("swallowed", [True, False])
    async def test_store_nothing_and_harm_nobody_else(self, engine, session_factory, swallowed):
        """When the server ends the connection the block raises, and the next one has another connection."""
        store = SQLAlchemyEventStore(session_factory)
        # What the driver says depends on how far it has got with the server's goodbye.
        expected = pytest.raises(UnitOfWorkError, match="cannot commit") if swallowed else pytest.raises(DBAPIError)
        with expected:
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await uow.session.execute(note("a"))
                pid = await uow.session.scalar(sa.text("SELECT pg_backend_pid()"))
                async with engine.connect() as connection:
                    await connection.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
                if swallowed:
                    with pytest.raises(DBAPIError):
                        await store.append([an_event()], uow=uow)
                else:
                    await store.append([an_event()], uow=uow)
        assert checked_out(engine) == 0
        assert await notes(engine) == []
        assert len(await store.append([an_event()])) == 1
