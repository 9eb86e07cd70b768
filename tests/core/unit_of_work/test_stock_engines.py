"""Engines without the recommended settings: transactions are whole all the same, and AUTOCOMMIT is refused."""
# ruff: noqa: PT012, ARG002  (what must fail is the end of a block; fixtures are asked for their effect)

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.exceptions import UnitOfWorkError
from tests.core.notes import NOTES, note, notes
from tests.support.events import an_event


class TestStockEngines:
    async def test_a_savepoint_before_any_write_does_not_survive_a_rollback(self, stock_engine):
        """On an engine without any settings a released savepoint is rolled back with its transaction."""
        factory = async_sessionmaker(stock_engine)
        async with SQLAlchemyUnitOfWork(factory) as uow:
            async with uow.session.begin_nested():
                await uow.session.execute(note("a"))
            await uow.rollback()
            await SQLAlchemyEventStore().append([an_event(), an_event()], uow=uow)
            await uow.rollback()
        with pytest.raises(LookupError, match="mine"):
            async with SQLAlchemyUnitOfWork(factory) as uow:
                async with uow.session.begin_nested():
                    await uow.session.execute(note("b"))
                raise LookupError("mine")
        assert await notes(stock_engine) == []
        assert await SQLAlchemyEventStore(factory).last_position() == 0

    async def test_a_read_before_the_first_write_does_not_spoil_it(self, stock_engine):
        """Units of work that read first and write later wait for each other instead of failing."""
        factory = async_sessionmaker(stock_engine)

        async def count_up():
            async with SQLAlchemyUnitOfWork(factory) as uow:
                known = len((await uow.session.scalars(sa.select(NOTES.c.projection_name))).all())
                await uow.session.execute(note(f"{known}-{id(uow)}"))

        await asyncio.gather(*(count_up() for _ in range(4)))
        assert len(await notes(stock_engine)) == 4

    async def test_ddl_is_part_of_the_transaction(self, stock_engine):
        """A table created in a unit of work that rolls back is gone."""
        async with SQLAlchemyUnitOfWork(async_sessionmaker(stock_engine)) as uow:
            await uow.session.execute(sa.text("CREATE TABLE passing (id INTEGER)"))
            await uow.rollback()
            connection = await uow.session.connection()
            assert not await connection.run_sync(lambda sync: sa.inspect(sync).has_table("passing"))

    async def test_a_read_of_its_own_does_not_wait_for_an_open_unit_of_work(self, stock_engine, database, make_engine):
        """Reading while another unit of work holds the write lock works at once and sees what is committed."""
        store = SQLAlchemyEventStore(async_sessionmaker(stock_engine))
        await store.append([an_event()])
        impatient = make_engine(database.url, connect_args={"timeout": 0} if database.kind == "sqlite" else {})
        reader = SQLAlchemyEventStore(async_sessionmaker(impatient))
        async with SQLAlchemyUnitOfWork(async_sessionmaker(stock_engine)) as uow:
            await store.append([an_event()], uow=uow)
            assert len(await reader.get_events("order-1")) == 1
            assert await reader.last_position() == 1
            assert len(await reader.get_events_after(0)) == 1
        assert len(await reader.get_events("order-1")) == 2

    async def test_reads_of_their_own_do_not_wait_on_a_configured_engine_either(self, engine, session_factory):
        """The recommended settings do not make readers wait for a writer."""
        store = SQLAlchemyEventStore(session_factory)
        await store.append([an_event()])
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await store.append([an_event()], uow=uow)
            async with asyncio.timeout(5):  # the busy timeout is 60 seconds
                assert len(await store.get_events("order-1")) == 1
                assert await store.last_position() == 1

    @pytest.mark.parametrize("how", ["of the engine", "as an execution option", "of one session"])
    async def test_autocommit_is_refused(self, database, how, make_engine):
        """An engine in AUTOCOMMIT mode, where nothing can be rolled back, is refused before anything is written."""
        options = {
            "of the engine": {"isolation_level": "AUTOCOMMIT"},
            "as an execution option": {"execution_options": {"isolation_level": "AUTOCOMMIT"}},
            "of one session": {},
        }[how]
        engine = make_engine(database.url, **options)
        bind = engine.execution_options(isolation_level="AUTOCOMMIT") if how == "of one session" else engine
        factory = async_sessionmaker(bind)
        with pytest.raises(UnitOfWorkError, match="AUTOCOMMIT mode, where nothing can be rolled back"):
            async with SQLAlchemyUnitOfWork(factory) as uow:
                await uow.session.execute(note("a"))
        with pytest.raises(UnitOfWorkError, match="AUTOCOMMIT mode"):
            await SQLAlchemyEventStore(factory).append([an_event()])
        async with engine.connect() as connection:
            assert (await connection.execute(sa.select(NOTES))).all() == []

    async def test_autocommit_stays_refused_after_the_error(self, database, make_engine):
        """Swallowing the refusal does not help: the next statement is refused as well."""
        engine = make_engine(database.url, execution_options={"isolation_level": "AUTOCOMMIT"})
        async with SQLAlchemyUnitOfWork(async_sessionmaker(engine)) as uow:
            with pytest.raises(UnitOfWorkError, match="AUTOCOMMIT mode"):
                await uow.session.execute(note("a"))
            with pytest.raises((UnitOfWorkError, InvalidRequestError)):
                await uow.session.execute(note("a"))
            await uow.rollback()
        async with engine.connect() as connection:
            assert (await connection.execute(sa.select(NOTES))).all() == []
