"""Whose transaction is it? Every way of giving a store a unit of work, and none."""
# ruff: noqa: PT012, ARG002  (what must fail is the end of a block; fixtures are asked for their effect)

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork, configure_engine
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError, UnitOfWorkError
from tests.support.engines import checked_out
from tests.support.events import an_event, versions


class TestNothingGiven:
    @pytest.mark.parametrize("operation", ["append", "get_events", "get_events_after", "last_position", "stream_after"])
    async def test_says_what_to_pass(self, operation):
        """A store without a session factory, a uow factory and `uow=` says by name what it needs."""
        store = SQLAlchemyEventStore()
        with pytest.raises(
            UnitOfWorkError,
            match=r"SQLAlchemyEventStore has no transaction to work in: pass uow=, .* session_factory or uow_factory",
        ):
            match operation:
                case "append":
                    await store.append([an_event()])
                case "get_events":
                    await store.get_events("order-1")
                case "get_events_after":
                    await store.get_events_after(0)
                case "last_position":
                    await store.last_position()
                case _:
                    [event async for event in store.stream_after(0)]

    async def test_a_subclass_is_named_by_its_own_name(self):
        """The error names the class that the caller knows."""

        class OrderEvents(SQLAlchemyEventStore):
            pass

        with pytest.raises(UnitOfWorkError, match="OrderEvents has no transaction"):
            await OrderEvents().last_position()

    async def test_a_session_is_no_unit_of_work(self, session_factory):
        """Passing a session as `uow=` is refused by the name of what was passed."""
        async with session_factory() as session:
            with pytest.raises(UnitOfWorkError, match="uow= must be a SQLAlchemyUnitOfWork, not AsyncSession"):
                await SQLAlchemyEventStore().append([an_event()], uow=session)

    async def test_a_factory_of_something_else_is_refused(self, session_factory):
        """A uow_factory that returns None or a factory is refused by the name of what it returned."""
        with pytest.raises(UnitOfWorkError, match="the uow_factory's result must be a SQLAlchemyUnitOfWork, not str"):
            await SQLAlchemyEventStore(uow_factory=lambda: "uow").last_position()


class TestIdle:
    async def test_each_operation_commits_by_itself(self, engine, session_factory):
        """Operations given a unit of work that is not entered yet are committed before they return."""
        uow = SQLAlchemyUnitOfWork(session_factory)
        store = SQLAlchemyEventStore()
        await store.append([an_event()], uow=uow)
        assert checked_out(engine) == 0
        await uow.rollback()
        assert await versions(session_factory) == [1]
        assert len(await store.get_events("order-1", uow=uow)) == 1
        assert len(await store.get_events_after(0, uow=uow)) == 1
        assert await store.last_position(uow=uow) == 1

    async def test_after_the_block_each_operation_commits_by_itself(self, session_factory):
        """The specification goes on using a unit of work after its block: so may everybody."""
        store = SQLAlchemyEventStore()
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await store.append([an_event()], uow=uow)
        await store.append([an_event()], expected_version=1, uow=uow)
        await uow.rollback()
        assert await versions(session_factory) == [1, 2]

    async def test_after_a_block_that_failed_too(self, session_factory):
        """A unit of work that was rolled back is idle like any other."""
        store = SQLAlchemyEventStore()
        with pytest.raises(LookupError, match="mine"):
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await store.append([an_event()], uow=uow)
                raise LookupError("mine")
        await store.append([an_event()], uow=uow)
        assert await versions(session_factory) == [1]

    async def test_an_operation_that_fails_rolls_back_by_itself(self, engine, session_factory):
        """A refused operation of an idle unit of work leaves nothing, and does not concern the next one."""
        uow = SQLAlchemyUnitOfWork(session_factory)
        store = SQLAlchemyEventStore()
        with pytest.raises(OptimisticConcurrencyError):
            await store.append([an_event(), an_event()], expected_version=3, uow=uow)
        assert checked_out(engine) == 0
        await store.append([an_event()], expected_version=0, uow=uow)
        assert await versions(session_factory) == [1]

    async def test_concurrent_tasks_may_share_it(self, session_factory):
        """Many tasks at once may use one idle unit of work, given directly or by a factory."""
        uow = SQLAlchemyUnitOfWork(session_factory)
        given, made = SQLAlchemyEventStore(), SQLAlchemyEventStore(uow_factory=lambda: uow)
        await asyncio.gather(
            *(given.append([an_event("a")], uow=uow) for _ in range(6)),
            *(made.append([an_event("a")]) for _ in range(6)),
        )
        assert await versions(session_factory, "a") == list(range(1, 13))

    @pytest.fixture
    def elsewhere(self, databases, database):
        """A second database of the same kind."""
        with databases.fresh(database.kind) as fresh:
            yield fresh

    async def test_the_units_own_factory_is_preferred(self, elsewhere, session_factory, make_engine):
        """An idle unit of work stands for its own database, whatever the store was made with."""
        other = configure_engine(make_engine(elsewhere.url))
        store = SQLAlchemyEventStore(async_sessionmaker(other))
        await store.append([an_event()], uow=SQLAlchemyUnitOfWork(session_factory))
        assert await store.last_position() == 0
        assert await versions(session_factory) == [1]


class TestUowFactory:
    async def test_an_open_unit_of_work_is_joined(self, engine, session_factory):
        """A factory that returns an open unit of work makes each operation part of it."""
        current = SQLAlchemyUnitOfWork(session_factory)
        store = SQLAlchemyEventStore(uow_factory=lambda: current)
        with pytest.raises(LookupError, match="mine"):
            async with current:
                await store.append([an_event()])
                assert len(await store.get_events("order-1")) == 1
                raise LookupError("mine")
        assert await store.get_events("order-1") == []

    async def test_is_called_for_each_operation(self, session_factory):
        """Every operation asks the factory anew."""
        calls = []

        def factory():
            calls.append(1)
            return SQLAlchemyUnitOfWork(session_factory)

        store = SQLAlchemyEventStore(uow_factory=factory)
        await store.append([an_event()])
        await store.get_events("order-1")
        assert len(calls) >= 2

    async def test_uow_given_beats_the_factory(self, session_factory):
        """An explicit `uow=` is used where the store has factories as well."""

        def never():
            raise AssertionError("not to be called")

        store = SQLAlchemyEventStore(session_factory, uow_factory=never)
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await store.append([an_event()], uow=uow)
            await uow.rollback()
        assert await versions(session_factory) == []

    async def test_beats_the_session_factory(self, session_factory):
        """With both factories it is the unit of work that decides."""

        def never():
            raise AssertionError("not to be called")

        store = SQLAlchemyEventStore(never, uow_factory=lambda: SQLAlchemyUnitOfWork(session_factory))
        await store.append([an_event()])
        assert await versions(session_factory) == [1]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (SQLAlchemyEventStore, "session_factory is AsyncEngine"),
        (SQLAlchemyUnitOfWork, "session_factory is AsyncEngine"),
        (lambda engine: SQLAlchemyEventStore(uow_factory=async_sessionmaker(engine)), "makes sessions"),
    ],
)
async def test_factories_are_looked_at_at_once(engine, make, says):
    """What makes no sessions, or sessions where units of work are wanted, is refused before anything is lost."""
    with pytest.raises(UnitOfWorkError, match=says):
        make(engine)
