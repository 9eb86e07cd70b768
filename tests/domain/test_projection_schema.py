import copy
import dataclasses
import json
import pickle
import re
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import IntEnum, StrEnum
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cqrs_ddd_advanced_core.exceptions import DomainError, SchemaError
from cqrs_ddd_advanced_core.projections import ProjectionIndex, ProjectionSchema
from cqrs_ddd_advanced_core.projections.column_types import parse_column
from cqrs_ddd_advanced_core.projections.predicates import Condition

FIELDS = [
    ("cart_id", "VARCHAR(50) PRIMARY KEY"),
    ("owner", "TEXT NOT NULL"),
    ("total", "DECIMAL(10, 2) DEFAULT 0"),
    ("items", "INTEGER"),
    ("weight", "REAL"),
    ("open", "BOOLEAN DEFAULT TRUE"),
    ("opened_at", "TIMESTAMP DEFAULT CURRENT_TIMESTAMP"),
    ("due", "DATE"),
    ("slot", "TIME"),
    ("batch", "UUID"),
    ("tags", "TEXT[] DEFAULT '{}'"),
    ("notes", "JSONB"),
    ("scan", "BYTEA"),
    ("_version", "INTEGER DEFAULT 1"),
    ("_last_event_id", "VARCHAR(100)"),
    ("_last_event_position", "BIGINT"),
]


def schema(fields=FIELDS, **changes):
    """Make a schema that is fine but for what the test changes."""
    return ProjectionSchema(**{"collection": "carts", "fields": fields, **changes})


def two_columns(**changes):
    """Make a schema of two columns without a key of its own."""
    return schema([("a", "INTEGER"), ("b", "INTEGER")], **changes)


def refused(message):
    """Expect a SchemaError that begins like that."""
    return pytest.raises(SchemaError, match=r"\A" + re.escape(message))


def derived_name(*columns, unique=False, collection="carts"):
    """Return the name that a schema gives an index."""
    fields = [("id", "INTEGER PRIMARY KEY"), *((column, "INTEGER") for column in columns)]
    made = schema(fields, collection=collection, indexes=[ProjectionIndex(columns, unique=unique)])
    return made.indexes[0].name


class Status(StrEnum):
    OPEN = "open"


class Level(IntEnum):
    LOW = 1


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


@pytest.mark.parametrize(
    ("column", "given", "kept"),
    [
        ("owner", "it's; -- ann", "it's; -- ann"),
        ("cart_id", Status.OPEN, "open"),
        ("items", 3, 3),
        ("items", Level.LOW, 1),
        ("total", 3, Decimal("3.00")),
        ("total", Decimal("3.5"), Decimal("3.50")),
        ("total", "3.5", Decimal("3.50")),
        ("open", False, False),
        ("due", date(2024, 2, 29), date(2024, 2, 29)),
        ("due", "2024-02-29", date(2024, 2, 29)),
        ("slot", "12:30", time(12, 30)),
        (
            "opened_at",
            datetime(2024, 5, 1, 12, tzinfo=timezone(timedelta(hours=2))),
            datetime(2024, 5, 1, 10, tzinfo=UTC),
        ),
        ("opened_at", "2024-05-01T10:00:00+00:00", datetime(2024, 5, 1, 10, tzinfo=UTC)),
        ("batch", "6f9619ff-8b86-d011-b42d-00c04fc964ff", UUID("6f9619ff-8b86-d011-b42d-00c04fc964ff")),
        ("weight", None, None),
        ("notes", None, None),
        ("tags", None, None),
        ("scan", None, None),
    ],
)
@pytest.mark.parametrize("negated", [False, True])
def test_a_predicate_is_kept_in_the_column_s_type(column, given, kept, negated):
    """Constants are brought into their column's type, whether compared for equality or difference."""
    where = {column: {"$ne": given} if negated else given}
    made = schema(indexes=[ProjectionIndex("items", where=where)])
    assert made.indexes[0].where == (Condition(column, kept, negated),)
    assert type(made.indexes[0].where[0].value) is type(kept)
    assert ProjectionSchema.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_an_empty_predicate_is_none():
    """An index over all rows has no conditions, however that is said."""
    assert ProjectionIndex("a", where={}) == ProjectionIndex("a", where=None) == ProjectionIndex("a", where=())


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("open = TRUE", "where is a mapping of columns to values, not 'open = TRUE'"),
        (["open"], "where is a mapping of columns to values, not ['open']"),
        (("open", True), "where is a mapping of columns to values, not ('open', True)"),
        (
            {"open": {"$gt": 1}},
            "where takes a value, None or {'$ne': ...} for a column, not 'open': {'$gt': 1}",
        ),
        ({"open": {}}, "where takes a value, None or {'$ne': ...} for a column, not 'open': {}"),
        ({"open": {"$ne": 1, "$eq": 1}}, "where takes a value, None or {'$ne': ...} for a column"),
        ({"open": {"$ne": {"$ne": 1}}}, "where takes a value, None or {'$ne': ...} for a column"),
        ({"open": [True]}, "where takes a value, None or {'$ne': ...} for a column, not 'open': [True]"),
        ({"items": 1.0}, "where takes a value, None or {'$ne': ...} for a column, not 'items': 1.0"),
        ({5: 1}, "where takes a value, None or {'$ne': ...} for a column, not 5: 1"),
        (
            (Condition("items", 1), Condition("items", 2, negated=True)),
            "where has two conditions for one column",
        ),
    ],
)
def test_a_predicate_of_another_shape_is_refused(where, message):
    """SQL text, other operators, lists and several conditions for one column are refused."""
    with refused(f"index on ('owner',): {message}"):
        ProjectionIndex("owner", where=where)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"nope": 1}, "unknown column 'nope'; there are cart_id, "),
        ({"open OR 1=1": True}, "unknown column 'open OR 1=1'; there are cart_id, "),
        ({"open": 1}, "where: column 'open': 1 does not fit BOOLEAN: it takes TRUE or FALSE"),
        ({"items": "1"}, "where: column 'items': '1' does not fit INTEGER: it takes an integer"),
        ({"items": True}, "where: column 'items': True does not fit INTEGER: it takes an integer"),
        ({"owner": 1}, "where: column 'owner': 1 does not fit TEXT: it takes a string"),
        (
            {"owner": "a\0"},
            r"where: column 'owner': 'a\x00' does not fit TEXT: NUL characters cannot be stored",
        ),
        ({"cart_id": "x" * 51}, "where: column 'cart_id': 'xxx"),
        (
            {"total": Decimal("0.001")},
            "where: column 'total': 0.001 does not fit DECIMAL(10, 2): it has too many",
        ),
        ({"opened_at": "2024-05-01"}, "where: column 'opened_at': '2024-05-01' does not fit TIMESTAMP"),
        ({"weight": 1}, "where: column 'weight' is REAL, which is compared with None only"),
        ({"notes": "{}"}, "where: column 'notes' is JSONB, which is compared with None only"),
        ({"tags": "{}"}, "where: column 'tags' is TEXT[], which is compared with None only"),
        ({"scan": {"$ne": "x"}}, "where: column 'scan' is BYTEA, which is compared with None only"),
    ],
)
def test_a_predicate_that_does_not_fit_its_column_is_refused(where, message):
    """Constants obey the rules of defaults; what cannot be compared exactly is compared with None only."""
    with refused(f"collection 'carts': index on ('owner',): {message}"):
        schema(indexes=[ProjectionIndex("owner", where=where)])


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


@pytest.mark.parametrize("data", [None, [], "owner", 5])
def test_an_index_is_not_made_of_what_is_no_dict(data):
    """What is no mapping is refused by name, not with a TypeError."""
    with refused(f"an index is a mapping with columns and so on, not {data!r}"):
        ProjectionIndex.from_dict(data)


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
