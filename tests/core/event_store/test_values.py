"""Values of events: what comes back as it was, in which form, and what is refused."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from uuid import UUID

import pytest

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from tests.support.events import an_event, everything


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
            "at": datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=5, minutes=30))),
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
