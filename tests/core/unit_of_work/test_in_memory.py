"""SQLite's `:memory:`, where there is one unit of work at a time."""
# ruff: noqa: PT012  (what must fail is the end of a block)

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork, configure_engine
from cqrs_ddd_persistence_sqlalchemy.exceptions import UnitOfWorkError
from tests.core.notes import Base, note, notes
from tests.support.engines import create_async_engine
from tests.support.events import an_event


class TestInMemory:
    """SQLite's `:memory:`, where all sessions share one connection."""

    @pytest.fixture(params=["stock", "configured"])
    async def memory(self, request):
        """An in-memory database with a table of notes."""
        made = create_async_engine("sqlite+aiosqlite://")
        if request.param == "configured":
            configure_engine(made)
        async with made.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield made
        await made.dispose()

    async def test_a_second_unit_of_work_is_refused(self, memory):
        """While one is open a second one is refused by name, and the first one's data is intact."""
        factory = async_sessionmaker(memory)
        async with SQLAlchemyUnitOfWork(factory) as uow:
            await uow.session.execute(note("a"))
            with pytest.raises(UnitOfWorkError, match="another unit of work is open on this in-memory database"):
                async with SQLAlchemyUnitOfWork(factory) as second:
                    await second.session.execute(note("b"))
            await uow.session.execute(note("c"))
        assert await notes(memory) == ["a", "c"]

    async def test_an_operation_of_its_own_is_refused_as_well(self, memory):
        """A store's own transaction would be the open unit of work's, so it is refused, reads included."""
        factory = async_sessionmaker(memory)
        store = SQLAlchemyEventStore(factory)
        async with SQLAlchemyUnitOfWork(factory) as uow:
            await uow.session.execute(note("a"))
            with pytest.raises(UnitOfWorkError, match=r"pass that unit of work as uow=, or use a database file"):
                await store.append([an_event()])
            with pytest.raises(UnitOfWorkError, match="in-memory"):
                await store.get_events("order-1")
        assert await notes(memory) == ["a"]

    async def test_one_after_the_other_is_fine(self, memory):
        """After the end, however it came, the next unit of work has the database."""
        factory = async_sessionmaker(memory)
        async with SQLAlchemyUnitOfWork(factory) as uow:
            await uow.session.execute(note("a"))
        with pytest.raises(LookupError, match="mine"):
            async with SQLAlchemyUnitOfWork(factory) as uow:
                await uow.session.execute(note("lost"))
                raise LookupError("mine")
        async with SQLAlchemyUnitOfWork(factory) as uow:
            await uow.session.execute(note("b"))
        assert await notes(memory) == ["a", "b"]

    async def test_a_second_engine_view_of_it_is_refused_too(self, memory):
        """`engine.execution_options()` makes another engine object on the same connection: refused as well."""
        view = memory.execution_options(schema_translate_map={"tenant": None})
        async with SQLAlchemyUnitOfWork(async_sessionmaker(memory)) as uow:
            await uow.session.execute(note("a"))
            with pytest.raises(UnitOfWorkError, match="in-memory"):
                async with SQLAlchemyUnitOfWork(async_sessionmaker(view)) as second:
                    await second.session.execute(note("b"))
                    await second.rollback()
        assert await notes(memory) == ["a"]
