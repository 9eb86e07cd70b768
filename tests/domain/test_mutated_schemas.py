"""Definitions and schemas with random damage: refused with a SchemaError, or understood and written down again."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cqrs_ddd_advanced_core.exceptions import SchemaError
from cqrs_ddd_advanced_core.projections import ProjectionIndex, ProjectionSchema
from cqrs_ddd_advanced_core.projections.column_types import parse_column
from tests.domain.columns import column_specs

SCHEMA = ProjectionSchema(
    collection="carts",
    fields=[
        ("id", "INTEGER PRIMARY KEY"),
        ("owner", "TEXT DEFAULT 'x'"),
        ("total", "DECIMAL(4, 2) NOT NULL"),
        ("at", "TIMESTAMP"),
        ("tags", "UUID[]"),
    ],
    indexes=[
        ProjectionIndex(("owner", "total"), unique=True, descending="total", where={"owner": {"$ne": "x"}}),
        ProjectionIndex("at", where={"at": "2026-05-01 08:00:00+00:00", "total": 5}),
        "owner",
    ],
).to_dict()

WORDS = ["id", "owner", "total", "$ne", "INTEGER", "TEXT", "PRIMARY KEY", "name", "columns", "unique", "where"]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.sampled_from(WORDS)
JUNK = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.sampled_from(WORDS) | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value, path=()):
    """Yield the path of each part of nested dicts and lists."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield from places(each, (*path, key))


def replaced(value, path, new):
    """Return a copy with another part at the path."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@settings(max_examples=500)
@given(st.sampled_from(list(places(SCHEMA))), JUNK)
def test_a_damaged_schema_is_refused_or_means_something(path, junk):
    """Whatever stands in place of a part of a schema's dict, there is no other error than SchemaError."""
    try:
        made = ProjectionSchema.from_dict(replaced(SCHEMA, path, junk))
    except SchemaError:
        return
    again = ProjectionSchema.from_dict(made.to_dict())
    assert (again, hash(again), again.fingerprint) == (made, hash(made), made.fingerprint)


@st.composite
def damaged(draw):
    """A definition with some of its text repeated, removed, moved, replaced or in another case."""
    text = draw(column_specs()).definition[:200]
    for _ in range(draw(st.integers(1, 3))):
        start, end = sorted(draw(st.tuples(*[st.integers(0, len(text))] * 2)))
        part = text[start:end]
        inserted = draw(
            st.sampled_from(["", part * 2, part.swapcase(), part[::-1], " ", "'", "(", ")", "[]", ",", "\0", "--"])
            | st.text(max_size=3)
        )
        text = text[:start] + inserted + text[end:]
    return text


@settings(max_examples=500)
@given(damaged())
def test_a_damaged_definition_is_refused_or_means_something(text):
    """Text that was a definition is refused with the column named, or is read into what it is written as."""
    try:
        spec = parse_column("total", text)
    except SchemaError as error:
        assert str(error).startswith("column 'total': ")  # noqa: PT017  (any message about this column will do)
    else:
        assert parse_column("total", spec.definition) == spec
