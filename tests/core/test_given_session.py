"""`session=`: a unit of work on a session of the caller's, entered and idle."""
# ruff: noqa: PT012  (what must fail is the end of a block)

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError, UnitOfWorkError
from tests.core.notes import NOTES, Note, note, notes
from tests.support.engines import checked_out
from tests.support.events import an_event, versions


class TestGivenSession:
    async def test_is_committed_by_the_block_and_not_closed(self, engine, session_factory):
        """`session=` commits with the block, gives its connection back and stays usable."""
        async with session_factory() as session:
            async with SQLAlchemyUnitOfWork(session=session) as uow:
                assert uow.session is session
                await SQLAlchemyEventStore().append([an_event()], uow=uow)
            assert checked_out(engine) == 0
            assert await session.scalar(sa.text("SELECT count(*) FROM events")) == 1
        assert await versions(session_factory) == [1]

    async def test_keeps_its_objects_after_the_block(self, session_factory):
        """A given session is not closed: what it held is still in it."""
        async with session_factory() as session:
            session.info["mine"] = 1
            async with SQLAlchemyUnitOfWork(session=session) as uow:
                await uow.session.execute(note("a"))
            await session.execute(note("b"))
            await session.commit()
            assert session.info["mine"] == 1

    async def test_is_rolled_back_by_an_exception(self, engine, session_factory):
        """An exception in the block rolls the given session back and gives its connection back."""
        async with session_factory() as session:
            with pytest.raises(LookupError, match="mine"):
                async with SQLAlchemyUnitOfWork(session=session) as uow:
                    await SQLAlchemyEventStore().append([an_event()], uow=uow)
                    raise LookupError("mine")
            assert checked_out(engine) == 0
        assert await versions(session_factory) == []

    async def test_idle_each_operation_commits_by_itself(self, engine, session_factory):
        """Without a transaction of the session's, operations of the idle unit of work commit before they return."""
        async with session_factory() as session:
            uow = SQLAlchemyUnitOfWork(session=session)
            await SQLAlchemyEventStore().append([an_event()], uow=uow)
            assert checked_out(engine) == 0
            assert await versions(session_factory) == [1]
            assert len(await SQLAlchemyEventStore().get_events("order-1", uow=uow)) == 1
            assert checked_out(engine) == 0

    async def test_idle_the_sessions_own_transaction_is_joined(self, engine, session_factory):
        """A transaction that the caller began on the session is the caller's to commit."""
        store = SQLAlchemyEventStore()
        async with session_factory() as session:
            uow = SQLAlchemyUnitOfWork(session=session)
            async with session.begin():
                await session.execute(note("a"))
                await store.append([an_event(), an_event()], uow=uow)
                assert len(await store.get_events("order-1", uow=uow)) == 2
                await uow.commit()
                assert await notes(engine) == []
            await session.begin()
            await store.append([an_event()], uow=uow)
            await session.rollback()
        assert await notes(engine) == ["a"]
        assert await versions(session_factory) == [1, 2]

    async def test_a_conflict_leaves_the_sessions_own_transaction_usable(self, engine, session_factory):
        """A refused append of several events leaves the caller's transaction as it was."""
        async with session_factory() as session, session.begin():
            await session.execute(note("a"))
            with pytest.raises(OptimisticConcurrencyError):
                await SQLAlchemyEventStore().append(
                    [an_event(), an_event()], expected_version=4, uow=SQLAlchemyUnitOfWork(session=session)
                )
            await session.execute(note("b"))
        assert await notes(engine) == ["a", "b"]
        assert await versions(session_factory) == []

    @pytest.mark.parametrize("entered", [False, True])
    @pytest.mark.parametrize("before", ["nothing", "begin", "read"])
    async def test_a_rollback_takes_everything_back_on_a_stock_engine(self, stock_engine, before, entered):
        """Batches, which use savepoints, do not survive the caller's rollback, however its transaction began."""
        factory = async_sessionmaker(stock_engine)
        store = SQLAlchemyEventStore()
        async with factory() as session:
            uow = SQLAlchemyUnitOfWork(session=session)
            if before == "begin":
                await session.begin()
            elif before == "read" or not entered:
                await session.execute(sa.select(NOTES))
            if entered:
                with pytest.raises(LookupError, match="mine"):
                    async with uow:
                        await store.append([an_event(), an_event()], uow=uow)
                        raise LookupError("mine")
            else:
                await store.append([an_event(), an_event()], uow=uow)
                await session.rollback()
        assert await versions(factory) == []

    async def test_an_error_in_a_transaction_the_session_had_begun_refuses_the_commit(self, engine, session_factory):
        """commit() notices database errors also where the session's transaction began before the block."""
        async with session_factory() as session:
            await session.execute(note("a"))
            with pytest.raises(UnitOfWorkError, match="cannot commit: the database refused a statement"):
                async with SQLAlchemyUnitOfWork(session=session) as uow:
                    with pytest.raises(IntegrityError):
                        await uow.session.execute(note("a"))
        assert await notes(engine) == []

    async def test_two_idle_units_of_work_on_one_session_do_not_disturb_an_open_one(self, stock_engine):
        """An operation of another, idle unit of work on the same session leaves the open one's transactions whole."""
        factory = async_sessionmaker(stock_engine)
        store = SQLAlchemyEventStore()
        async with factory() as session, SQLAlchemyUnitOfWork(session=session) as uow:
            await uow.session.execute(note("a"))
            await uow.commit()
            await store.append([an_event("b")], uow=SQLAlchemyUnitOfWork(session=session))
            await store.append([an_event("c"), an_event("c")], uow=uow)
            await uow.rollback()
        assert await versions(factory, "c") == []

    async def test_an_idle_operation_does_not_discard_the_sessions_pending_objects(self, session_factory, engine):
        """What the caller added to the session is joined, not lost, by a store's operation."""
        async with session_factory() as session:
            session.add(Note(projection_name="a", position=1))
            await SQLAlchemyEventStore().get_events("order-1", uow=SQLAlchemyUnitOfWork(session=session))
            await session.commit()
        assert await notes(engine) == ["a"]
