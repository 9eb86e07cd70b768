"""Schemas: their names, fields and keys, and when two of them are equal."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from cqrs_ddd_advanced_core.exceptions import DomainError
from cqrs_ddd_advanced_core.projections import ProjectionIndex, ProjectionSchema
from cqrs_ddd_advanced_core.projections.column_types import parse_column
from tests.domain.carts import FIELDS, schema, two_columns
from tests.domain.refusals import refused


def test_columns_are_the_parsed_fields_in_their_order():
    """A schema holds its columns in the order given, and each by name."""
    made = schema()
    assert made.columns == tuple(parse_column(name, definition) for name, definition in FIELDS)
    assert made.column("total") is made.columns[2]
    assert made.key == made.primary_key == ("cart_id",)
    assert made.indexes == ()


def test_positions_and_keywords_are_the_same():
    """Arguments may be given by position or by name."""
    by_name = ProjectionSchema(collection="carts", fields=FIELDS, indexes=["owner"], primary_key=["cart_id"])
    assert ProjectionSchema("carts", FIELDS, ["owner"], ["cart_id"]) == by_name


def test_an_unknown_column_cannot_be_asked_for():
    """Asking for a column that is not there names the collection, the column and those that are there."""
    with refused("collection 'carts' has no column 'c'; there are a, b"):
        two_columns(primary_key="a").column("c")


def test_a_schema_error_is_a_value_error():
    """A refused schema is a ValueError and a DomainError at once."""
    with pytest.raises(ValueError, match="Invalid SQL table name") as caught:
        schema(collection="a b")
    assert isinstance(caught.value, DomainError)


@pytest.mark.parametrize(
    "name",
    ["order_summaries; DROP TABLE users; --", "", "1a", "a\n", "größe", "a" * 64, "a.b", '"a"', None, 5],
)
def test_a_bad_collection_name_is_refused(name):
    """A name that is no identifier is refused with the one message for names and the rule."""
    with refused(f"Invalid SQL table name: {name!r}; use ASCII letters, digits and underscores"):
        schema(collection=name)


@pytest.mark.parametrize("name", ["sqlite_master", "SQLite_x", "pg_class", "PG_x"])
def test_a_database_s_own_prefix_is_refused(name):
    """Names that begin like a database's own tables are refused with the reason."""
    with refused(f"Invalid SQL table name: {name!r}; ") as caught:
        schema(collection=name)
    assert "itself" in str(caught.value) or "its own catalogues" in str(caught.value)


@pytest.mark.parametrize("name", ["excluded", "Excluded", "EXCLUDED"])
def test_the_name_of_an_upsert_s_row_is_refused(name):
    """In ON CONFLICT a table called excluded cannot be told from the row that was to be inserted."""
    with refused(f"Invalid SQL table name: {name!r}; SQL calls the row of an upsert so"):
        schema(collection=name)


@pytest.mark.parametrize("name", ["Order", "select", "_", "pgx", "sqlite", "exclude", "x" * 63])
def test_any_other_name_is_legal(name):
    """Reserved words, mixed case and long names are names like others."""
    assert schema(collection=name).collection == name


@pytest.mark.parametrize("name", ["total; --", "", "1st", "a b", "t\n", "größe", "x" * 64, None, 5])
def test_a_bad_column_name_is_refused(name):
    """A column name that is no identifier is refused with the one message for names, and the collection."""
    with refused(f"Invalid SQL column name: {name!r} in collection 'carts'; use ASCII letters"):
        schema([*FIELDS, (name, "INTEGER")])


@pytest.mark.parametrize("name", ["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"])
def test_postgresql_s_system_columns_are_refused(name):
    """Names of system columns are refused with the reason."""
    reason = "every PostgreSQL table has a system column of that name"
    with refused(f"Invalid SQL column name: {name!r} in collection 'carts'; {reason}"):
        schema([*FIELDS, (name, "INTEGER")])


def test_the_row_id_s_name_is_refused():
    """A column cannot be called oid, for the reason of SQLite."""
    with refused("Invalid SQL column name: 'oid' in collection 'carts'; SQLite calls the row id so"):
        schema([*FIELDS, ("oid", "INTEGER")])


@pytest.mark.parametrize("name", ["Oid", "XMIN", "select", "order", "user", "Total2"])
def test_any_other_column_name_is_legal(name):
    """Reserved words and mixed case are names like others, since names are quoted."""
    assert schema([*FIELDS, (name, "INTEGER")]).column(name).name == name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([], "collection 'carts' has 0 fields; it may have 1 to 1000"),
        (
            [(f"c{n}", "INTEGER") for n in range(1001)],
            "collection 'carts' has 1001 fields; it may have 1 to 1000",
        ),
        ("abc", "collection 'carts': fields is a list of (name, definition) pairs, not 'abc'"),
        ({"a": "INTEGER"}, "collection 'carts': fields is a list of (name, definition) pairs, not {"),
        (None, "collection 'carts': fields is a list of (name, definition) pairs, not None"),
        (["ab"], "collection 'carts': a field is a (name, definition) pair, not 'ab'"),
        ([("a",)], "collection 'carts': a field is a (name, definition) pair, not ('a',)"),
        ([("a", "TEXT", "NOT NULL")], "collection 'carts': a field is a (name, definition) pair, not ('a', "),
        ([5], "collection 'carts': a field is a (name, definition) pair, not 5"),
        (
            [("a", 5)],
            "collection 'carts': column 'a': a definition is text such as 'INTEGER NOT NULL', not 5",
        ),
        ([("a", "MONEY")], "collection 'carts': column 'a': cannot read 'MONEY' in 'MONEY'; allowed are "),
        ([("a", "TEXT"), ("a", "TEXT")], "collection 'carts': column 'a' is there twice, before as 'a'"),
        (
            [("a", "TEXT"), ("A", "TEXT")],
            "collection 'carts': column 'A' is there twice, before as 'a'; SQLite",
        ),
        (
            [("a", "INTEGER")],
            "collection 'carts': its primary key has 0 columns, it takes 1 to 32; mark a field",
        ),
        ([("a", "JSON PRIMARY KEY")], "collection 'carts': column 'a': JSONB cannot be PRIMARY KEY"),
    ],
)
def test_a_bad_field_is_refused(fields, message):
    """What no table can be made of is refused with the collection and the column named."""
    with refused(message):
        schema(fields)


@pytest.mark.parametrize(
    ("name", "definition", "wanted"),
    [
        ("_version", "TEXT", "SMALLINT or INTEGER or BIGINT, not TEXT"),
        ("_version", "INTEGER[]", "SMALLINT or INTEGER or BIGINT, not INTEGER[]"),
        ("_last_event_id", "UUID", "VARCHAR or TEXT, not UUID"),
        ("_last_event_id", "CHAR(9)", "VARCHAR or TEXT, not CHAR(9)"),
        ("_last_event_position", "INTEGER", "BIGINT, not INTEGER"),
    ],
)
def test_housekeeping_columns_have_types_of_their_own(name, definition, wanted):
    """The columns that guard writes can hold what is compared with them."""
    with refused(f"collection 'carts': column {name!r} must be {wanted}"):
        schema([("id", "INTEGER PRIMARY KEY"), (name, definition)])


@pytest.mark.parametrize("count", [1, 2, 3, 32])
def test_several_marked_fields_are_a_composite_key(count):
    """Fields marked PRIMARY KEY make the key, in their order."""
    made = schema([(f"k{n}", "INTEGER PRIMARY KEY") for n in range(count)])
    assert made.key == tuple(f"k{n}" for n in range(count))


def test_a_key_has_at_most_32_columns():
    """PostgreSQL's limit is refused here already."""
    with refused("collection 'carts': its primary key has 33 columns, it takes 1 to 32"):
        schema([(f"k{n}", "INTEGER PRIMARY KEY") for n in range(33)])


def test_the_key_may_be_named_apart_from_the_fields():
    """Named columns are the key in the order named, and are NOT NULL."""
    made = two_columns(primary_key=["b", "a"])
    assert made.key == ("b", "a")
    assert [(column.primary_key, column.nullable) for column in made.columns] == [(True, False)] * 2
    assert made.fields == (("a", "INTEGER PRIMARY KEY"), ("b", "INTEGER PRIMARY KEY"))


def test_one_name_is_a_key():
    """A single column may be named without a list."""
    assert two_columns(primary_key="b").key == ("b",)
    assert schema([("code", "INTEGER")], primary_key="code").key == ("code",)


def test_the_key_s_order_may_be_given_for_marked_fields():
    """Marked fields and named columns agree when they are the same set; the names give the order."""
    fields = [("a", "INTEGER PRIMARY KEY"), ("b", "INTEGER PRIMARY KEY")]
    assert schema(fields, primary_key=("b", "a")).key == ("b", "a")


@pytest.mark.parametrize(
    ("fields", "primary_key", "message"),
    [
        (["a INTEGER"], ["x"], "primary_key names an unknown column 'x'; there are a"),
        (["a INTEGER"], ["A"], "primary_key names an unknown column 'A'; there are a"),
        (["a INTEGER"], [["a"]], "primary_key names an unknown column ['a']; there are a"),
        (["a INTEGER"], ["a", "a"], "primary_key names the column 'a' twice"),
        (["a INTEGER"], [], "its primary key has 0 columns"),
        (["a INTEGER"], 5, "primary_key is a list of columns, not 5"),
        (
            ["a INTEGER PRIMARY KEY", "b INTEGER"],
            ["b"],
            "primary_key=['b'] contradicts the PRIMARY KEY fields ['a']",
        ),
        (
            ["a INTEGER PRIMARY KEY", "b INTEGER"],
            ["a", "b"],
            "primary_key=['a', 'b'] contradicts the PRIMARY KEY",
        ),
        (["a INTEGER PRIMARY KEY"], [], "primary_key=[] contradicts the PRIMARY KEY fields ['a']"),
        (["a INTEGER NULL"], ["a"], "column 'a': NULL contradicts PRIMARY KEY in 'INTEGER NULL PRIMARY KEY'"),
        (["a JSON"], ["a"], "column 'a': JSONB cannot be PRIMARY KEY"),
        (["a REAL"], ["a"], "column 'a': REAL cannot be PRIMARY KEY: it is inexact"),
    ],
)
def test_a_contradicting_key_is_refused(fields, primary_key, message):
    """A key of unknown, repeated, nullable or incomparable columns is refused."""
    with refused(f"collection 'carts': {message}"):
        schema([tuple(field.split(" ", 1)) for field in fields], primary_key=primary_key)


def test_a_schema_does_not_change():
    """Attributes cannot be set, and later changes of the lists passed in do not matter."""
    fields = [list(pair) for pair in FIELDS]
    made = schema(fields)
    fields[0][1] = "TEXT"
    fields.clear()
    assert made == schema()
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'collection'"):
        made.collection = "other"


def test_schemas_are_equal_when_they_say_the_same():
    """Spelling and the way the key is given do not make schemas different, and equal ones hash alike."""
    written = schema([("a", "numeric( 10,2 ) primary key"), ("b", "text null default null")])
    same = schema([["a", "DECIMAL(10, 2)"], ["b", "TEXT"]], primary_key="a", indexes=[])
    assert written == same
    assert hash(written) == hash(same)
    assert written != schema([("a", "DECIMAL(10, 3) PRIMARY KEY"), ("b", "TEXT")])
    assert written != schema([("b", "TEXT"), ("a", "DECIMAL(10, 2) PRIMARY KEY")])


def test_copies_are_equal():
    """A schema survives pickling, deep copies and dataclasses.replace."""
    made = schema(indexes=[ProjectionIndex("total", where={"open": True})])
    assert pickle.loads(pickle.dumps(made)) == made
    assert pickle.loads(pickle.dumps(made)).columns == made.columns
    assert copy.deepcopy(made) == made
    assert dataclasses.replace(made) == made
    assert dataclasses.replace(made, collection="baskets").collection == "baskets"
