"""The event store's behaviour, on both databases."""
# ruff: noqa: PT012, ARG002  (what must fail is the end of a block; fixtures are asked for their effect)

from __future__ import annotations

import asyncio
import os
import textwrap
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import ClassVar
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_advanced_core import StoredEvent
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork, configure_engine
from cqrs_ddd_persistence_sqlalchemy.core.models import events as events_table
from cqrs_ddd_persistence_sqlalchemy.core.models import in_schema
from cqrs_ddd_persistence_sqlalchemy.exceptions import (
    OptimisticConcurrencyError,
    PersistenceError,
    SchemaOutOfDateError,
)
from tests.conftest import check_no_leaks
from tests.support.engines import create_async_engine

ONLY_POSTGRESQL = pytest.mark.parametrize("database", ["postgresql"], indirect=True)

KOLKATA = timezone(timedelta(hours=5, minutes=30))


def an_event(stream="order-1", **given):
    return StoredEvent(**{"aggregate_id": stream, "event_type": "Placed", "payload": {}} | given)


def places(events):
    return [(event.aggregate_id, event.version, event.position) for event in events]


async def everything(store):
    return [event async for event in store.stream_after(0)]


@pytest.fixture
def store(session_factory):
    return SQLAlchemyEventStore(session_factory)


@asynccontextmanager
async def an_engine(url, **options):
    """A configured engine, checked for leaks, and disposed of however the test ends."""
    async with AsyncExitStack() as stack:
        made = configure_engine(create_async_engine(url, **options))
        stack.push_async_callback(check_no_leaks, made)
        yield made


async def scalar(engine, statement, **parameters):
    """Ask the database something, as a bystander who waits for nobody."""
    async with engine.connect() as connection:
        await connection.execution_options(sqlite_begin="DEFERRED")
        return await connection.scalar(sa.text(statement), parameters)


async def locks(engine):
    """Count the advisory locks in this PostgreSQL database."""
    return await scalar(
        engine,
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )


async def waiting(engine):
    """Count the sessions of this PostgreSQL database that wait for another one's lock."""
    return await scalar(
        engine,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )


async def eventually(condition, timeout_seconds=20):
    """Wait until the condition, an async function, holds."""
    async with asyncio.timeout(timeout_seconds):
        while not await condition():  # noqa: ASYNC110  (nothing tells us when the server has got there)
            await asyncio.sleep(0.005)


async def continue_positions_at(session_factory, kind, position):
    """Make the next event's position the one after the given."""
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        if kind == "postgresql":
            statement = "SELECT setval('events_position_seq', :position)"
        else:
            statement = "INSERT INTO sqlite_sequence (name, seq) VALUES ('events', :position)"
        await uow.session.execute(sa.text(statement), {"position": position})


async def test_positions_start_at_one_and_rise_by_one(session_factory):
    """Positions number the events of all streams from 1, versions those of each."""
    store = SQLAlchemyEventStore(session_factory)
    stored = await store.append([an_event("a"), an_event("a"), an_event("b")])
    assert [(event.position, event.version) for event in stored] == [(1, 1), (2, 2), (3, 1)]


class TestAppend:
    async def test_returns_the_events_as_they_are_read(self, store):
        """What append returns is what get_events finds, every field of it."""
        given = an_event(
            aggregate_type="Order",
            payload={"lines": [{"sku": "a-1", "count": 2}], "paid": True, "note": None, "total": 12.5},
            metadata={"user": "u-1"},
            occurred_at=datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC),
            correlation_id="request-1",
            causation_id="command-1",
            schema_version=3,
        )
        [stored] = await store.append([given])
        assert [stored] == await store.get_events("order-1")
        assert stored == given.model_copy(update={"version": 1, "position": 1, "recorded_at": stored.recorded_at})

    async def test_leaves_the_events_given_as_they_were(self, store):
        """Appending makes new objects; the caller's are not changed."""
        event = an_event()
        await store.append([event])
        assert (event.version, event.position, event.recorded_at) == (None, None, None)

    async def test_three_fields_suffice(self, store):
        """An event of aggregate_id, event_type and payload is stored with defaults for the rest."""
        [stored] = await store.append([StoredEvent(aggregate_id="a", event_type="Made", payload={})])
        [read] = await store.get_events("a")
        assert read == stored
        assert UUID(read.event_id)
        assert (read.aggregate_type, read.metadata, read.correlation_id, read.causation_id, read.schema_version) == (
            "", {}, None, None, 1,
        )  # fmt: skip

    async def test_goes_on_where_the_stream_ends(self, store):
        """Each append continues the versions of its stream and the positions of all."""
        await store.append([an_event("a")])
        await store.append([an_event("b")])
        assert places(await store.append([an_event("a"), an_event("b"), an_event("a")])) == [
            ("a", 2, 3), ("b", 2, 4), ("a", 3, 5),
        ]  # fmt: skip

    async def test_takes_any_iterable(self, store):
        """A generator of events is as good as a list."""
        assert len(await store.append(an_event() for _ in range(3))) == 3

    async def test_nothing_to_append_is_nothing_done(self, store):
        """An empty batch returns an empty list, needs no transaction and checks no version."""
        assert await store.append([]) == []
        assert await SQLAlchemyEventStore().append([]) == []
        assert await store.append([], expected_version=7) == []

    @pytest.mark.parametrize("thing", [{"aggregate_id": "a"}, "event", None])
    async def test_refuses_other_things_than_events(self, store, thing):
        """What is no StoredEvent is refused by the name of its type."""
        with pytest.raises(TypeError, match=f"append takes StoredEvent objects, not {type(thing).__name__}"):
            await store.append([an_event(), thing])
        assert await store.last_position() == 0

    async def test_ten_thousand_in_one_batch(self, store):
        """A batch of 10,000 over 100 streams arrives whole and in the order given."""
        given = [an_event(f"stream-{number % 100}", payload={"number": number}) for number in range(10_000)]
        stored = await store.append(given)
        assert [event.event_id for event in stored] == [event.event_id for event in given]
        assert [event.position for event in stored] == list(range(1, 10_001))
        read = await everything(store)
        assert [event.payload["number"] for event in read] == list(range(10_000))
        assert [event.version for event in read] == [1 + number // 100 for number in range(10_000)]

    async def test_ten_thousand_to_one_stream(self, store):
        """A batch of 10,000 to one stream that has events already goes on counting."""
        await store.append([an_event()])
        await store.append([an_event(payload={"number": number}) for number in range(10_000)], expected_version=1)
        read = await store.get_events("order-1", after_version=1)
        assert [(event.version, event.payload["number"]) for event in read] == [(n + 2, n) for n in range(10_000)]

    async def test_ten_thousand_new_streams(self, store):
        """More streams in one batch than a statement may have parameters is no problem, nor is a conflict in it."""
        await store.append([an_event(f"s-{number}") for number in range(0, 10_000, 7)])
        stored = await store.append([an_event(f"s-{number}") for number in range(10_000)])
        assert [event.version for event in stored] == [2 if number % 7 == 0 else 1 for number in range(10_000)]
        with pytest.raises(OptimisticConcurrencyError, match="stream 's-9999': expected version 3, found 1"):
            await store.append(
                [an_event(f"s-{number}", version=None if number < 9999 else 4) for number in range(10_000)]
            )


class TestExpectedVersion:
    async def test_zero_is_for_a_new_stream(self, store):
        """expected_version=0 appends to a stream that has no events, once."""
        await store.append([an_event(aggregate_type="Order")], expected_version=0)
        with pytest.raises(OptimisticConcurrencyError) as caught:
            await store.append([an_event(aggregate_type="Order")], expected_version=0)
        assert str(caught.value) == "Order 'order-1': expected version 0, found 1; reload it and try again"
        assert (caught.value.entity_type, caught.value.entity_id) == ("Order", "order-1")
        assert (caught.value.expected, caught.value.actual) == (0, 1)

    @pytest.mark.parametrize("count", [1, 2])
    @pytest.mark.parametrize(("expected", "refused"), [(0, True), (1, True), (2, False), (3, True), (2**63 - 1, True)])
    async def test_must_be_the_streams_own(self, store, expected, refused, count):
        """A version too low or too high is refused, whatever the size of the batch, and nothing of it is written."""
        await store.append([an_event(), an_event()])
        batch = [an_event() for _ in range(count)]
        if refused:
            with pytest.raises(
                OptimisticConcurrencyError, match=f"stream 'order-1': expected version {expected}, found 2"
            ) as caught:
                await store.append(batch, expected_version=expected)
            assert (caught.value.expected, caught.value.actual) == (expected, 2)
            assert len(await store.get_events("order-1")) == 2
        else:
            assert [event.version for event in await store.append(batch, expected_version=2)] == [3, 4][:count]

    async def test_is_of_one_stream(self, store):
        """expected_version together with several streams is a mistake that is named."""
        with pytest.raises(ValueError, match=r"expected_version is of one stream, the events are of 2: \['a', 'b'\]"):
            await store.append([an_event("a"), an_event("b")], expected_version=0)

    @pytest.mark.parametrize("value", [-1, True, 1.0, "1", 2**63])
    async def test_is_a_whole_number(self, store, value):
        """What is no whole number of BIGINT's range is refused by name."""
        with pytest.raises(ValueError, match="expected_version must be a whole number from 0"):
            await store.append([an_event()], expected_version=value)

    async def test_the_loser_is_told_of_the_stream_that_is_behind(self, store):
        """Of a batch over several streams the error names the one that is in the way."""
        await store.append([an_event("a"), an_event("b"), an_event("b")])
        with pytest.raises(OptimisticConcurrencyError, match="stream 'b': expected version 1, found 2"):
            await store.append([an_event("a", version=2), an_event("b", version=2)])
        assert await store.last_position() == 3


class TestClaimedVersions:
    async def test_the_next_ones_are_accepted(self, store):
        """Explicit versions that continue the stream are stored as they are."""
        await store.append([an_event(version=1), an_event(version=2), an_event("b", version=1)])
        assert places(await store.append([an_event(version=3)])) == [("order-1", 3, 4)]

    async def test_one_claim_speaks_for_the_batch(self, store):
        """An event without a version among ones with gets the version in between."""
        stored = await store.append([an_event(), an_event(version=2), an_event()])
        assert [event.version for event in stored] == [1, 2, 3]

    @pytest.mark.parametrize("version", [1, 2, 4, 2**63 - 1])
    async def test_others_are_refused(self, store, version):
        """An explicit version that is not the stream's next is a conflict, like a second append of the same version."""
        await store.append([an_event(), an_event()])
        with pytest.raises(
            OptimisticConcurrencyError, match=f"stream 'order-1': expected version {version - 1}, found 2"
        ):
            await store.append([an_event(version=version)])
        assert len(await store.get_events("order-1")) == 2

    @pytest.mark.parametrize("versions", [(1, 3), (2, 1), (1, 1), (None, 1), (1, None, 2)])
    async def test_must_fit_each_other(self, store, versions):
        """Versions of one stream that leave a gap or repeat each other within the batch are a conflict."""
        with pytest.raises(OptimisticConcurrencyError, match="stream 'order-1'"):
            await store.append([an_event(version=version) for version in versions])
        assert await store.last_position() == 0

    async def test_must_fit_expected_version(self, store):
        """A version that contradicts expected_version is a conflict."""
        await store.append([an_event(), an_event()])
        with pytest.raises(OptimisticConcurrencyError, match="expected version 3, found 2"):
            await store.append([an_event(version=4)], expected_version=2)
        with pytest.raises(OptimisticConcurrencyError, match="stream 'order-1'"):
            await store.append([an_event(version=3)], expected_version=1)
        assert [event.version for event in await store.append([an_event(version=3)], expected_version=2)] == [3]


class TestClaimedPositions:
    async def test_the_next_ones_are_accepted(self, store):
        """Explicit positions that turn out to be the ones assigned are accepted."""
        await store.append([an_event(position=1)])
        stored = await store.append([an_event("b", position=2), an_event("c"), an_event("b", position=4)])
        assert [event.position for event in stored] == [2, 3, 4]

    @pytest.mark.parametrize("position", [1, 3, 2**63 - 1])
    async def test_others_are_refused(self, store, position):
        """A position that is taken, or further on, is a conflict, and nothing is written."""
        await store.append([an_event()])
        with pytest.raises(
            OptimisticConcurrencyError, match=rf"claims position {position}, the next is \d+; leave it None"
        ) as caught:
            await store.append([an_event(position=position)])
        assert caught.value.expected == position
        assert len(await store.get_events("order-1")) == 1

    async def test_one_wrong_claim_refuses_the_batch(self, store):
        """One event at another position than it claims takes the whole batch back."""
        with pytest.raises(OptimisticConcurrencyError, match="claims position 3"):
            await store.append([an_event("a", position=1), an_event("b", position=3), an_event("c")])
        assert await store.last_position() == 0
        assert await everything(store) == []

    async def test_a_wrong_version_is_told_before_a_wrong_position(self, store):
        """Where both claims are wrong the error is of the version, which the caller can do something about."""
        await store.append([an_event()])
        with pytest.raises(OptimisticConcurrencyError, match="expected version 4, found 1"):
            await store.append([an_event(version=5, position=9)])


class TestEventIds:
    async def test_once_in_a_batch(self, store):
        """An event_id twice in one batch is a conflict that names it."""
        with pytest.raises(
            OptimisticConcurrencyError, match="^event 'e-1': the batch has this event_id twice"
        ) as caught:
            await store.append([an_event("a", event_id="e-1"), an_event("b", event_id="e-1")])
        assert (caught.value.entity_type, caught.value.entity_id) == ("event", "e-1")
        assert await store.last_position() == 0

    @pytest.mark.parametrize("count", [1, 3])
    async def test_once_in_the_store(self, store, count):
        """An event_id that is stored already, in whichever stream, is a conflict that names it."""
        await store.append([an_event("a", event_id="e-1")])
        batch = [*(an_event("b") for _ in range(count - 1)), an_event("b", event_id="e-1")]
        with pytest.raises(OptimisticConcurrencyError, match="^event 'e-1': an event with this event_id is stored"):
            await store.append(batch)
        assert await store.get_events("b") == []

    async def test_a_batch_sent_again_is_refused_whole(self, store):
        """A retry of a batch that was stored changes nothing."""
        batch = [an_event(), an_event(), an_event("b")]
        await store.append(batch)
        with pytest.raises(OptimisticConcurrencyError, match="is stored already"):
            await store.append(batch)
        assert len(await everything(store)) == 3

    async def test_in_a_batch_of_thousands(self, store):
        """The one repeated event_id among thousands is found and named."""
        await store.append([an_event("a", event_id="e-1")])
        with pytest.raises(OptimisticConcurrencyError, match="^event 'e-1'"):
            await store.append([*(an_event("b") for _ in range(2500)), an_event("b", event_id="e-1")])
        assert await store.last_position() == 1

    async def test_another_writers_event_id_decides_when_it_commits(self, store, session_factory, engine, database):
        """An event_id that another transaction is about to store is waited for, and refused once it is stored."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await store.append([an_event("a", event_id="e-1")], uow=uow)
            task = asyncio.create_task(store.append([an_event("b", event_id="e-1")]))
            if database.kind == "postgresql":
                await eventually(lambda: one_waits(engine))
        with pytest.raises(OptimisticConcurrencyError, match="^event 'e-1'"):
            await task
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await store.append([an_event("a", event_id="e-2")], uow=uow)
            task = asyncio.create_task(store.append([an_event("b", event_id="e-2")]))
            if database.kind == "postgresql":
                await eventually(lambda: one_waits(engine))
            await uow.rollback()
        assert len(await task) == 1


async def one_waits(engine):
    return await waiting(engine) == 1


class TestRefusals:
    """What a refused append leaves behind: nothing, in a transaction that goes on."""

    REFUSED: ClassVar = {
        "expected_version": ([an_event(), an_event()], {"expected_version": 9}),
        "expected_version of one": ([an_event()], {"expected_version": 9}),
        "version": ([an_event("new"), an_event(version=9)], {}),
        "position": ([an_event("new"), an_event(position=99)], {}),
        "event_id": ([an_event("new"), an_event(event_id="stored")], {}),
        "event_id of one": ([an_event(event_id="stored")], {}),
        "event_id twice": ([an_event("new", event_id="new"), an_event(event_id="new")], {}),
    }

    @pytest.mark.parametrize("case", REFUSED)
    async def test_leave_the_callers_transaction_usable(self, store, session_factory, case):
        """After any refusal the unit of work reads, writes and commits, and has nothing of the refused batch."""
        batch, options = self.REFUSED[case]
        await store.append([an_event(event_id="stored")])
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await store.append([an_event("before")], uow=uow)
            with pytest.raises(OptimisticConcurrencyError):
                await store.append(batch, uow=uow, **options)
            assert await store.get_events("new", uow=uow) == []
            await store.append([an_event("after")], uow=uow)
            await uow.commit()
        assert [event.aggregate_id for event in await everything(store)] == ["order-1", "before", "after"]

    @pytest.mark.parametrize("case", REFUSED)
    async def test_leave_nothing_in_a_transaction_of_their_own(self, store, case):
        """A refused append without a unit of work writes nothing, and the next one goes through."""
        batch, options = self.REFUSED[case]
        await store.append([an_event(event_id="stored")])
        with pytest.raises(OptimisticConcurrencyError):
            await store.append(batch, **options)
        await store.append([an_event("after")])
        assert [event.aggregate_id for event in await everything(store)] == ["order-1", "after"]

    async def test_leave_the_callers_savepoint_usable(self, store, session_factory):
        """A refusal inside the caller's savepoint concerns nothing but itself."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            async with uow.session.begin_nested():
                await store.append([an_event("a")], uow=uow)
                with pytest.raises(OptimisticConcurrencyError):
                    await store.append([an_event("b"), an_event("b")], expected_version=4, uow=uow)
                await store.append([an_event("c")], uow=uow)
            await uow.commit()
        assert [event.aggregate_id for event in await everything(store)] == ["a", "c"]


class TestUnitOfWork:
    async def test_joined(self, store, session_factory):
        """With an open unit of work the append is stored by its commit, and visible inside before."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await store.append([an_event(), an_event()], uow=uow)
            assert len(await store.get_events("order-1", uow=uow)) == 2
            assert len(await store.get_events_after(0, uow=uow)) == 2
            assert await store.last_position(uow=uow) == 2
            assert [event.position async for event in store.stream_after(0, uow=uow)] == [1, 2]
            assert await store.get_events("order-1") == []
        assert len(await store.get_events("order-1")) == 2

    async def test_rolled_back(self, store, session_factory):
        """A rollback takes the append back, and the stream goes on where it was."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await store.append([an_event(), an_event()], uow=uow)
            await uow.rollback()
            assert await store.get_events("order-1", uow=uow) == []
            assert [event.version for event in await store.append([an_event()], uow=uow)] == [1]

    async def test_several_appends_count_on(self, store, session_factory):
        """Appends in one unit of work see each other's versions."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            for number in range(5):
                [stored] = await store.append([an_event()], expected_version=number, uow=uow)
                assert stored.version == number + 1

    async def test_a_savepoint_takes_back_its_own_append_only(self, store, session_factory):
        """An append inside a savepoint that is rolled back is gone, the one before it stays."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await store.append([an_event("a"), an_event("a")], uow=uow)
            with pytest.raises(LookupError, match="mine"):
                async with uow.session.begin_nested():
                    await store.append([an_event("a"), an_event("b")], uow=uow)
                    raise LookupError("mine")
            await store.append([an_event("a")], expected_version=2, uow=uow)
        assert [(event.aggregate_id, event.version) for event in await everything(store)] == [
            ("a", 1), ("a", 2), ("a", 3),
        ]  # fmt: skip


class TestReading:
    async def test_an_unknown_stream_is_empty(self, store):
        """A stream that nobody appended to has no events."""
        assert await store.get_events("nobody") == []
        assert await store.get_events_after(0) == []
        assert await store.last_position() == 0
        assert await everything(store) == []

    async def test_a_stream_by_version(self, store):
        """after_version and limit cut a stream's events, oldest first; 0 of them are none."""
        await store.append([an_event("b"), *(an_event("a") for _ in range(5)), an_event("b")])

        async def versions(**options):
            return [event.version for event in await store.get_events("a", **options)]

        assert await versions() == [1, 2, 3, 4, 5]
        assert await versions(after_version=3) == [4, 5]
        assert await versions(after_version=5) == []
        assert await versions(limit=2) == [1, 2]
        assert await versions(after_version=1, limit=2) == [2, 3]
        assert await versions(limit=0) == []

    @pytest.mark.parametrize("name", ["after_version", "limit"])
    @pytest.mark.parametrize("value", [-1, True, 2.0, "3", 2**63])
    async def test_a_stream_by_nonsense(self, store, name, value):
        """Anything but a whole number of BIGINT's range is refused by name."""
        with pytest.raises(ValueError, match=f"{name} must be a whole number from 0"):
            await store.get_events("a", **{name: value})

    @pytest.mark.parametrize(
        "value", ["a\0b", "\ud800", 5, UUID(int=1), None], ids=["NUL", "surrogate", "int", "UUID", "None"]
    )
    async def test_a_stream_by_an_id_that_no_event_can_have(self, store, session_factory, value):
        """An aggregate_id that append would refuse is refused by name in reading too, and harms no transaction."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            with pytest.raises(ValueError, match="aggregate_id"):
                await store.get_events(value, uow=uow)
            await store.append([an_event()], uow=uow)
        assert len(await store.get_events("order-1")) == 1

    async def test_all_streams_by_position(self, store):
        """get_events_after goes through all streams in the order of positions, so many at a time."""
        await store.append([an_event(stream) for stream in "abcab"])

        async def positions(*arguments, **options):
            return [event.position for event in await store.get_events_after(*arguments, **options)]

        assert await positions(0) == [1, 2, 3, 4, 5]
        assert await positions(3) == [4, 5]
        assert await positions(5) == []
        assert await positions(99) == []
        assert await positions(1, limit=2) == [2, 3]
        assert await positions(0, limit=0) == []

    async def test_a_thousand_at_a_time_by_default(self, store):
        """Without a limit get_events_after returns at most 1000 events."""
        await store.append([an_event() for _ in range(1001)])
        assert len(await store.get_events_after(0)) == 1000
        assert len(await store.get_events_after(1000)) == 1

    async def test_filtered(self, store):
        """event_types and aggregate_types narrow the read, together both; none of them match nothing."""
        await store.append(
            [
                an_event("a", aggregate_type="Order", event_type="Placed"),
                an_event("b", aggregate_type="Invoice", event_type="Placed"),
                an_event("a", aggregate_type="Order", event_type="Paid"),
                an_event("b", aggregate_type="Invoice", event_type="Paid"),
                an_event("c", event_type="Paid"),
            ]
        )

        async def positions(**options):
            found = [event.position for event in await store.get_events_after(0, **options)]
            assert found == [event.position async for event in store.stream_after(0, page_size=2, **options)]
            return found

        assert await positions(event_types=["Paid"]) == [3, 4, 5]
        assert await positions(event_types=("Paid", "Placed")) == [1, 2, 3, 4, 5]
        assert await positions(aggregate_types={"Order"}) == [1, 3]
        assert await positions(aggregate_types=["Order", "Invoice"], event_types=["Paid"]) == [3, 4]
        assert await positions(aggregate_types=[""]) == [5]
        assert await positions(event_types=[]) == []
        assert await positions(aggregate_types=[], event_types=["Paid"]) == []
        assert await positions(event_types=["Nothing"]) == []
        assert [event.position for event in await store.get_events_after(3, event_types=["Paid"], limit=1)] == [4]

    @pytest.mark.parametrize("name", ["event_types", "aggregate_types"])
    async def test_filtered_by_a_text(self, store, name):
        """One name where several are asked for is a mistake that is named, not a filter by letters."""
        with pytest.raises(ValueError, match=f"{name} is the text 'Paid': give a list of names"):
            await store.get_events_after(0, **{name: "Paid"})
        with pytest.raises(ValueError, match=f"{name} is the text 'Paid'"):
            [event async for event in store.stream_after(0, **{name: "Paid"})]

    @pytest.mark.parametrize("value", [-1, True, 2.0, "3", 2**63, None])
    async def test_by_nonsense(self, store, value):
        """A position or limit that is no whole number of BIGINT's range is refused by name."""
        with pytest.raises(ValueError, match="position must be a whole number from 0"):
            await store.get_events_after(value)
        with pytest.raises(ValueError, match="limit must be a whole number from 0"):
            await store.get_events_after(0, limit=value)
        with pytest.raises(ValueError, match="page_size must be a whole number from 0"):
            [event async for event in store.stream_after(0, page_size=value)]

    @pytest.mark.parametrize("page_size", [1, 2, 3, 7, 8, 1000])
    async def test_streaming_reads_pages(self, store, engine, page_size):
        """stream_after yields every event once, and asks for as many pages as it takes."""
        await store.append([an_event() for _ in range(7)])
        reads = []

        @sa.event.listens_for(engine.sync_engine, "before_cursor_execute")
        def note_read(_connection, _cursor, statement, *_):
            if "ORDER BY events.position" in statement:
                reads.append(statement)

        read = [event.position async for event in store.stream_after(0, page_size=page_size)]
        assert read == [1, 2, 3, 4, 5, 6, 7]
        assert len(reads) == 7 // page_size + 1

    async def test_streaming_holds_no_connection_between_pages(self, store, engine):
        """A consumer that is slow, or stops, keeps no connection and no transaction."""
        await store.append([an_event() for _ in range(4)])
        stream = store.stream_after(1, page_size=2)
        assert (await anext(stream)).position == 2
        assert engine.sync_engine.pool.checkedout() == 0
        await store.append([an_event()])
        assert [event.position async for event in stream] == [3, 4, 5]

    async def test_streaming_nothing_at_a_time_is_refused(self, store):
        """A page size of 0 would never end."""
        with pytest.raises(ValueError, match="page_size is 0: read at least one event at a time"):
            [event async for event in store.stream_after(0, page_size=0)]


class TestConcurrency:
    async def test_without_expected_version_everybody_gets_in(self, store):
        """Twelve tasks that append batches to one stream at once all succeed: versions from 1 without gaps."""

        async def writer(number):
            for step in range(5):
                await store.append([an_event("hot", payload={"writer": number, "step": step}) for _ in range(2)])

        await asyncio.gather(*(writer(number) for number in range(12)))
        stored = await store.get_events("hot")
        assert [event.version for event in stored] == list(range(1, 121))
        assert [event.position for event in stored] == sorted(event.position for event in stored)
        assert stored == await everything(store)
        for number in range(12):
            own = [event.payload["step"] for event in stored if event.payload["writer"] == number]
            assert own == [step for step in range(5) for _ in range(2)]

    async def test_with_expected_version_one_wins(self, store):
        """Of twelve tasks that expect the same version exactly one succeeds, the others are told."""
        for expected in range(5):
            results = await asyncio.gather(
                *(store.append([an_event("hot")], expected_version=expected) for _ in range(12)),
                return_exceptions=True,
            )
            lost = [result for result in results if isinstance(result, OptimisticConcurrencyError)]
            assert len(lost) == 11
            assert {(error.expected, error.actual) for error in lost} == {(expected, expected + 1)}
        assert [event.version for event in await store.get_events("hot")] == [1, 2, 3, 4, 5]

    async def test_with_claimed_versions_one_wins(self, store):
        """The same goes for versions that the events themselves claim, in batches over two streams."""
        results = await asyncio.gather(
            *(store.append([an_event("hot", version=1), an_event("warm", version=1)]) for _ in range(8)),
            return_exceptions=True,
        )
        assert sum(isinstance(result, OptimisticConcurrencyError) for result in results) == 7
        assert sum(isinstance(result, list) for result in results) == 1
        assert len(await everything(store)) == 2

    async def test_one_event_id_is_stored_once(self, store):
        """Of many tasks that append the same event_id to different streams exactly one succeeds."""
        results = await asyncio.gather(
            *(store.append([an_event(f"s-{n}"), an_event(f"s-{n}", event_id="e-1")]) for n in range(8)),
            return_exceptions=True,
        )
        assert sum(isinstance(result, OptimisticConcurrencyError) for result in results) == 7
        assert len(await everything(store)) == 2

    async def test_batches_in_opposite_order_all_succeed(self, store):
        """Batches that touch the same streams in opposite order do not fail each other."""
        await asyncio.gather(
            *(store.append([an_event(stream) for stream in ("ab" if n % 2 else "ba")]) for n in range(12))
        )
        assert [event.version for event in await store.get_events("a")] == list(range(1, 13))
        assert [event.version for event in await store.get_events("b")] == list(range(1, 13))

    @ONLY_POSTGRESQL
    async def test_a_deadlock_is_survived(self, store, engine, session_factory, database):
        """When the database breaks a deadlock between two batches both are stored in the end."""
        settings = {"server_settings": {"deadlock_timeout": "50ms"}}
        async with an_engine(database.direct_url, connect_args=settings) as hasty:  # a proxy refuses such settings
            other = SQLAlchemyEventStore(async_sessionmaker(hasty))
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await store.append([an_event("x")], uow=uow)
                # Holds a, waits for x; will want b.
                first = asyncio.create_task(other.append([an_event("a"), an_event("x"), an_event("b")]))
                await eventually(lambda: some_wait(engine, 1))
                # Holds b, waits for a.
                second = asyncio.create_task(other.append([an_event("b"), an_event("a")]))
                await eventually(lambda: some_wait(engine, 2))
                await uow.rollback()
            assert len(await first) == 3
            assert len(await second) == 2
        await eventually(lambda: there_was_a_deadlock(engine))
        assert [event.version for event in await store.get_events("a")] == [1, 2]
        assert [event.version for event in await store.get_events("b")] == [1, 2]

    @ONLY_POSTGRESQL
    async def test_a_deadlock_in_a_unit_of_work_is_the_callers(self, store, engine, session_factory, database):
        """In the caller's transaction a deadlock reaches the caller, who alone can begin again."""
        settings = {"server_settings": {"deadlock_timeout": "50ms"}}
        async with an_engine(database.direct_url, connect_args=settings) as hasty:  # a proxy refuses such settings

            async def block(streams, mine, other):
                async with SQLAlchemyUnitOfWork(async_sessionmaker(hasty)) as uow:
                    await store.append([an_event(streams[0])], uow=uow)
                    mine.set()
                    await other.wait()
                    await store.append([an_event(streams[1])], uow=uow)

            events = asyncio.Event(), asyncio.Event()
            results = await asyncio.gather(block("ab", *events), block("ba", *reversed(events)), return_exceptions=True)
        [error] = [result for result in results if result is not None]
        assert isinstance(error, DBAPIError)
        assert "deadlock detected" in str(error)
        assert len(await everything(store)) == 2


async def some_wait(engine, count):
    return await waiting(engine) == count


async def there_was_a_deadlock(engine):
    return await scalar(engine, "SELECT deadlocks > 0 FROM pg_stat_database WHERE datname = current_database()")


class Colour(Enum):
    RED = "red"


class TestValues:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            "'; DROP TABLE events; --",
            "%s :x ? $1",
            'a"b\\c\n\t\r',
            "naïve 日本 🎉",
            "\x01\x1f\x7f\u2028\ufeff\uffff",
        ],
        ids=["empty", "space", "quotes", "placeholders", "escapes", "scripts", "controls"],
    )
    async def test_any_text_comes_back(self, store, text):
        """Text of any script, quotes, controls and all, comes back as it went in, wherever it stands."""
        event = an_event(
            f"stream {text}",
            event_id=f"id {text}",
            aggregate_type=text,
            event_type=f"type {text}",
            payload={f"key {text}": text, "list": [text]},
            metadata={text: {text: None}},
            correlation_id=f"c {text}",
            causation_id=f"c {text}",
        )
        await store.append([event])
        [read] = await store.get_events(f"stream {text}")
        assert read.model_dump(exclude={"version", "position", "recorded_at"}) == event.model_dump(
            exclude={"version", "position", "recorded_at"}
        )
        assert await store.get_events_after(0, event_types=[f"type {text}"], aggregate_types=[text]) == [read]

    async def test_ids_of_the_full_length_come_back(self, store):
        """Ids and names of 255 characters, of several bytes each, are stored whole."""
        long = "ß" * 255
        await store.append([an_event(long, event_id=long, aggregate_type=long, event_type=long, correlation_id=long)])
        [read] = await store.get_events(long)
        assert {read.event_id, read.aggregate_type, read.event_type, read.correlation_id} == {long}

    async def test_ids_that_look_like_numbers_stay_text(self, store):
        """Ids such as "007", "1e3" or "true" are not taken for numbers."""
        for text in ("007", "1e3", "1.0", "true", "null", "{}", '"quoted"'):
            await store.append([an_event(text, event_id=text, correlation_id=text)])
            [read] = await store.get_events(text)
            assert (read.aggregate_id, read.event_id, read.correlation_id) == (text, text, text)

    async def test_python_values_come_back_in_their_json_form(self, store):
        """Decimal, UUID, times, Enum, sets and tuples come back as JSON has them, from append as from a read."""
        payload = {
            "total": Decimal("10.50"),
            "id": UUID(int=7),
            "at": datetime(2024, 1, 2, 3, 4, 5, tzinfo=KOLKATA),
            "colour": Colour.RED,
            "tags": {"one"},
            "pair": (1, 2),
            "deep": [{"more": {"total": Decimal(1)}}],
        }
        form = {
            "total": "10.50",
            "id": "00000000-0000-0000-0000-000000000007",
            "at": "2024-01-02T03:04:05+05:30",
            "colour": "red",
            "tags": ["one"],
            "pair": [1, 2],
            "deep": [{"more": {"total": "1"}}],
        }
        [stored] = await store.append([an_event(payload=payload, metadata=payload)])
        [read] = await store.get_events("order-1")
        assert stored.payload == read.payload == stored.metadata == read.metadata == form

    @pytest.mark.parametrize("value", [0, -1, 2**31, 2**53 + 1, 2**63, 2**64 + 1, -(2**200), 10**400])
    async def test_whole_numbers_of_any_size_come_back(self, store, value):
        """Whole numbers are exact, whatever their size."""
        await store.append([an_event(payload={"n": value})])
        [read] = await store.get_events("order-1")
        assert read.payload == {"n": value}
        assert type(read.payload["n"]) is int

    @pytest.mark.parametrize(
        "value", [0.0, 1.0, 0.1, 1e-7, 5e-324, 123456789.123456789, 1e15, 1e16, 1e22, 1e23, 1.7976931348623157e308]
    )
    async def test_fractions_come_back(self, store, value):
        """Floating-point numbers come back as the same floating-point numbers."""
        await store.append([an_event(payload={"x": value, "y": -value})])
        [read] = await store.get_events("order-1")
        assert read.payload == {"x": value, "y": -value}
        assert type(read.payload["x"]) is float

    @pytest.mark.parametrize("where", ["payload", "metadata"])
    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("a\0b", "contains a NUL character, which PostgreSQL cannot store"),
            ("\ud800", "contains a lone surrogate"),
            (float("nan"), "is nan, which JSON cannot hold"),
            (float("-inf"), "is -inf, which JSON cannot hold"),
            (Decimal("NaN"), "is NaN, which JSON cannot hold"),
            (object(), "is a object, which has no JSON form"),
            ({1: "a"}, "has the key 1: keys of JSON objects are strings"),
        ],
    )
    async def test_what_json_cannot_hold_is_refused_by_its_place(self, store, session_factory, where, value, message):
        """Values that one of the databases would refuse are ValueErrors naming the place, before anything is sent."""
        event = an_event(**{"payload": {}, where: {"list": [{"ok": 1}, {"bad": value}]}})
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            with pytest.raises(ValueError, match=rf"{where} of Placed\.list\[1\]\.bad {message}"):
                await store.append([an_event(), event], uow=uow)
            await store.append([an_event()], uow=uow)
        assert len(await everything(store)) == 1

    async def test_a_key_with_nul_is_refused(self, store):
        """A NUL character in a key is refused like one in a value."""
        with pytest.raises(ValueError, match="a key of payload of Placed.deep contains a NUL character"):
            await store.append([an_event(payload={"deep": {"a\0b": 1}})])

    async def test_values_that_slipped_past_the_model_are_refused(self, store):
        """An event changed by model_copy, which validates nothing, is refused by the field's name all the same."""
        event = an_event()
        with pytest.raises(ValueError, match="occurred_at"):
            await store.append([event.model_copy(update={"occurred_at": datetime(2024, 1, 1)})])  # noqa: DTZ001
        with pytest.raises(ValueError, match="aggregate_id"):
            await store.append([event.model_copy(update={"aggregate_id": "x" * 256})])
        with pytest.raises(ValueError, match="event_type"):
            await store.append([event.model_copy(update={"event_type": "a\0b"})])
        assert await store.last_position() == 0

    async def test_documents_are_copied(self, store):
        """Changing a payload after the append does not change what was returned."""
        payload = {"lines": [1]}
        [stored] = await store.append([an_event(payload=payload)])
        payload["lines"].append(2)
        assert stored.payload == {"lines": [1]}


class TestTimes:
    @ONLY_POSTGRESQL
    async def test_the_servers_time_zone_is_not_utc(self, engine):
        """The tests below would show a time read in the session's zone."""
        assert await scalar(engine, "SHOW timezone") == "Asia/Kolkata"

    @pytest.mark.parametrize(
        "given",
        [
            datetime(2024, 7, 1, 12, 0, tzinfo=UTC),
            datetime(2024, 7, 1, 12, 0, 0, 1, tzinfo=KOLKATA),
            datetime(2024, 3, 31, 1, 30, tzinfo=timezone(timedelta(hours=-9, minutes=-30))),
            datetime(1, 1, 1, tzinfo=UTC),
            datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
            datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        ],
    )
    async def test_occurred_at_comes_back_in_utc(self, store, given):
        """An aware time of any zone and any year comes back as the same moment, in UTC, to the microsecond."""
        [stored] = await store.append([an_event(occurred_at=given)])
        [read] = await store.get_events("order-1")
        [paged] = await store.get_events_after(0)
        for event in (stored, read, paged):
            assert event.occurred_at == given
            assert event.occurred_at.tzinfo is UTC

    def test_a_naive_time_is_refused(self):
        """A time without a zone never becomes an event."""
        with pytest.raises(ValueError, match="occurred_at must be timezone-aware"):
            an_event(occurred_at=datetime(2024, 1, 1))  # noqa: DTZ001

    async def test_recorded_at_is_the_databases_clock(self, store, session_factory, database):
        """recorded_at lies between two looks at the database's clock, in UTC, whatever the event brought along."""
        look = "SELECT clock_timestamp()" if database.kind == "postgresql" else "SELECT julianday('now')"

        async def clock(uow):
            value = await uow.session.scalar(sa.text(look))
            if isinstance(value, datetime):
                return value
            return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=value - 2440587.5)

        given = an_event(recorded_at=datetime(2001, 1, 1, tzinfo=UTC))
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            before = await clock(uow)
            stored = await store.append([given, an_event()], uow=uow)
            after = await clock(uow)
        tolerance = timedelta(milliseconds=2)  # SQLite's clock has milliseconds
        read = await everything(store)
        assert [event.recorded_at for event in read] == [event.recorded_at for event in stored]
        for event in (*read, *stored):
            assert before - tolerance <= event.recorded_at <= after + tolerance
            assert event.recorded_at.tzinfo is UTC

    @ONLY_POSTGRESQL
    async def test_recorded_at_is_not_the_transactions_beginning(self, store, session_factory):
        """Two appends of one transaction are recorded at two times."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            [first] = await store.append([an_event()], uow=uow)
            [second] = await store.append([an_event()], uow=uow)
        assert first.recorded_at < second.recorded_at


class TestIsolation:
    @ONLY_POSTGRESQL
    @pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
    @pytest.mark.parametrize("how", ["engine", "option"])
    async def test_reading_by_position_needs_read_committed(self, database, level, how):
        """Under another isolation level, which would lose events silently, reads by position are refused."""
        options = {"isolation_level": level} if how == "engine" else {"execution_options": {"isolation_level": level}}
        async with an_engine(database.url, **options) as engine:
            store = SQLAlchemyEventStore(async_sessionmaker(engine))
            await store.append([an_event()])
            assert len(await store.get_events("order-1")) == 1
            message = f"needs READ COMMITTED, this transaction is {level}: use a unit of work of its own"
            with pytest.raises(PersistenceError, match=message):
                await store.get_events_after(0)
            with pytest.raises(PersistenceError, match=message):
                await store.last_position()
            with pytest.raises(PersistenceError, match=message):
                await everything(store)
            async with SQLAlchemyUnitOfWork(async_sessionmaker(engine)) as uow:
                with pytest.raises(PersistenceError, match=message):
                    await store.get_events_after(0, uow=uow)
                await store.append([an_event()], uow=uow)
            assert len(await store.get_events("order-1")) == 2

    @ONLY_POSTGRESQL
    async def test_an_append_on_an_old_snapshot_fails_instead_of_trying_forever(self, database, store):
        """Under REPEATABLE READ an append that cannot see the stream's end is refused by the database."""
        async with an_engine(database.url, isolation_level="REPEATABLE READ") as engine:
            async with asyncio.timeout(10):
                with pytest.raises(DBAPIError, match="could not serialize access"):
                    async with SQLAlchemyUnitOfWork(async_sessionmaker(engine)) as uow:
                        assert await store.get_events("order-1", uow=uow) == []
                        await store.append([an_event()])
                        await store.append([an_event()], uow=uow)
        assert len(await store.get_events("order-1")) == 1


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
        async with an_engine(twin.url) as other_engine:
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


class TestSchemas:
    @pytest.fixture(params=["tenant", "Tenant_A", "select"])
    def schema(self, request):
        return request.param

    @pytest.fixture
    async def tenant(self, engine, schema):
        """A second events table, in a schema of its own."""
        async with engine.begin() as connection:
            await connection.execute(sa.schema.CreateSchema(schema))
            await connection.run_sync(in_schema(events_table, schema).create)
        return schema

    def stores(self, engine, tenant):
        by_name = SQLAlchemyEventStore(async_sessionmaker(engine), schema=tenant)
        mapped = engine.execution_options(schema_translate_map={None: tenant})
        by_map = SQLAlchemyEventStore(async_sessionmaker(mapped))
        named = engine.execution_options(schema_translate_map={"any": tenant})
        by_both = SQLAlchemyEventStore(async_sessionmaker(named), schema="any")
        return [by_name, by_map, by_both]

    @ONLY_POSTGRESQL
    async def test_each_has_its_own_events(self, engine, store, tenant):
        """A store with schema=, or a schema_translate_map, reads and writes that schema's table only."""
        for number, tenants_store in enumerate(self.stores(engine, tenant)):
            [stored] = await tenants_store.append([an_event()], expected_version=number)
            assert stored.position == number + 1
            assert len(await tenants_store.get_events("order-1")) == number + 1
            assert len(await tenants_store.get_events_after(0)) == number + 1
            assert len(await everything(tenants_store)) == number + 1
            assert await tenants_store.last_position() == number + 1
            with pytest.raises(OptimisticConcurrencyError, match=f"expected version 9, found {number + 1}"):
                await tenants_store.append([an_event(), an_event()], expected_version=9)
            await continue_tenant(engine, tenant, number + 1)
        assert await store.last_position() == 0
        assert await store.get_events("order-1") == []

    @ONLY_POSTGRESQL
    async def test_writers_hold_the_readers_of_their_own_schema(self, engine, session_factory, store, tenant):
        """An open writer holds readers of its schema, by whichever way both name it, and no others."""
        for tenants_store in self.stores(engine, tenant):
            async with SQLAlchemyUnitOfWork(tenants_store._scope._session_factory) as uow:  # the store's own engine
                await tenants_store.append([an_event("held")], uow=uow)
                before = await store.append([an_event("free")])
                assert await store.last_position() == before[-1].position
                for reader in self.stores(engine, tenant):
                    await reader.append([an_event("later")])
                    assert await reader.get_events_after(0) == []
                    assert await reader.last_position() == 0
                await uow.rollback()
            async with engine.begin() as connection:
                await connection.execute(sa.delete(in_schema(events_table, tenant)))  # no triggers on this one

    @ONLY_POSTGRESQL
    async def test_writers_of_the_default_schema_hold_nobody_else(self, engine, session_factory, store, tenant):
        """A writer in the default schema holds no reader of another schema."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await store.append([an_event()], uow=uow)
            for number, tenants_store in enumerate(self.stores(engine, tenant)):
                await tenants_store.append([an_event()])
                assert len(await tenants_store.get_events_after(0)) == number + 1
            assert await store.get_events_after(0) == []

    async def test_the_default_schema_may_be_named(self, session_factory, store, database):
        """The default schema by its own name is the same table, and the same lock."""
        named = SQLAlchemyEventStore(session_factory, schema="public" if database.kind == "postgresql" else "main")
        await named.append([an_event(), an_event()])
        assert await everything(named) == await everything(store)
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await named.append([an_event()], uow=uow)
            if database.kind == "postgresql":
                await store.append([an_event("b")])
            assert await store.last_position() == 2
            assert len(await store.get_events_after(0)) == 2

    @ONLY_POSTGRESQL
    async def test_one_unit_of_work_may_append_to_several(self, engine, session_factory, store, tenant):
        """Appending to two schemas in one transaction holds the readers of both, with one lock each."""
        tenants_store = SQLAlchemyEventStore(session_factory, schema=tenant)
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await store.append([an_event()], uow=uow)
            await tenants_store.append([an_event()], uow=uow)
            await store.append([an_event()], uow=uow)
            await tenants_store.append([an_event()], uow=uow)
            assert await locks(engine) == 2
            await store.append([an_event("b")])
            await tenants_store.append([an_event("b")])
            assert await store.last_position() == 0
            assert await tenants_store.last_position() == 0
        assert await store.last_position() == 3
        assert await tenants_store.last_position() == 3

    @ONLY_POSTGRESQL
    async def test_no_search_path_is_needed(self, database, engine, tenant):
        """With schema= the store works where the search_path is empty."""
        settings = {"server_settings": {"search_path": ""}}
        async with an_engine(database.direct_url, connect_args=settings) as bare:  # a proxy refuses such settings
            store = SQLAlchemyEventStore(async_sessionmaker(bare), schema=tenant)
            await store.append([an_event(), an_event()])
            assert len(await everything(store)) == 2

    async def test_a_schema_without_the_table_is_named(self, session_factory, database):
        """A table that is missing in the schema is reported under the schema's name."""
        store = SQLAlchemyEventStore(session_factory, schema="elsewhere")
        expected = SchemaOutOfDateError if database.kind == "postgresql" else (SchemaOutOfDateError, DBAPIError)
        with pytest.raises(expected, match="elsewhere"):
            await store.get_events("order-1")

    @pytest.mark.parametrize("name", ["", "a b", "a;b", 'a"b', "1a", "ä", "a\n", "a" * 64, 7])
    def test_a_name_that_is_no_identifier_is_refused(self, name):
        """What could be more than a name never reaches SQL."""
        with pytest.raises(ValueError, match="Invalid SQL schema name"):
            SQLAlchemyEventStore(schema=name)


async def continue_tenant(engine, tenant, position):
    """Undo what refused appends cost the sequence, so that the next position is the next number."""
    async with engine.begin() as connection:
        sequence = engine.dialect.identifier_preparer.quote_schema(tenant) + ".events_position_seq"
        await connection.execute(
            sa.text("SELECT setval(CAST(:name AS regclass), :n)"), {"name": sequence, "n": position}
        )


GOLDEN = Path(__file__).parent / "golden"


def wrapped(statement):
    """Break long lines at spaces, so that a diff shows what changed."""
    lines = statement.strip().splitlines()
    return "\n".join(
        part
        for line in lines
        for part in textwrap.wrap(line, 110, break_long_words=False, break_on_hyphens=False, subsequent_indent="    ")
    )


async def append_in_a_savepoint(store, uow):
    async with uow.session.begin_nested():
        await store.append([an_event("new")], uow=uow)
    await store.append([an_event("new")], uow=uow)


async def refused(store, uow):
    with pytest.raises(OptimisticConcurrencyError):
        await store.append([an_event("new"), an_event("a", version=2)], uow=uow)


async def change_nothing(store, uow):
    async with store.allow_changes(uow=uow):
        pass


class TestEmittedSql:
    """The SQL that the store sends, reviewed: one file a database and operation in tests/core/golden.

    UPDATE_GOLDEN=1 pytest tests/core/test_event_store.py -k EmittedSql   writes the files anew; then read the diff.
    """

    OPERATIONS: ClassVar = {
        "append_one": lambda store, uow: store.append([an_event("new")], uow=uow),
        "append_several": lambda store, uow: store.append([an_event("new"), an_event("new")], uow=uow),
        "append_again": append_in_a_savepoint,
        "append_refused": refused,
        "get_events": lambda store, uow: store.get_events("a", uow=uow),
        "get_events_limited": lambda store, uow: store.get_events("a", after_version=1, limit=2, uow=uow),
        "get_events_after": lambda store, uow: store.get_events_after(0, uow=uow),
        "get_events_after_filtered": lambda store, uow: store.get_events_after(
            0, limit=2, event_types=["Placed", "Paid"], aggregate_types=["Order"], uow=uow
        ),
        "last_position": lambda store, uow: store.last_position(uow=uow),
        "allow_changes": change_nothing,
    }

    @pytest.mark.parametrize("operation", OPERATIONS)
    async def test_is_the_reviewed_one(self, store, engine, session_factory, database, operation):
        """An operation sends the statements of its golden file, in that order."""
        sent = []
        await store.append([an_event("a"), an_event("a")])
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.connection()

            @sa.event.listens_for(engine.sync_engine, "before_cursor_execute")
            def note_statement(_connection, _cursor, statement, *_):
                sent.append(wrapped(statement))

            await self.OPERATIONS[operation](store, uow)
            await uow.rollback()
        text = ";\n\n".join(sent) + ";\n"
        file = GOLDEN / database.kind / f"{operation}.sql"
        if os.environ.get("UPDATE_GOLDEN"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        assert text == file.read_text()

    def test_has_no_file_left_over(self):
        """Every golden file belongs to an operation."""
        expected = {f"{kind}/{operation}.sql" for kind in ("postgresql", "sqlite") for operation in self.OPERATIONS}
        assert {str(file.relative_to(GOLDEN)) for file in GOLDEN.rglob("*.sql")} == expected
