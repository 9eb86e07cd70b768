"""After an error of the database nothing is committed, unless a rollback has healed it."""
# ruff: noqa: PT012  (what must fail is the end of a block)

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.exceptions import UnitOfWorkError
from tests.core.contention import stream_in_use
from tests.core.notes import Note, note, notes
from tests.support.engines import checked_out
from tests.support.kinds import ONLY_POSTGRESQL, ONLY_SQLITE


async def release_half_a_savepoint(session_factory):
    """Swallow an error inside a savepoint, and let the savepoint and the block end as if there were none."""
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await uow.session.execute(note("a"))
        async with uow.session.begin_nested():
            await uow.session.execute(note("half"))
            with pytest.raises(IntegrityError):
                await uow.session.execute(note("a"))


class TestDatabaseErrors:
    async def test_commit_after_a_swallowed_error_is_refused(self, engine, session_factory):
        """After an error of the database commit() raises and stores nothing, on both databases alike."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            with pytest.raises(IntegrityError):
                await uow.session.execute(note("a"))
            with pytest.raises(UnitOfWorkError, match="cannot commit: the database refused a statement"):
                await uow.commit()
            assert checked_out(engine) == 0
            await uow.session.execute(note("afresh"))
        assert await notes(engine) == ["afresh"]

    async def test_the_end_of_the_block_after_a_swallowed_error_is_refused(self, engine, session_factory):
        """After an error of the database the end of the block raises and stores nothing."""
        with pytest.raises(UnitOfWorkError, match=r"begin_nested\(\)"):
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await uow.session.execute(note("a"))
                with pytest.raises(IntegrityError):
                    await uow.session.execute(note("a"))
        assert await notes(engine) == []
        assert checked_out(engine) == 0

    @pytest.mark.parametrize("how", ["connection", "flush", "core connection"])
    async def test_an_error_on_any_way_to_the_database_counts(self, engine, session_factory, how):
        """Errors of flushes and of the session's connection are noticed as well."""
        with pytest.raises(UnitOfWorkError, match="cannot commit"):
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await uow.session.execute(note("a"))
                if how == "connection":
                    with pytest.raises(IntegrityError):
                        await (await uow.session.connection()).execute(note("a"))
                elif how == "flush":
                    uow.session.add(Note(projection_name="a", position=1))
                    with pytest.raises(IntegrityError):
                        await uow.session.flush()
                else:
                    connection = await uow.session.connection()
                    with pytest.raises(DBAPIError):
                        await connection.exec_driver_sql("SELECT nonsense")
        assert await notes(engine) == []

    async def test_rollback_heals_an_error(self, engine, session_factory):
        """rollback() after an error of the database starts afresh."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            with pytest.raises(IntegrityError):
                await uow.session.execute(note("a"))
            await uow.rollback()
            await uow.session.execute(note("b"))
        assert await notes(engine) == ["b"]

    async def test_a_rollback_of_the_session_heals_an_error(self, engine, session_factory):
        """Rolling back the session itself is as good as the unit of work's rollback()."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            with pytest.raises(IntegrityError):
                await uow.session.execute(note("a"))
            await uow.session.rollback()
            await uow.session.execute(note("b"))
        assert await notes(engine) == ["b"]

    async def test_an_error_in_a_savepoint_that_is_rolled_back_is_healed(self, engine, session_factory):
        """What begin_nested() took back does not stand in the way of the commit."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            with pytest.raises(IntegrityError):
                async with uow.session.begin_nested():
                    await uow.session.execute(note("lost"))
                    await uow.session.execute(note("a"))
            await uow.session.execute(note("b"))
        assert await notes(engine) == ["a", "b"]

    async def test_an_orm_error_in_a_savepoint_that_is_rolled_back_is_healed(self, engine, session_factory):
        """A failed flush inside begin_nested() does not stand in the way of the commit either."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            with pytest.raises(IntegrityError):
                async with uow.session.begin_nested():
                    uow.session.add(Note(projection_name="a", position=1))
            uow.session.add(Note(projection_name="b", position=1))
        assert await notes(engine) == ["a", "b"]

    @ONLY_SQLITE
    async def test_an_error_in_a_savepoint_that_is_released_is_not_healed(self, engine, session_factory):
        """Releasing a savepoint keeps half of what was to be written in it: the commit is refused."""
        with pytest.raises(UnitOfWorkError, match="cannot commit"):
            await release_half_a_savepoint(session_factory)
        assert await notes(engine) == []

    @ONLY_POSTGRESQL
    async def test_a_savepoint_with_an_error_cannot_be_released(self, engine, session_factory):
        """PostgreSQL itself refuses the release, and the block ends with its error and nothing stored."""
        with pytest.raises(DBAPIError, match="current transaction is aborted"):
            await release_half_a_savepoint(session_factory)
        assert await notes(engine) == []

    @ONLY_SQLITE
    async def test_an_outer_savepoint_heals_what_an_inner_one_passed_on(self, engine, session_factory):
        """An error released from an inner savepoint is healed by rolling back the outer one."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            with pytest.raises(LookupError, match="mine"):
                async with uow.session.begin_nested():
                    async with uow.session.begin_nested():
                        with pytest.raises(IntegrityError):
                            await uow.session.execute(note("a"))
                    raise LookupError("mine")
        assert await notes(engine) == ["a"]

    async def test_two_levels_of_savepoints_rolled_back_are_healed(self, engine, session_factory):
        """An error below two savepoints that are both rolled back is healed."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(note("a"))
            with pytest.raises(IntegrityError):
                async with uow.session.begin_nested(), uow.session.begin_nested():
                    await uow.session.execute(note("a"))
        assert await notes(engine) == ["a"]

    async def test_an_error_after_a_released_savepoint_counts(self, engine, session_factory):
        """A savepoint that went well does not excuse an error after it."""
        with pytest.raises(UnitOfWorkError, match="cannot commit"):
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                async with uow.session.begin_nested():
                    await uow.session.execute(note("a"))
                with pytest.raises(IntegrityError):
                    await uow.session.execute(note("a"))
        assert await notes(engine) == []

    async def test_a_python_error_in_a_statement_does_not_count(self, engine, session_factory):
        """A value that never reached the database does no harm to the transaction."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            with pytest.raises(ValueError, match="whole number"):
                await SQLAlchemyEventStore().get_events_after(-1, uow=uow)
            await uow.session.execute(note("a"))
        assert await notes(engine) == ["a"]

    async def test_an_error_of_an_earlier_block_is_forgotten(self, engine, session_factory):
        """The next block of the same unit of work, on the same connection, may commit."""
        uow = SQLAlchemyUnitOfWork(session_factory)
        with pytest.raises(IntegrityError):
            async with uow:
                await uow.session.execute(note("a"))
                await uow.session.execute(note("a"))
        async with uow:
            await uow.session.execute(note("b"))
        assert await notes(engine) == ["b"]

    async def test_the_first_statement_of_a_new_engine_counts(self, database, make_engine):
        """An error of the very first statement on a stock engine is noticed."""
        engine = make_engine(database.url)
        with pytest.raises(UnitOfWorkError, match="cannot commit"):
            async with SQLAlchemyUnitOfWork(async_sessionmaker(engine)) as uow:
                with pytest.raises(DBAPIError):
                    await uow.session.execute(sa.text("SELECT nonsense"))

    @ONLY_SQLITE
    async def test_a_begin_that_timed_out_counts(self, engine, session_factory, database, make_engine):
        """When the write lock could not be had, going on without a transaction is refused; rollback() tries again."""
        impatient = make_engine(database.url, connect_args={"timeout": 0})
        uow = SQLAlchemyUnitOfWork(async_sessionmaker(impatient))
        async with uow:
            async with stream_in_use(session_factory, "order-1"):
                with pytest.raises(OperationalError, match="database is locked"):
                    await uow.session.execute(note("a"))
            with pytest.raises((UnitOfWorkError, OperationalError)):  # whichever says so first
                await uow.session.execute(note("half"))
                await uow.commit()
            await uow.rollback()
            await uow.session.execute(note("b"))
        assert await notes(engine) == ["b"]
