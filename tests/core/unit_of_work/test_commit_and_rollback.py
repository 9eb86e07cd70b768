"""What the end of a block, commit() and rollback() keep, and what a commit that the database refuses leaves."""
# ruff: noqa: PT012  (what must fail is the end of a block)

from __future__ import annotations

import gc

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.core import undoing
from cqrs_ddd_persistence_sqlalchemy.core.dialect import DIALECTS
from tests.core.notes import Note, note, notes
from tests.support.engines import checked_out
from tests.support.events import an_event


class TestCommitAndRollback:
    async def test_a_clean_exit_commits(self, engine, session_factory):
        """Leaving the block normally commits what was written."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            assert await notes(engine) == []
        assert await notes(engine) == ["a"]

    async def test_a_clean_exit_flushes_orm_objects(self, engine, session_factory):
        """Leaving the block normally stores objects that are pending in the session."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            uow.session.add(Note(projection_name="a", position=1))
        assert await notes(engine) == ["a"]

    async def test_an_exception_rolls_back_and_propagates(self, engine, session_factory):
        """An exception leaves nothing behind and reaches the caller as it was raised."""
        raised = LookupError("mine")
        with pytest.raises(LookupError, match="mine") as caught:
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await uow.session.execute(note("a"))
                raise raised
        assert caught.value is raised
        assert await notes(engine) == []

    async def test_several_commits_and_rollbacks_in_one_block(self, engine, session_factory):
        """Each commit() keeps and each rollback() discards what came since the one before."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.commit()
            await uow.session.execute(note("kept-1"))
            await uow.commit()
            await uow.session.execute(note("lost-1"))
            await uow.rollback()
            await uow.rollback()
            await uow.session.execute(note("kept-2"))
            await uow.commit()
            assert await notes(engine) == ["kept-1", "kept-2"]
            await uow.session.execute(note("kept-3"))
        assert await notes(engine) == ["kept-1", "kept-2", "kept-3"]

    async def test_an_exception_after_a_commit_keeps_what_was_committed(self, engine, session_factory):
        """An exception takes back what came after the last commit() only."""
        with pytest.raises(LookupError, match="mine"):
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await uow.session.execute(note("kept"))
                await uow.commit()
                await uow.session.execute(note("lost"))
                raise LookupError("mine")
        assert await notes(engine) == ["kept"]

    async def test_stores_and_the_session_share_one_transaction(self, engine, session_factory):
        """What stores and the session wrote goes together, and each sees the other's rows before the commit."""
        store = SQLAlchemyEventStore(session_factory)
        with pytest.raises(LookupError, match="mine"):
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await uow.session.execute(note("a"))
                await store.append([an_event()], uow=uow)
                assert await uow.session.scalar(sa.text("SELECT count(*) FROM events")) == 1
                assert len(await store.get_events("order-1", uow=uow)) == 1
                raise LookupError("mine")
        assert await notes(engine) == []
        assert await store.get_events("order-1") == []

    async def test_objects_stay_readable_after_the_block_as_the_factory_says(self, engine):
        """A session factory with SQLAlchemy's defaults works; what it loaded expires with the commit."""
        async with SQLAlchemyUnitOfWork(async_sessionmaker(engine)) as uow:
            uow.session.add(Note(projection_name="a", position=1))
            await uow.commit()
            stored = (await uow.session.scalars(sa.select(Note))).one()
            assert stored.position == 1
            await SQLAlchemyEventStore().append([an_event()], uow=uow)
        assert await notes(engine) == ["a"]
        assert len(await SQLAlchemyEventStore(async_sessionmaker(engine)).get_events("order-1")) == 1


class TestFailedCommits:
    @pytest.fixture
    async def deferred(self, engine):
        """A constraint that only the commit checks."""
        async with engine.begin() as connection:
            await connection.execute(sa.text("CREATE TABLE parents (id INTEGER PRIMARY KEY)"))
            await connection.execute(
                sa.text(
                    "CREATE TABLE children "
                    "(parent_id INTEGER NOT NULL REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)"
                )
            )
        return sa.text("INSERT INTO children VALUES (1)")

    async def test_a_commit_that_fails_at_the_end_stores_nothing(self, engine, session_factory, deferred):
        """The database's refusal to commit reaches the caller, and the connection comes back clean."""
        called = []
        with pytest.raises(IntegrityError):
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await uow.session.execute(note("a"))
                await uow.session.execute(deferred)
                uow.on_commit(lambda: called.append(1))
        assert called == []
        assert checked_out(engine) == 0
        assert await notes(engine) == []

    async def test_callbacks_of_a_failed_commit_are_forgotten(self, engine, session_factory, deferred):
        """A callback belongs to the transaction that failed, not to the next one of the block."""
        called = []
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(deferred)
            uow.on_commit(lambda: called.append("failed"))
            with pytest.raises(IntegrityError):
                await uow.commit()
            await uow.rollback()
            await uow.session.execute(note("a"))
            uow.on_commit(lambda: called.append("a"))
        assert called == ["a"]
        assert await notes(engine) == ["a"]

    async def test_a_failed_commit_leaves_the_block_usable(self, engine, session_factory, deferred):
        """After a commit() that the database refused the next transaction begins by itself, without the lost rows."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("lost"))
            await uow.session.execute(deferred)
            with pytest.raises(IntegrityError):
                await uow.commit()
            assert checked_out(engine) == 0
            await uow.session.execute(note("a"))
            await uow.commit()
        assert await notes(engine) == ["a"]

    async def test_a_failed_commit_leaves_nothing_for_the_next_block(self, engine, session_factory, deferred):
        """Callbacks of a block whose end failed are not called by the next block of the same unit of work."""
        called = []
        uow = SQLAlchemyUnitOfWork(session_factory)
        with pytest.raises(IntegrityError):
            async with uow:
                await uow.session.execute(deferred)
                uow.on_commit(lambda: called.append("failed"))
        async with uow:
            await uow.session.execute(note("a"))
        assert called == []
        assert await notes(engine) == ["a"]

    async def test_a_given_session_is_clean_after_a_failed_commit(self, engine, session_factory, deferred):
        """The caller's session holds no connection after the end of the block failed."""
        async with session_factory() as session:
            with pytest.raises(IntegrityError):
                async with SQLAlchemyUnitOfWork(session=session) as uow:
                    await uow.session.execute(deferred)
            assert checked_out(engine) == 0


async def test_committed_transactions_are_forgotten(session_factory):
    """Nothing that was remembered of a transaction stays in memory after its end."""
    store = SQLAlchemyEventStore()
    for _ in range(20):
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await store.append([an_event()], uow=uow)
            connection = await uow.session.connection()
            undoing.on_rollback(connection, lambda: None)
        del connection, uow
    gc.collect()
    assert len(undoing._undos) <= 1
    assert len(DIALECTS["postgresql"]._holding) <= 1
