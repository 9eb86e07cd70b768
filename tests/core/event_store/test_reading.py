"""Reading a stream by version and all streams by position, filtered and page by page."""

from __future__ import annotations

from uuid import UUID

import pytest
import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from tests.support.engines import checked_out
from tests.support.events import an_event, everything


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
        assert checked_out(engine) == 0
        await store.append([an_event()])
        assert [event.position async for event in stream] == [3, 4, 5]

    async def test_streaming_nothing_at_a_time_is_refused(self, store):
        """A page size of 0 would never end."""
        with pytest.raises(ValueError, match="page_size is 0: read at least one event at a time"):
            [event async for event in store.stream_after(0, page_size=0)]
