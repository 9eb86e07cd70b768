"""An open writer holds readers by position at its place: by which lock, and at positions of any size."""
# ruff: noqa: ARG002  (fixtures are asked for their effect)

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError
from tests.core.bystander import locks, scalar
from tests.support.engines import configured_engine
from tests.support.events import an_event, everything
from tests.support.kinds import ONLY_POSTGRESQL


class TestHoldingReaders:
    """PostgreSQL's lock that keeps readers by position back."""

    pytestmark = ONLY_POSTGRESQL

    async def test_many_appends_take_one_lock(self, store, session_factory, engine):
        """A transaction takes one lock, however often it appends, and it ends with the transaction."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await store.get_events_after(0, uow=uow)
            assert await locks(engine) == 0
            for _ in range(20):
                await store.append([an_event(), an_event()], uow=uow)
            assert await locks(engine) == 1
            await uow.commit()
            assert await locks(engine) == 0
            await store.append([an_event()], uow=uow)
            assert await locks(engine) == 1
            await uow.rollback()
            assert await locks(engine) == 0

    @pytest.mark.parametrize("end", ["released", "rolled back", "taking turns"])
    async def test_many_savepoints_take_at_most_two(self, store, session_factory, engine, end):
        """A savepoint around each append does not take a lock each."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            for number in range(20):
                savepoint = await uow.session.begin_nested()
                await store.append([an_event(), an_event()], uow=uow)
                if end == "released" or (end == "taking turns" and number % 2):
                    await savepoint.commit()
                else:
                    await savepoint.rollback()
                assert await locks(engine) <= 2
            await store.append([an_event()], uow=uow)
            assert 1 <= await locks(engine) <= 2

    async def test_nested_savepoints_take_at_most_two(self, store, session_factory, engine):
        """Savepoints inside savepoints do not take a lock each either."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            savepoints = []
            for _ in range(10):
                savepoints.append(await uow.session.begin_nested())
                await store.append([an_event()], uow=uow)
            assert await locks(engine) <= 2
            for savepoint in reversed(savepoints):
                await savepoint.commit()
            assert await locks(engine) <= 2

    @pytest.mark.parametrize("how", ["one", "outer of two", "outer of two, inner released", "after a released one"])
    async def test_a_savepoint_rolled_back_does_not_let_readers_pass(self, store, session_factory, how):
        """An append that follows a savepoint's rollback, which drops the lock taken inside it, holds readers again."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            if how == "after a released one":
                async with uow.session.begin_nested():
                    await store.append([an_event("kept")], uow=uow)
            outer = await uow.session.begin_nested()
            if how.startswith("outer"):
                inner = await uow.session.begin_nested()
                await store.append([an_event("lost")], uow=uow)
                if how.endswith("released"):
                    await inner.commit()
            else:
                await store.append([an_event("lost")], uow=uow)
            await outer.rollback()
            [late] = await store.append([an_event("late")], uow=uow)
            [early] = await store.append([an_event("early")])
            assert late.position < early.position
            assert await store.get_events_after(0) == []
            assert await store.last_position() == 0
        assert [event.aggregate_id for event in await everything(store)][-2:] == ["late", "early"]

    async def test_a_savepoint_of_the_connection_rolled_back_does_not_let_readers_pass(self, store, session_factory):
        """The same goes for savepoints that the caller makes below the session."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            connection = await uow.session.connection()
            savepoint = await connection.begin_nested()
            await store.append([an_event("lost")], uow=uow)
            await savepoint.rollback()
            await store.append([an_event("late")], uow=uow)
            await store.append([an_event("early")])
            assert await store.get_events_after(0) == []
        assert [event.aggregate_id for event in await everything(store)] == ["late", "early"]

    async def test_a_refused_batch_goes_on_holding(self, store, session_factory):
        """The lock is taken outside the batch's own savepoint: a refusal does not drop it."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            with pytest.raises(OptimisticConcurrencyError):
                await store.append([an_event(), an_event()], expected_version=5, uow=uow)
            [late] = await store.append([an_event("late")], uow=uow)
            [early] = await store.append([an_event("early")])
            assert late.position < early.position
            assert await store.get_events_after(0) == []
            await uow.commit()
        assert [event.aggregate_id for event in await everything(store)] == ["late", "early"]

    async def test_one_who_only_reads_holds_nobody(self, store, session_factory):
        """An open transaction that has not appended does not hold readers, whatever else it did."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await store.get_events_after(0, uow=uow)
            await uow.session.execute(sa.text("INSERT INTO projection_positions VALUES ('a', 1)"))
            await store.append([an_event()])
            assert len(await store.get_events_after(0)) == 1

    async def test_readers_see_what_was_there_before_the_writer_began(self, store, session_factory):
        """A writer that stays open holds readers at its place, not at the beginning."""
        await store.append([an_event("a"), an_event("b")])
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await store.append([an_event("c")], uow=uow)
            await store.append([an_event("d")])
            assert [event.aggregate_id for event in await everything(store)] == ["a", "b"]
            assert await store.last_position() == 2
            assert [event.aggregate_id for event in await store.get_events("d")] == ["d"]
        assert [event.aggregate_id for event in await everything(store)] == ["a", "b", "c", "d"]

    async def test_own_appends_are_seen_others_are_waited_for(self, store, session_factory):
        """Inside a unit of work its own events are readable by position, but not past another one's open place."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await store.append([an_event("mine")], uow=uow)
            assert [event.aggregate_id for event in await store.get_events_after(0, uow=uow)] == ["mine"]
            async with SQLAlchemyUnitOfWork(session_factory) as other:
                await store.append([an_event("other")], uow=other)
                await store.append([an_event("mine")], uow=uow)
                assert [event.position for event in await store.get_events_after(0, uow=uow)] == [1]
            assert [event.position for event in await store.get_events_after(0, uow=uow)] == [1, 2, 3]

    async def test_other_applications_locks_do_not_interfere(self, store, engine):
        """Advisory locks of other keys and other kinds, shared or not, hold nobody."""
        await store.append([an_event()])
        oid = await scalar(engine, "SELECT 'events'::regclass::oid::bigint")
        async with engine.connect() as application:
            for statement in (
                f"SELECT pg_advisory_lock_shared({oid + 1}, 0)",
                f"SELECT pg_advisory_lock_shared(0, {oid})",
                f"SELECT pg_advisory_lock_shared(({oid}::bigint << 32) | 0)",
                "SELECT pg_advisory_lock_shared(0)",
                "SELECT pg_advisory_lock(-1, -1)",
                f"SELECT pg_advisory_lock({oid}, -7)",
            ):
                await application.execute(sa.text(statement))
            await store.append([an_event()])
            assert len(await store.get_events_after(0)) == 2
            assert await store.last_position() == 2
            await application.execute(sa.text("SELECT pg_advisory_unlock_all()"))

    async def test_a_lock_of_the_application_in_the_same_session_does_not_replace_ours(self, store, session_factory):
        """An advisory lock that the caller's own transaction holds is not mistaken for the lock on readers."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            oid = await uow.session.scalar(sa.text("SELECT 'events'::regclass::oid::bigint"))
            await uow.session.execute(sa.text(f"SELECT pg_advisory_xact_lock({oid}, 123456)"))
            savepoint = await uow.session.begin_nested()
            await store.append([an_event("lost")], uow=uow)
            await savepoint.rollback()
            await store.append([an_event("late")], uow=uow)
            await store.append([an_event("early")])
            assert await store.get_events_after(0) == []

    @pytest.fixture
    def twin(self, databases):
        """Another database on the same server; made from the same template, its table has the same oid."""
        with databases.fresh("postgresql") as fresh:
            yield fresh

    async def test_another_database_does_not_interfere(self, store, engine, twin):
        """A writer in another database holds nobody here, although its table has the same oid."""
        async with configured_engine(twin.url) as other_engine:
            oid = "SELECT 'events'::regclass::oid::bigint"
            assert await scalar(engine, oid) == await scalar(other_engine, oid)
            async with SQLAlchemyUnitOfWork(async_sessionmaker(other_engine)) as uow:
                await SQLAlchemyEventStore().append([an_event()], uow=uow)
                await store.append([an_event()])
                assert len(await store.get_events_after(0)) == 1
                assert await store.last_position() == 1


class TestHighPositions:
    """The floors of open writers are kept modulo 2^32."""

    @pytest.mark.parametrize("start", [2**31 - 2, 2**31, 2**32 - 3, 2**32, 2**33 - 2, 2**33 + 5, 2**40, 2**62])
    async def test_are_appended_read_and_held_back(self, session_factory, store, database, start):
        """Across the borders of 32 bits events get their positions, and an open writer holds readers at its place."""
        await continue_positions_at(session_factory, database.kind, start)
        await store.append([an_event("a")])
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            [late] = await store.append([an_event("late")], uow=uow)
            assert late.position == start + 2
            if database.kind == "postgresql":
                assert (await store.append([an_event("b") for _ in range(4)]))[-1].position == start + 6
            assert [event.position for event in await store.get_events_after(start)] == [start + 1]
            assert await store.last_position() == start + 1
        if database.kind == "sqlite":
            await store.append([an_event("b") for _ in range(4)])
        expected = [start + number for number in range(1, 7)]
        assert [event.position for event in await store.get_events_after(0)] == expected
        assert [event.position async for event in store.stream_after(start + 1, page_size=2)] == expected[1:]
        assert await store.last_position() == start + 6

    @ONLY_POSTGRESQL
    async def test_a_writer_is_found_far_behind(self, session_factory, store, database, engine):
        """A writer that stays open while a billion positions go by, over a border, still holds readers."""
        await continue_positions_at(session_factory, database.kind, 2**32 - 5)
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await store.append([an_event("late")], uow=uow)
            await continue_positions_at(session_factory, database.kind, 2**32 + 10**9)
            await store.append([an_event("b")])
            assert await store.get_events_after(0) == []
            assert await store.last_position() == 0
        assert [event.position for event in await store.get_events_after(0)] == [2**32 - 4, 2**32 + 10**9 + 1]


async def continue_positions_at(session_factory, kind, position):
    """Make the next event's position the one after the given."""
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        if kind == "postgresql":
            statement = "SELECT setval('events_position_seq', :position)"
        else:
            statement = "INSERT INTO sqlite_sequence (name, seq) VALUES ('events', :position)"
        await uow.session.execute(sa.text(statement), {"position": position})
