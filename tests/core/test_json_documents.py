"""Python values to JSON: what becomes of each type, and how the ones without a JSON form are refused."""

from __future__ import annotations

import json
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretBytes, SecretStr

from cqrs_ddd_advanced_core import StoredEvent
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore
from cqrs_ddd_persistence_sqlalchemy.core.json_documents import (
    check_text,
    dumps,
    to_document,
    to_document_and_text,
)


class Colour(Enum):
    RED = "red"


class Weight(Enum):
    HEAVY = Decimal("1.50")


class Level(IntEnum):
    HIGH = 3


class Word(StrEnum):
    YES = "yes"


class Line(BaseModel):
    sku: str = Field(serialization_alias="articleNumber")
    price: Decimal = Decimal("9.99")
    tags: frozenset[str] = frozenset()


class Anything(BaseModel):
    value: Any


@dataclass
class Plain:
    value: Any


class Pair(NamedTuple):
    left: Any
    right: Any


class Text(str):
    __slots__ = ()


FORMS = [
    (None, None),
    (True, True),
    (3, 3),
    (-(10**30), -(10**30)),
    (1.5, 1.5),
    ("text", "text"),
    (Text("text"), "text"),
    (Colour.RED, "red"),
    (Weight.HEAVY, "1.50"),
    (Level.HIGH, 3),
    (Word.YES, "yes"),
    (Decimal("10.50"), "10.50"),
    (Decimal("1E+3"), "1E+3"),
    (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
    (datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "2024-01-02T03:04:05.000006Z"),
    (date(2024, 1, 2), "2024-01-02"),
    (time(3, 4), "03:04:00"),
    (timedelta(days=1, seconds=2), "P1DT2S"),
    (Path("/a/b"), "/a/b"),
    (b"bytes", "bytes"),
    ([1, (2, 3)], [1, [2, 3]]),
    ({4}, [4]),
    (frozenset({5}), [5]),
    (Pair(1, Colour.RED), [1, "red"]),
    (deque([Decimal(1)]), ["1"]),
    (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    ({"a": {"b": {Decimal(1)}}}, {"a": {"b": ["1"]}}),
    ({Word.YES: 1}, {"yes": 1}),
    (Line(sku="s", tags=frozenset({"new"})), {"articleNumber": "s", "price": "9.99", "tags": ["new"]}),
    (Anything(value=Anything(value=Level.HIGH)), {"value": {"value": 3}}),
    (Plain(value=Decimal("1.0")), {"value": "1.0"}),
]

NUL, SURROGATE, NAN = "a\0b", "\udc80", float("nan")

REFUSED = [
    pytest.param(NUL, r"^document\.value contains a NUL character, which PostgreSQL cannot store", id="NUL"),
    pytest.param(SURROGATE, r"^document\.value contains a lone surrogate, which is not valid text", id="surrogate"),
    pytest.param(NAN, r"^document\.value is nan, which JSON cannot hold", id="nan"),
    pytest.param(float("inf"), r"^document\.value is inf, which JSON cannot hold", id="inf"),
    pytest.param(Decimal("-Infinity"), r"^document\.value is -Infinity, which JSON cannot hold", id="Decimal infinity"),
    pytest.param(Decimal("sNaN"), r"^document\.value is sNaN, which JSON cannot hold", id="Decimal nan"),
    pytest.param(object(), r"^document\.value is a object, which has no JSON form", id="object"),
    pytest.param(len, r"^document\.value is a builtin_function_or_method, which has no JSON form", id="function"),
    pytest.param(b"\xff", r"^document\.value is a bytes, which has no JSON form", id="bytes"),
    pytest.param(SecretStr("s"), r"^document\.value is a SecretStr, of which JSON would hold asterisks", id="secret"),
    pytest.param(
        [Anything(value=SecretBytes(b"s"))], r"^document\.value\[0\]\.value is a SecretBytes", id="secret deep"
    ),
    pytest.param({1: 2}, r"^document\.value has the key 1: keys of JSON objects are strings", id="key"),
    pytest.param({None: 2}, r"^document\.value has the key None: keys of JSON objects are strings", id="None as key"),
    pytest.param(
        {(1, 2): 3}, r"^document\.value has the key \(1, 2\): keys of JSON objects are strings", id="tuple as key"
    ),
    pytest.param({NUL: 1}, r"^a key of document\.value contains a NUL character", id="NUL in key"),
    pytest.param({SURROGATE: 1}, r"^a key of document\.value contains a lone surrogate", id="surrogate in key"),
    pytest.param([1, [2, NUL]], r"^document\.value\[1\]\[1\] contains a NUL character", id="NUL in list"),
    pytest.param({"a": [{"b": NAN}]}, r"^document\.value\.a\[0\]\.b is nan", id="nan deep down"),
    pytest.param(Anything(value=NUL), r"^document\.value\.value contains a NUL character", id="NUL in model"),
    pytest.param(Anything(value={1: 2}), r"^document\.value\.value has the key 1", id="key in model"),
    pytest.param(b"a\0b", r"^document\.value contains a NUL character", id="NUL in bytes"),
    pytest.param(Path("/a\0b"), r"^document\.value contains a NUL character", id="NUL in path"),
    pytest.param(Plain(NUL), r"^document\.value.* contains a NUL character", id="NUL in dataclass"),
    pytest.param(Plain(NAN), r"^document\.value.* is nan, which JSON cannot hold", id="nan in dataclass"),
    pytest.param(deque([NAN]), r"^document\.value.* is nan, which JSON cannot hold", id="nan in deque"),
    pytest.param(deque([SURROGATE]), r"^document\.value.* contains a lone surrogate", id="surrogate in deque"),
    pytest.param(10**5000, r"^document\.value", id="more digits than Python prints"),
]


@pytest.mark.parametrize(("value", "form"), FORMS, ids=repr)
def test_every_type_has_its_form(value, form):
    """What comes out is plain JSON, equal to what a read will return, and of JSON's own types."""
    document = to_document({"value": value}, "document")
    assert document == {"value": form}
    assert json.loads(dumps(document)) == document
    assert type(document["value"]) is type(form)


@pytest.mark.parametrize(("value", "message"), REFUSED)
def test_what_has_no_form_is_refused_by_its_place(value, message):
    """A value that JSON or a database cannot hold is a ValueError that says where it is."""
    with pytest.raises(ValueError, match=message):
        dumps(to_document({"value": value}, "document"))


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}], ids=["list", "dict"])
def test_nesting_without_end_is_refused(wrap):
    """A document nested more deeply than can be stored is a ValueError, not a crash of the interpreter's stack."""
    value = 1
    for _ in range(100_000):
        value = wrap(value)
    with pytest.raises(ValueError, match="document"):
        to_document({"value": value}, "document")


def test_a_document_that_contains_itself_is_refused():
    """A circular document is a ValueError."""
    value = []
    value.append(value)
    with pytest.raises(ValueError, match="document"):
        to_document({"value": value}, "document")


def test_the_input_is_copied():
    """The form shares nothing with the document it was made of."""
    inner = {"list": [1]}
    document = to_document({"value": inner}, "document")
    inner["list"].append(2)
    assert document == {"value": {"list": [1]}}


@pytest.mark.parametrize(
    "value", [*(each for each, _ in FORMS), 1e23, -0.0, 2**70, "1e+23", "\\u0000", "ß日🎉", ()], ids=repr
)
@pytest.mark.parametrize("key", ["plain", "ß", Word.YES], ids=repr)
def test_document_and_text_come_at_once(value, key):
    """The quick way gives the same document and the same text as the other, whatever is in it."""
    given = {"more": [{key: value}, value], "value": value}
    document, text = to_document_and_text(given, "document")
    assert same(document, to_document(given, "document"))
    assert text == dumps(document)


@pytest.mark.parametrize(("value", "message"), REFUSED)
def test_document_and_text_refuse_alike(value, message):
    """The quick way refuses what the other refuses, and says the same."""
    with pytest.raises(ValueError, match=message):
        to_document_and_text({"value": value}, "document")


def test_the_quick_way_copies_too():
    """The form shares nothing with the document it was made of."""
    inner = {"list": [1, {"a": 2}]}
    document, _ = to_document_and_text({"value": inner}, "document")
    inner["list"][1]["a"] = 3
    inner["list"].append(2)
    assert document == {"value": {"list": [1, {"a": 2}]}}


def test_text_is_compact_and_readable():
    """JSON text has no needless spaces and keeps letters of all scripts as they are."""
    assert dumps({"a": [1, "ß", None, True]}) == '{"a":[1,"ß",null,true]}'


@pytest.mark.parametrize("text", ["", "plain", "ß日🎉", "\x01\x7f\ufeff"])
def test_check_text_returns_what_can_be_stored(text):
    """Text that both databases hold passes unchanged."""
    assert check_text(text, "name") == text


@pytest.mark.parametrize(("text", "message"), [(NUL, "NUL character"), ("\ud83d\ude00", "lone surrogate")])
def test_check_text_names_what_it_refuses(text, message):
    """Text that a database cannot hold is refused by the name it was given."""
    with pytest.raises(ValueError, match=f"^the note contains a {message}"):
        check_text(text, "the note")


documents = st.dictionaries(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=4),
        max_leaves=12,
    ),
    max_size=4,
)


def same(left, right):
    """Compare values together with their types, so that 1, 1.0 and True are three."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


@given(documents)
def test_json_values_are_their_own_form(document):
    """What is JSON already stays as it is."""
    assert same(to_document(document, "document"), document)


async def test_any_document_comes_back_from_the_database(session_factory):
    """Documents of any shape come back as they went in, types of numbers included, from payload and metadata."""
    store = SQLAlchemyEventStore(session_factory)
    examples = []

    # Examples are collected first and stored in one batch: hypothesis knows nothing of event loops.
    @settings(max_examples=300, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(documents)
    def collect(document):
        examples.append(document)

    collect()
    events = [StoredEvent(aggregate_id="a", event_type="Made", payload=each, metadata=each) for each in examples]
    await store.append(events)
    for event, document in zip(await store.get_events("a"), examples, strict=True):
        assert same(event.payload, document), (event.payload, document)
        assert same(event.metadata, document), (event.metadata, document)
