"""Definitions of columns: types and options in one spelling, and everything else refused with its reason."""

from __future__ import annotations

import re

import pytest

from cqrs_ddd_advanced_core.exceptions import DomainError, SchemaError
from cqrs_ddd_advanced_core.projections.column_types import ColumnSpec, ColumnType, Kind, parse_column
from tests.domain.refusals import total_refused

CANONICAL = [
    ("CHAR(3)", "CHAR(3)"),
    ("varchar( 50 )", "VARCHAR(50)"),
    ("VARCHAR (10485760)", "VARCHAR(10485760)"),
    ("Text", "TEXT"),
    ("smallint", "SMALLINT"),
    ("INTEGER", "INTEGER"),
    ("int", "INTEGER"),
    ("BIGINT", "BIGINT"),
    ("DECIMAL(10,2)", "DECIMAL(10, 2)"),
    ("numeric( 10\t,\n2 )", "DECIMAL(10, 2)"),
    ("NUMERIC(10)", "DECIMAL(10, 0)"),
    ("DECIMAL(1000, 1000)", "DECIMAL(1000, 1000)"),
    ("REAL", "REAL"),
    ("double \r\n precision", "DOUBLE PRECISION"),
    ("BOOLEAN", "BOOLEAN"),
    ("bool", "BOOLEAN"),
    ("DATE", "DATE"),
    ("TIME", "TIME"),
    ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE"),
    ("timestamptz", "TIMESTAMP WITH TIME ZONE"),
    ("Timestamp  with\ttime zone", "TIMESTAMP WITH TIME ZONE"),
    ("UUID", "UUID"),
    ("JSON", "JSONB"),
    ("jsonb", "JSONB"),
    ("BYTEA", "BYTEA"),
    ("blob", "BYTEA"),
    ("text[]", "TEXT[]"),
    ("VARCHAR(5) [ ]", "VARCHAR(5)[]"),
    ("numeric(4,1)[]", "DECIMAL(4, 1)[]"),
    ("double precision[]", "DOUBLE PRECISION[]"),
    ("timestamp with time zone[]", "TIMESTAMP WITH TIME ZONE[]"),
    ("UUID[]", "UUID[]"),
]

OPTIONS = [
    ("INTEGER PRIMARY KEY", "INTEGER PRIMARY KEY"),
    ("INTEGER primary  key not null", "INTEGER PRIMARY KEY"),
    ("INTEGER NOT NULL PRIMARY KEY UNIQUE", "INTEGER PRIMARY KEY UNIQUE"),
    ("INTEGER NULL", "INTEGER"),
    ("INTEGER UNIQUE NULL", "INTEGER UNIQUE"),
    ("INTEGER DEFAULT 1 NOT NULL", "INTEGER NOT NULL DEFAULT 1"),
    ("INTEGER DEFAULT NULL", "INTEGER"),
    ("VARCHAR(5)NOT NULL", "VARCHAR(5) NOT NULL"),
    ("  TEXT  \n", "TEXT"),
]

UNREADABLE = [
    ("MONEY", "MONEY"),
    ("MONEY \t\r\n ", "MONEY"),
    ("SERIAL PRIMARY KEY", "SERIAL PRIMARY KEY"),
    ("DOUBLE", "DOUBLE"),
    ("INTEGER REFERENCES x", "REFERENCES x"),
    ("INTEGER CHECK (total > 0)", "CHECK (total > 0)"),
    ("INTEGER GENERATED ALWAYS AS IDENTITY", "GENERATED ALWAYS AS IDENTITY"),
    ("INTEGER AUTOINCREMENT", "AUTOINCREMENT"),
    ("INTEGER PRIMARY", "PRIMARY"),
    ("INTEGER NOT", "NOT"),
    ("INTEGER KEY", "KEY"),
    ("INTEGER NOT NUL", "NOT NUL"),
    ("TEXT COLLATE nocase", "COLLATE nocase"),
    ("TEXT; DROP TABLE users", "; DROP TABLE users"),
    ("TEXT;", ";"),
    ("TEXT, x INTEGER", ", x INTEGER"),
    ("TEXT)", ")"),
    ("TEXT -- comment", "-- comment"),
    ("TEXT /* comment */", "/* comment */"),
    ("TEXT # comment", "# comment"),
    ("/**/TEXT", "/**/TEXT"),
    ("INTEGER(11)", "(11)"),
    ("TIMESTAMP(3)", "(3)"),
    ("TIMESTAMP WITHOUT TIME ZONE", "WITHOUT TIME ZONE"),
    ("TIMESTAMP WITH TIME", "WITH TIME"),
    ("TIME WITH TIME ZONE", "WITH TIME ZONE"),
    ("TIMESTAMP[] WITH TIME ZONE", "WITH TIME ZONE"),
    ("TEXT[][]", "[]"),
    ("TEXT[3]", "[3]"),
    ("TEXT ARRAY", "ARRAY"),
    ("TEXT[", "["),
    ("[]", "[]"),
    ("'TEXT'", "'TEXT'"),
    ('"TEXT"', '"TEXT"'),
    ("`TEXT`", "`TEXT`"),
    ("1", "1"),
    ("CHARACTER(5)", "CHARACTER(5)"),
    ("INT4", "INT4"),
    ("VARCHAR(5, 6)", ", 6)"),
    ("DECIMAL(5, 2, 1)", ", 1)"),
    ("VARCHAR(50; DROP TABLE users)", "; DROP TABLE users)"),
    ("\u017fMALLINT", "\u017fMALLINT"),
    ("TEXT\u00a0", "\u00a0"),
    ("TEXT \u3000", "\u3000"),
    ("TEXT\u00a0NOT NULL", "\u00a0NOT NULL"),
    ("TEXT\0", "\0"),
    ("TEXT\x0b", "\x0b"),
    ("TEXT\u2028NULL", "\u2028NULL"),
    ("INTEGER DEFAULT 1 + 1", "+ 1"),
    ("INTEGER DEFAULT 1 1", "1"),
    ("TEXT DEFAULT 'a' || 'b'", "|| 'b'"),
    ("TEXT DEFAULT 'a' 'b'", "'b'"),
    ("TEXT DEFAULT 'a'::text", "::text"),
    ("INTEGER DEFAULT 1;--", ";--"),
]

WRONG = [
    ("", "the definition '' ends too early; allowed are CHAR(n)"),
    (" \n", "the definition ' \\n' ends too early; allowed are CHAR(n)"),
    ("VARCHAR(5", "the definition 'VARCHAR(5' ends too early"),
    ("VARCHAR", "VARCHAR needs a length, such as VARCHAR(50); use TEXT for text of any length"),
    ("CHAR NOT NULL", "CHAR needs a length"),
    ("VARCHAR[]", "VARCHAR needs a length"),
    ("VARCHAR(0)", "the length of VARCHAR is 1 to 10485760, not 0"),
    ("CHAR(10485761)", "the length of CHAR is 1 to 10485760, not 10485761"),
    ("VARCHAR()", "the arguments in 'VARCHAR()' are not those of a type"),
    ("VARCHAR(-1)", "the arguments in 'VARCHAR(-1)' are not those of a type"),
    ("VARCHAR(+1)", "the arguments in 'VARCHAR(+1)' are not those of a type"),
    ("VARCHAR(1.0)", "the arguments in 'VARCHAR(1.0)' are not those of a type"),
    ("VARCHAR(1e2)", "the arguments in 'VARCHAR(1e2)' are not those of a type"),
    ("VARCHAR(n)", "the arguments in 'VARCHAR(n)' are not those of a type"),
    ("VARCHAR(MAX)", "the arguments in 'VARCHAR(MAX)' are not those of a type"),
    ("VARCHAR(" + "9" * 5000 + ")", "are not those of a type"),
    ("VARCHAR(999999999)", "the length of VARCHAR is 1 to 10485760, not 999999999"),
    ("VARCHAR(1000000000)", "the arguments in 'VARCHAR(1000000000)' are not those of a type"),
    ("DECIMAL", "DECIMAL needs a precision, such as DECIMAL(10, 2)"),
    ("NUMERIC NOT NULL", "DECIMAL needs a precision, such as DECIMAL(10, 2)"),
    ("DECIMAL(0)", "the precision of DECIMAL is 1 to 1000, not 0"),
    ("DECIMAL(1001, 2)", "the precision of DECIMAL is 1 to 1000, not 1001"),
    ("DECIMAL(4, 5)", "the scale of DECIMAL(4, s) is 0 to 4, not 5"),
    ("DECIMAL(4,)", "the arguments in 'DECIMAL(4,)' are not those of a type"),
    ("DECIMAL(4, -2)", "the arguments in 'DECIMAL(4, -2)' are not those of a type"),
    ("JSON[]", "there are no arrays of JSON; use JSONB for lists of documents"),
    ("BLOB[]", "there are no arrays of BYTEA; use JSONB for lists of documents"),
    ("INTEGER NULL NOT NULL", "NULL contradicts NOT NULL in 'INTEGER NULL NOT NULL'"),
    ("INTEGER PRIMARY KEY NULL", "NULL contradicts PRIMARY KEY in 'INTEGER PRIMARY KEY NULL'"),
    ("INTEGER NOT NULL NOT NULL", "NOT NULL is there twice"),
    ("INTEGER NULL NULL", "NULL is there twice"),
    ("INTEGER UNIQUE UNIQUE", "UNIQUE is there twice"),
    ("INTEGER PRIMARY KEY PRIMARY KEY", "PRIMARY KEY is there twice"),
    ("INTEGER DEFAULT 1 DEFAULT 1", "DEFAULT is there twice"),
    ("INTEGER DEFAULT NULL DEFAULT NULL", "DEFAULT is there twice"),
    ("JSON PRIMARY KEY", "JSONB cannot be PRIMARY KEY: its values are not compared as a whole"),
    ("JSON UNIQUE", "JSONB cannot be UNIQUE: its values are not compared as a whole"),
    ("BYTEA PRIMARY KEY", "BYTEA cannot be PRIMARY KEY: its values are not compared as a whole"),
    ("BYTEA UNIQUE", "BYTEA cannot be UNIQUE: its values are not compared as a whole"),
    ("TEXT[] PRIMARY KEY", "TEXT[] cannot be PRIMARY KEY: its values are not compared as a whole"),
    ("TEXT[] UNIQUE", "TEXT[] cannot be UNIQUE: its values are not compared as a whole"),
    ("REAL PRIMARY KEY", "REAL cannot be PRIMARY KEY: it is inexact; use DECIMAL(p, s)"),
    ("DOUBLE PRECISION UNIQUE", "DOUBLE PRECISION cannot be UNIQUE: it is inexact; use DECIMAL(p, s)"),
]


@pytest.mark.parametrize(("written", "canonical"), CANONICAL)
def test_a_type_has_one_canonical_spelling(written, canonical):
    """Case, white space and synonyms do not matter; the type's text is the canonical one."""
    spec = parse_column("total", written)
    assert str(spec.type) == canonical
    assert spec == ColumnSpec("total", spec.type)


@pytest.mark.parametrize(("written", "canonical"), OPTIONS)
def test_options_have_one_canonical_order(written, canonical):
    """Options may be in any order; the rendered definition has one, without what goes without saying."""
    assert parse_column("total", written).definition == canonical


def test_a_column_is_nullable_unless_told_otherwise():
    """Without options a column takes NULL, is no key, not unique and has no default."""
    plain = parse_column("total", "INTEGER")
    assert (plain.nullable, plain.primary_key, plain.unique, plain.default) == (True, False, False, None)
    key = parse_column("total", "INTEGER PRIMARY KEY")
    assert (key.nullable, key.primary_key, key.unique, key.default) == (False, True, False, None)


@pytest.mark.parametrize(("definition", "rest"), UNREADABLE)
def test_what_is_not_in_the_grammar_is_refused(definition, rest):
    """Injected SQL, comments and other dialects' words are named in the error, with what is allowed."""
    message = f"column 'total': cannot read {rest!r} in {definition!r}; allowed are CHAR(n), VARCHAR(n), TEXT"
    with pytest.raises(SchemaError, match=r"\A" + re.escape(message)):
        parse_column("total", definition)


@pytest.mark.parametrize(("definition", "message"), WRONG)
def test_a_definition_that_contradicts_itself_is_refused(definition, message):
    """Missing or impossible arguments, repeated and contradicting options are refused with the reason."""
    with total_refused(message):
        parse_column("total", definition)


@pytest.mark.parametrize("definition", [None, 5, b"TEXT", ["TEXT"], Kind.TEXT.__class__])
def test_a_definition_is_text(definition):
    """What is not a string is refused with an example of what is."""
    with total_refused(f"a definition is text such as 'INTEGER NOT NULL', not {definition!r}"):
        parse_column("total", definition)


@pytest.mark.parametrize("name", ["", "a b", "total; --", "1st", "t\n", "größe", "x" * 64, None, 7])
def test_a_bad_column_name_is_refused(name):
    """A name that is no identifier is a SchemaError with the one message for names."""
    with pytest.raises(SchemaError) as parsed:
        parse_column(name, "INTEGER")
    with pytest.raises(SchemaError) as made:
        ColumnSpec(name, ColumnType(Kind.INTEGER))
    assert str(parsed.value) == str(made.value) == f"Invalid SQL column name: {name!r}"


def test_a_schema_error_is_a_value_error():
    """Callers may catch refused definitions as ValueError or as DomainError."""
    with pytest.raises(ValueError, match="cannot read 'MONEY'") as caught:
        parse_column("total", "MONEY")
    assert isinstance(caught.value, DomainError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": Kind.VARCHAR}, "VARCHAR needs a length"),
        ({"kind": Kind.TEXT, "length": 5}, "TEXT takes no length"),
        ({"kind": Kind.INTEGER, "precision": 5}, "INTEGER takes no precision"),
        ({"kind": Kind.INTEGER, "scale": 0}, "INTEGER takes no precision"),
        ({"kind": Kind.DECIMAL}, "DECIMAL needs a precision"),
        ({"kind": Kind.DECIMAL, "scale": 2}, "DECIMAL needs a precision"),
        ({"kind": Kind.BYTEA, "array": True}, "there are no arrays of BYTEA"),
    ],
)
def test_an_incomplete_type_cannot_be_made(arguments, message):
    """A ColumnType made by hand obeys the rules of the grammar."""
    with pytest.raises(SchemaError, match=r"\A" + re.escape(message)):
        ColumnType(**arguments)
