"""A conflict that the block swallows, propagates or answers, and the warning of writes that are discarded."""
# ruff: noqa: PT012  (what must fail is the end of a block)

from __future__ import annotations

import logging

import pytest
import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError
from tests.core.contention import a_conflict
from tests.core.notes import NOTES, Note, note, notes
from tests.support.engines import checked_out
from tests.support.events import an_event


class TestConflicts:
    async def test_a_swallowed_conflict_rolls_back_at_the_end(self, engine, session_factory, caplog):
        """After a conflict the end of the block rolls back, and a warning says that writes are discarded."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            await a_conflict(uow)
        assert await notes(engine) == []
        assert checked_out(engine) == 0
        [record] = caplog.records
        assert record.levelno == logging.WARNING
        assert 'its writes are discarded, because of: stream "nobody\'s"' in record.getMessage()
        assert "Call commit()" in record.getMessage()

    async def test_writes_after_the_conflict_are_discarded_with_a_warning(self, engine, session_factory, caplog):
        """What is written after an unanswered conflict is discarded too."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await a_conflict(uow)
            await uow.session.execute(note("a"))
        assert await notes(engine) == []
        assert "its writes are discarded" in caplog.text

    @pytest.mark.parametrize("how", ["store", "pending", "flushed", "autoflushed", "session", "connection"])
    async def test_every_kind_of_discarded_write_is_warned_of(self, engine, session_factory, caplog, how):
        """The warning appears whichever way the discarded rows were written."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            match how:
                case "store":
                    await SQLAlchemyEventStore().append([an_event()], uow=uow)
                case "session":
                    await uow.session.execute(note("a"))
                case "connection":
                    await (await uow.session.connection()).execute(note("a"))
                case _:
                    uow.session.add(Note(projection_name="a", position=1))
            if how == "flushed":
                await uow.session.flush()
            elif how == "autoflushed":
                assert len((await uow.session.scalars(sa.select(Note))).all()) == 1
            await a_conflict(uow)
        assert await notes(engine) == []
        assert caplog.text.count("its writes are discarded") == 1

    async def test_no_warning_where_nothing_is_discarded(self, engine, session_factory, caplog):
        """A block that only read, or had committed already, ends silently after a conflict."""
        store = SQLAlchemyEventStore(session_factory)
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            await store.append([an_event()], uow=uow)
            await uow.commit()
            await uow.session.execute(sa.select(NOTES))
            await store.get_events("order-1", uow=uow)
            await store.last_position(uow=uow)
            await store.append([], uow=uow)
            await a_conflict(uow)
        assert caplog.records == []
        assert await notes(engine) == ["a"]

    async def test_an_explicit_commit_keeps_what_is_left(self, engine, session_factory, caplog):
        """commit() after a conflict commits the rest knowingly, and the block ends normally."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            await a_conflict(uow)
            await uow.session.execute(note("b"))
            await uow.commit()
            await uow.session.execute(note("c"))
        assert await notes(engine) == ["a", "b", "c"]
        assert caplog.records == []

    async def test_a_rollback_starts_afresh(self, engine, session_factory, caplog):
        """rollback() after a conflict discards silently, and what follows is committed by the end of the block."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("lost"))
            await a_conflict(uow)
            await uow.rollback()
            await uow.session.execute(note("kept"))
        assert await notes(engine) == ["kept"]
        assert caplog.records == []

    async def test_a_conflict_that_propagates_rolls_back_without_a_warning(self, engine, session_factory, caplog):
        """Nobody needs to be warned of a conflict that the caller is told of."""
        with pytest.raises(OptimisticConcurrencyError, match="nobody's"):
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await uow.session.execute(note("a"))
                await SQLAlchemyEventStore().append([an_event("nobody's")], expected_version=5, uow=uow)
        assert await notes(engine) == []
        assert caplog.records == []

    async def test_the_caller_may_retry_after_rollback(self, session_factory):
        """The specification's loop works: conflict, rollback(), reload, append again, all in one block."""
        store = SQLAlchemyEventStore(session_factory)
        await store.append([an_event()])
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            expected = 0
            for _ in range(2):
                try:
                    await store.append([an_event()], expected_version=expected, uow=uow)
                except OptimisticConcurrencyError as conflict:
                    await uow.rollback()
                    expected = conflict.actual
        assert [event.version for event in await store.get_events("order-1")] == [1, 2]
