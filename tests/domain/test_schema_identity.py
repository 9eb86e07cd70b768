"""Schemas as plain data, and the fingerprint, which changes when the table would."""

from __future__ import annotations

import json
import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cqrs_ddd_advanced_core.projections import ProjectionIndex, ProjectionSchema
from tests.domain.carts import FIELDS, schema, two_columns
from tests.domain.refusals import refused


def test_to_dict_is_plain_data():
    """The dict is what JSON gives back, and from_dict makes an equal schema of it."""
    made = schema(
        [("a", "INTEGER"), ("b", "decimal(4,1) DEFAULT 1")],
        primary_key="a",
        indexes=[
            "b",
            ProjectionIndex(("a", "b"), unique=True, descending="b", where={"b": {"$ne": Decimal(2)}}),
        ],
    )
    assert made.to_dict() == {
        "collection": "carts",
        "fields": [["a", "INTEGER PRIMARY KEY"], ["b", "DECIMAL(4, 1) DEFAULT 1.0"]],
        "indexes": [
            {"columns": ["b"], "unique": False, "descending": [], "where": None, "name": "ix_carts_b"},
            {
                "columns": ["a", "b"],
                "unique": True,
                "descending": ["b"],
                "where": {"b": {"$ne": "2.0"}},
                "name": "ux_carts_a_b",
            },
        ],
        "primary_key": ["a"],
    }
    assert json.loads(json.dumps(made.to_dict())) == made.to_dict()
    assert ProjectionSchema.from_dict(made.to_dict()) == made


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"collection": "carts"},
            "a schema has collection, fields, and maybe indexes and primary_key, not ['coll",
        ),
        (
            {**schema().to_dict(), "x": 1},
            "a schema has collection, fields, and maybe indexes and primary_key",
        ),
        ({**schema().to_dict(), "fields": []}, "collection 'carts' has 0 fields"),
        ([], "a schema is a mapping with collection, fields and so on, not []"),
        ("carts", "a schema is a mapping with collection, fields and so on, not 'carts'"),
        (None, "a schema is a mapping with collection, fields and so on, not None"),
    ],
)
def test_a_bad_dict_is_refused(data, message):
    """Missing and unknown keys are refused, and everything else as in a schema made by hand."""
    with refused(message):
        ProjectionSchema.from_dict(data)


def test_the_fingerprint_does_not_drift():
    """The fingerprint is the same on every machine and in every release."""
    assert two_columns(primary_key="a").fingerprint == "e1ba8e7a8965d329"


SAME = {
    "spelling": ([("a", " integer PRIMARY key"), ("b", "NUMERIC( 10 , 2 )  default +1.5")], {}),
    "synonyms": ([("a", "INT NOT NULL PRIMARY KEY"), ("b", "DECIMAL(10, 2) NULL DEFAULT 1.50")], {}),
    "order of columns": ([("b", "DECIMAL(10, 2) DEFAULT 1.5"), ("a", "INTEGER PRIMARY KEY")], {}),
    "key named apart": ([("a", "INTEGER"), ("b", "DECIMAL(10, 2) DEFAULT 1.5")], {"primary_key": "a"}),
    "a key of one is unique anyway": (
        [("a", "INTEGER PRIMARY KEY UNIQUE"), ("b", "DECIMAL(10, 2) DEFAULT 1.5")],
        {},
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_the_fingerprint_stays_when_the_table_would(name):
    """Spelling, synonyms, the order of columns and the way the key is given do not change it."""
    fields, arguments = SAME[name]
    wanted = schema([("a", "INTEGER PRIMARY KEY"), ("b", "DECIMAL(10, 2) DEFAULT 1.5")]).fingerprint
    assert schema(fields, **arguments).fingerprint == wanted


def test_the_fingerprint_ignores_the_order_of_indexes():
    """Indexes are a set, and a derived name is the same as one spelled out."""
    one = two_columns(primary_key="a", indexes=["a", "b"])
    other = two_columns(primary_key="a", indexes=[ProjectionIndex("b", name="ix_carts_b"), "a"])
    assert one.fingerprint == other.fingerprint


DIFFERENT = [
    schema(),
    schema(collection="baskets"),
    schema([*FIELDS, ("extra", "TEXT")]),
    schema([*FIELDS, ("Extra", "TEXT")]),
    schema([*FIELDS, ("extra", "VARCHAR(5)")]),
    schema([*FIELDS, ("extra", "VARCHAR(6)")]),
    schema([*FIELDS, ("extra", "TEXT[]")]),
    schema([*FIELDS, ("extra", "TEXT NOT NULL")]),
    schema([*FIELDS, ("extra", "TEXT UNIQUE")]),
    schema([*FIELDS, ("extra", "TEXT DEFAULT ''")]),
    schema([*FIELDS, ("extra", "TEXT DEFAULT 'CURRENT_TIMESTAMP'")]),
    schema([*FIELDS, ("extra", "TIMESTAMP")]),
    schema([*FIELDS, ("extra", "TIMESTAMP DEFAULT CURRENT_TIMESTAMP")]),
    schema([*FIELDS, ("extra", "INTEGER")]),
    schema([*FIELDS, ("extra", "INTEGER DEFAULT 1")]),
    schema([*FIELDS, ("extra", "BOOLEAN DEFAULT TRUE")]),
    schema([*FIELDS, ("extra", "JSON DEFAULT '1'")]),
    schema([*FIELDS, ("extra", "JSON DEFAULT '1.0'")]),
    schema([*FIELDS, ("extra", "JSON DEFAULT 'true'")]),
    schema([*FIELDS, ("extra", "INTEGER PRIMARY KEY")]),
    schema([*FIELDS, ("extra", "INTEGER PRIMARY KEY UNIQUE")]),
    schema([*FIELDS, ("extra", "INTEGER PRIMARY KEY")], primary_key=["extra", "cart_id"]),
    schema(indexes=["owner"]),
    schema(indexes=["items"]),
    schema(indexes=[("owner", "items")]),
    schema(indexes=[("items", "owner")]),
    schema(indexes=[ProjectionIndex("owner", unique=True)]),
    schema(indexes=[ProjectionIndex("owner", descending="owner")]),
    schema(indexes=[ProjectionIndex("owner", name="by_owner")]),
    schema(indexes=[ProjectionIndex("owner", where={"open": True})]),
    schema(indexes=[ProjectionIndex("owner", where={"open": False})]),
    schema(indexes=[ProjectionIndex("owner", where={"open": None})]),
    schema(indexes=[ProjectionIndex("owner", where={"open": {"$ne": True}})]),
    schema(indexes=[ProjectionIndex("owner", where={"open": {"$ne": None}})]),
]


def test_the_fingerprint_changes_when_the_table_would():
    """Names, types, options, defaults, the key and indexes each make a fingerprint of their own."""
    fingerprints = {made.fingerprint for made in DIFFERENT}
    assert len(fingerprints) == len(DIFFERENT)
    assert all(re.fullmatch(r"[0-9a-f]{16}", each) for each in fingerprints)


BLANKS = st.text(" \t\r\n", max_size=3)


@st.composite
def respelled(draw, definition):
    """Write a definition without quotes in another case and with other white space between its pieces."""
    pieces = re.findall(r"\w+|\S", definition)
    text = draw(BLANKS)
    for piece, follower in zip(pieces, [*pieces[1:], ""], strict=True):
        text += "".join(draw(st.sampled_from([letter.lower(), letter.upper()])) for letter in piece) + draw(BLANKS)
        if piece.isalnum() and follower.isalnum():
            text += " "
    return text


@given(st.data())
def test_spelling_never_changes_the_fingerprint(data):
    """However a definition is spaced and cased, schema and fingerprint are the same."""
    plain = [
        ("id", "VARCHAR(50) PRIMARY KEY"),
        ("total", "DECIMAL(10, 2) NOT NULL UNIQUE"),
        ("at", "TIMESTAMP WITH TIME ZONE NOT NULL"),
        ("size", "DOUBLE PRECISION"),
        ("tags", "TEXT[] NULL"),
        ("open", "BOOLEAN DEFAULT TRUE"),
    ]
    fields = [(name, data.draw(respelled(definition))) for name, definition in plain]
    assert schema(fields) == schema(plain)
    assert schema(data.draw(st.permutations(fields))).fingerprint == schema(plain).fingerprint
