"""Indexes of a schema: how they may be given, what they are called, and which are refused."""

from __future__ import annotations

import pytest

from cqrs_ddd_advanced_core.projections import ProjectionIndex
from tests.domain.carts import schema
from tests.domain.refusals import refused


def derived_name(*columns, unique=False, collection="carts"):
    """Return the name that a schema gives an index."""
    fields = [("id", "INTEGER PRIMARY KEY"), *((column, "INTEGER") for column in columns)]
    made = schema(fields, collection=collection, indexes=[ProjectionIndex(columns, unique=unique)])
    return made.indexes[0].name


@pytest.mark.parametrize("given", ["owner", ("owner",), ["owner"], ProjectionIndex("owner"), {"columns": ["owner"]}])
def test_an_index_may_be_given_in_several_ways(given):
    """A name, a sequence of names, an object and a dict are the same index."""
    (index,) = schema(indexes=[given]).indexes
    assert index == ProjectionIndex(columns=("owner",), name="ix_carts_owner")
    assert (index.columns, index.unique, index.descending, index.where) == (("owner",), False, (), ())


def test_an_index_name_is_derived_from_its_columns():
    """Plain indexes begin with ix_, unique ones with ux_, then collection and columns."""
    assert derived_name("a", "b") == "ix_carts_a_b"
    assert derived_name("a", unique=True) == "ux_carts_a"


def test_a_long_index_name_is_shortened_the_same_way_each_time():
    """A name that would be longer than 63 bytes ends in a hash of all of it."""
    assert derived_name("a" * 54) == "ix_carts_" + "a" * 54
    first, second = derived_name("a" * 55), derived_name("a" * 54 + "b")
    assert first == "ix_carts_" + "a" * 45 + "_" + "1b7f87fb"
    assert len(first) == len(second) == 63
    assert first[:54] == second[:54]
    assert first != second


def test_an_index_may_have_a_name_of_its_own():
    """A name that is given is kept."""
    assert schema(indexes=[ProjectionIndex("owner", name="by_owner")]).indexes[0].name == "by_owner"


def test_indexes_of_the_same_columns_may_differ():
    """Uniqueness, direction and predicate make different indexes of the same columns."""
    indexes = [
        ProjectionIndex("owner"),
        ProjectionIndex("owner", unique=True),
        ProjectionIndex("owner", descending="owner", name="downwards"),
        ProjectionIndex("owner", where={"open": True}, name="of_open"),
        ProjectionIndex("owner", where={"open": False}, name="of_closed"),
        ProjectionIndex("owner", where={"open": {"$ne": True}}, name="of_others"),
        ProjectionIndex("owner", where={"open": None}, name="of_unknown"),
    ]
    assert len(schema(indexes=indexes).indexes) == len(indexes)


def test_the_order_of_descending_and_where_does_not_matter():
    """Indexes that mean the same are equal."""
    one = ProjectionIndex(("a", "b"), descending=("a", "b"), where={"a": 1, "b": None})
    other = ProjectionIndex(["a", "b"], descending=["b", "a"], where={"b": None, "a": 1})
    assert one == other
    assert hash(one) == hash(other)


@pytest.mark.parametrize(
    ("indexes", "message"),
    [
        ("owner", "indexes is a list of columns, tuples of them or ProjectionIndex, not 'owner'"),
        ({"columns": ["owner"]}, "indexes is a list of columns, tuples of them or ProjectionIndex, not {"),
        (
            ProjectionIndex("owner"),
            "indexes is a list of columns, tuples of them or ProjectionIndex, not Proj",
        ),
        (None, "indexes is a list of columns, tuples of them or ProjectionIndex, not None"),
        ([5], "an index is a column name, a tuple of them or a ProjectionIndex, not 5"),
        ([()], "an index has 1 to 32 columns, not 0"),
        ([tuple(f"c{n}" for n in range(33))], "an index has 1 to 32 columns, not 33"),
        (["nope"], "index on ('nope',): unknown column 'nope'; there are cart_id, owner, total, "),
        (["Owner"], "index on ('Owner',): unknown column 'Owner'"),
        (["owner; --"], "Invalid SQL column name: 'owner; --' in an index; use ASCII letters"),
        ([("owner", 5)], "Invalid SQL column name: 5 in an index"),
        ([("owner", "owner")], "columns of an index name a column twice: ('owner', 'owner')"),
        (["notes"], "index on ('notes',): column 'notes' is JSONB, which cannot be indexed"),
        ([("owner", "tags")], "index on ('owner', 'tags'): column 'tags' is TEXT[], which cannot be indexed"),
        (["scan"], "index on ('scan',): column 'scan' is BYTEA, which cannot be indexed"),
        (["owner", "owner"], "index on ('owner',) is there twice"),
        (["owner", ProjectionIndex("owner", name="x")], "index on ('owner',) is there twice"),
        (
            ["owner", ProjectionIndex("owner", where={"open": True})],
            "index on ('owner',) would be called 'ix_carts_owner' like the index on ('owner',); pass",
        ),
        (
            [ProjectionIndex("owner", name="x"), ProjectionIndex("items", name="X")],
            "index on ('items',) would be called 'X' like the index on ('owner',); pass name=...",
        ),
        (
            [ProjectionIndex("owner", name="Carts")],
            "index on ('owner',) would be called 'Carts' like the table; pass name=...",
        ),
        (
            [{"column": "owner"}],
            "an index has columns, and maybe unique, descending, where and name, not ['column']",
        ),
        ([{"columns": "owner", "using": "gin"}], "an index has columns, and maybe unique"),
        ([{}], "an index has columns, and maybe unique, descending, where and name, not []"),
    ],
)
def test_a_bad_index_is_refused(indexes, message):
    """Unknown, repeated and unindexable columns, other shapes and clashing names are refused."""
    with refused(f"collection 'carts': {message}"):
        schema(indexes=indexes)


def test_an_inexact_column_is_indexed_but_never_unique():
    """REAL may be sorted by; as a unique index it is refused."""
    assert schema(indexes=["weight"]).indexes[0].columns == ("weight",)
    with refused("collection 'carts': index on ('weight',): column 'weight' is REAL, too inexact to be unique"):
        schema(indexes=[ProjectionIndex("weight", unique=True)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": 5}, "columns of an index are column names, not 5"),
        (
            {"columns": "a", "descending": "b"},
            "index on ('a',): descending names 'b', which is not one of its",
        ),
        ({"columns": "a", "descending": 5}, "descending of an index are column names, not 5"),
        ({"columns": "a", "descending": ("a", "a")}, "descending of an index name a column twice"),
        ({"columns": "a", "unique": "yes"}, "index on ('a',): unique is True or False, not 'yes'"),
        ({"columns": "a", "unique": 1}, "index on ('a',): unique is True or False, not 1"),
        ({"columns": "a", "name": "a b"}, "Invalid SQL index name: 'a b'; use ASCII letters"),
        ({"columns": "a", "name": "x" * 64}, f"Invalid SQL index name: {'x' * 64!r}; use ASCII letters"),
        ({"columns": "a", "name": 0}, "Invalid SQL index name: 0; use ASCII letters"),
        ({"columns": "a", "name": "SQLite_x"}, "Invalid SQL index name: 'SQLite_x'; SQLite keeps the prefix"),
    ],
)
def test_a_bad_index_cannot_be_made(arguments, message):
    """What can be seen without the columns is refused when the index is made."""
    with refused(message):
        ProjectionIndex(**arguments)


@pytest.mark.parametrize("data", [None, [], "owner", 5])
def test_an_index_is_not_made_of_what_is_no_dict(data):
    """What is no mapping is refused by name, not with a TypeError."""
    with refused(f"an index is a mapping with columns and so on, not {data!r}"):
        ProjectionIndex.from_dict(data)
