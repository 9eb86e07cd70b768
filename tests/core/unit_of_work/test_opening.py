"""What a unit of work is made of, when it is open, and what it does while it is not."""
# ruff: noqa: PT012  (what must fail is the end of a block)

from __future__ import annotations

import asyncio

import pytest

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.exceptions import UnitOfWorkError
from tests.core.contention import a_conflict
from tests.core.notes import note, notes
from tests.support.events import an_event


class TestOpening:
    def test_needs_a_factory_or_a_session(self):
        """Without anything to make sessions with, construction fails and says what to pass."""
        with pytest.raises(UnitOfWorkError, match=r"pass either a session_factory, .* or session="):
            SQLAlchemyUnitOfWork()

    async def test_refuses_both_a_factory_and_a_session(self, session_factory):
        """A factory and a session contradict each other."""
        async with session_factory() as session:
            with pytest.raises(UnitOfWorkError, match="pass either a session_factory"):
                SQLAlchemyUnitOfWork(session_factory, session=session)

    async def test_cannot_be_entered_twice(self, engine, session_factory):
        """A nested `async with` of the same unit of work is refused, and the outer block goes on."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            with pytest.raises(UnitOfWorkError, match="open already: make another one"):
                async with uow:
                    pass
            assert uow.is_open
            await uow.session.execute(note("b"))
        assert await notes(engine) == ["a", "b"]

    async def test_can_be_entered_again_after_its_end(self, engine, session_factory):
        """A unit of work that was left, either way, starts afresh when it is entered again."""
        uow = SQLAlchemyUnitOfWork(session_factory)
        async with uow:
            await uow.session.execute(note("a"))
        with pytest.raises(LookupError, match="mine"):
            async with uow:
                await uow.session.execute(note("lost"))
                raise LookupError("mine")
        async with uow:
            await a_conflict(uow)
        async with uow:
            await uow.session.execute(note("b"))
        assert await notes(engine) == ["a", "b"]

    async def test_has_a_session_only_inside_its_block(self, session_factory):
        """The session of an idle unit of work does not exist, before the block as after it."""
        uow = SQLAlchemyUnitOfWork(session_factory)
        with pytest.raises(UnitOfWorkError, match="is not open: use its session inside"):
            _ = uow.session
        async with uow:
            assert uow.session is uow.session
        with pytest.raises(UnitOfWorkError, match="is not open: use its session inside"):
            _ = uow.session

    async def test_commit_and_rollback_do_nothing_when_idle(self, engine, session_factory):
        """commit() and rollback() outside the block do nothing and take no connection."""
        uow = SQLAlchemyUnitOfWork(session_factory)
        await uow.commit()
        await uow.rollback()
        async with uow:
            await uow.session.execute(note("a"))
        await uow.rollback()
        await uow.commit()
        assert await notes(engine) == ["a"]

    async def test_can_be_made_outside_of_an_event_loop(self, engine, session_factory):
        """A unit of work may be made where no event loop runs, as a module's global."""
        uow = await asyncio.to_thread(SQLAlchemyUnitOfWork, session_factory)
        async with uow:
            await uow.session.execute(note("a"))
        assert await notes(engine) == ["a"]


async def test_a_session_whose_notes_are_cleared_is_closed_all_the_same(session_factory, engine):
    """What an application does with `session.info` is its own affair."""
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await SQLAlchemyEventStore().append([an_event("a")], uow=uow)
        uow.session.sync_session.info.clear()
    assert len(await SQLAlchemyEventStore(session_factory).get_events("a")) == 1
    assert engine.pool.checkedout() == 0
