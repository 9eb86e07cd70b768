"""Appending: what comes back, how positions and versions count, batches of any size, whose transaction it is."""
# ruff: noqa: PT012  (what must fail is the end of a block)

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from cqrs_ddd_advanced_core import StoredEvent
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError
from tests.support.events import an_event, everything, places


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
