"""JSON documents on their way out of the database."""

from __future__ import annotations

import json

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore
from cqrs_ddd_persistence_sqlalchemy.core.dialect.documents import loads
from tests.support.engines import configured_engine
from tests.support.events import an_event

DOCUMENTS = [
    "{}",
    "[]",
    '{"a": [1, 1.5, -0.0, 1e23, null, true, "ß\\u00e9"]}',
    '"text"',
    "12345678901234567890",
    " 1",
    "\n{}\t",
    "{} ",
]


@pytest.mark.parametrize("text", DOCUMENTS)
def test_the_quick_way_reads_what_the_other_reads(text):
    """Values and their types are those of `json.loads`, whatever white space is around them."""
    assert repr(loads(text)) == repr(json.loads(text))


@pytest.mark.parametrize("text", ["", " ", "{", "{}x", "nul", "\ufeff{}"])
def test_what_is_no_document_is_refused_alike(text):
    """The error is that of `json.loads`."""
    with pytest.raises(json.JSONDecodeError) as expected:
        json.loads(text)
    with pytest.raises(json.JSONDecodeError) as found:
        loads(text)
    assert str(found.value) == str(expected.value)


async def test_the_engines_own_deserializer_is_used(database):
    """Who has given the engine a JSON library of its own gets what that makes."""

    def deserialize(text):
        return {"by": "another library", "text": len(text) > 1}

    async with configured_engine(database.url, json_deserializer=deserialize) as engine:
        store = SQLAlchemyEventStore(async_sessionmaker(engine))
        await store.append([an_event("a", payload={"n": 1})])
        [event] = await store.get_events_after(0)
        assert event.payload == {"by": "another library", "text": True}
        assert [each.payload for each in await store.get_events("a")] == [event.payload]
