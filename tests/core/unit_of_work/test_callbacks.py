"""on_commit(): when callbacks run, when they are forgotten, and what they may do."""
# ruff: noqa: PT012  (what must fail is the end of a block)

from __future__ import annotations

import logging

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.exceptions import UnitOfWorkError
from tests.core.contention import a_conflict
from tests.core.notes import note, notes


class TestCallbacks:
    async def test_are_called_in_order_after_the_commit(self, engine, session_factory):
        """Plain and async callbacks run in the order of their registration, when the data is visible to others."""
        seen = []

        async def later():
            seen.append(("async", await notes(engine)))

        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            uow.on_commit(lambda: seen.append("plain"))
            uow.on_commit(later)
            uow.on_commit(lambda: later())  # noqa: PLW0108  (a plain one that returns an awaitable)
            uow.on_commit(lambda: seen.append("last"))
            assert seen == []
        assert seen == ["plain", ("async", ["a"]), ("async", ["a"]), "last"]

    async def test_are_called_once(self, session_factory):
        """A callback belongs to one commit."""
        seen = []
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            uow.on_commit(lambda: seen.append(1))
            await uow.commit()
            assert seen == [1]
            await uow.commit()
        assert seen == [1]

    async def test_are_forgotten_by_a_rollback(self, session_factory):
        """rollback(), an exception and an unanswered conflict all forget the callbacks."""
        seen = []
        uow = SQLAlchemyUnitOfWork(session_factory)
        async with uow:
            uow.on_commit(lambda: seen.append("rollback"))
            await uow.rollback()
        with pytest.raises(LookupError, match="mine"):
            async with uow:
                uow.on_commit(lambda: seen.append("exception"))
                raise LookupError("mine")
        async with uow:
            uow.on_commit(lambda: seen.append("conflict"))
            await a_conflict(uow)
        async with uow:
            pass
        assert seen == []

    async def test_are_forgotten_by_a_refused_commit(self, session_factory):
        """A commit() refused because of a database error calls nobody, nor does the next one."""
        seen = []
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            uow.on_commit(lambda: seen.append(1))
            with pytest.raises(DBAPIError):
                await uow.session.execute(sa.text("SELECT nonsense"))
            with pytest.raises(UnitOfWorkError, match="cannot commit"):
                await uow.commit()
            await uow.commit()
        assert seen == []

    async def test_a_failing_one_is_logged_and_the_others_run(self, engine, session_factory, caplog):
        """An error in a callback, plain or async, is logged and harms neither the caller nor the other callbacks."""
        seen = []

        def broken():
            raise LookupError("plain one broke")

        async def broken_later():
            raise LookupError("async one broke")

        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            uow.on_commit(broken)
            uow.on_commit(broken_later)
            uow.on_commit(lambda: seen.append("ran"))
        assert seen == ["ran"]
        assert await notes(engine) == ["a"]
        assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.ERROR]
        assert "plain one broke" in caplog.text
        assert "async one broke" in caplog.text

    async def test_may_use_the_unit_of_work_that_is_open_still(self, engine, session_factory):
        """A callback of commit() inside the block may write and register the next callback."""
        seen = []

        async def go_on():
            await uow.session.execute(note("b"))
            uow.on_commit(lambda: seen.append("second"))

        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            uow.on_commit(go_on)
            await uow.commit()
            assert seen == []
        assert seen == ["second"]
        assert await notes(engine) == ["a", "b"]

    async def test_may_open_the_unit_of_work_again_after_its_end(self, engine, session_factory):
        """A callback of the end of the block finds the unit of work idle and may enter it."""

        async def again():
            async with uow:
                await uow.session.execute(note("b"))

        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            uow.on_commit(again)
        assert await notes(engine) == ["a", "b"]

    async def test_cannot_be_registered_when_idle(self, session_factory):
        """Outside the block nothing would ever call back, so registering is refused."""
        uow = SQLAlchemyUnitOfWork(session_factory)
        with pytest.raises(UnitOfWorkError, match="is not open: register callbacks inside"):
            uow.on_commit(print)


async def test_what_cannot_be_called_is_refused(session_factory):
    """As it is registered, and not after the commit: what a function returns is no callback."""

    async def later():
        """Do nothing."""

    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        made = later()
        with pytest.raises(UnitOfWorkError, match="takes a function"):
            uow.on_commit(made)
        await made
