"""Definitions at random: each is read back as it was, or refused with the one kind of error."""

from __future__ import annotations

import re
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cqrs_ddd_advanced_core.exceptions import SchemaError
from cqrs_ddd_advanced_core.projections.column_types import ColumnSpec, ColumnType, Default, Kind, parse_column
from tests.domain.columns import column_specs

HOSTILE_SUFFIXES = [
    "; DROP TABLE users",
    "; DROP TABLE users; --",
    "-- ",
    "/* */",
    "/*",
    "CHECK (1 = 1)",
    "REFERENCES users (id) ON DELETE CASCADE",
    "CONSTRAINT x UNIQUE",
    'COLLATE "C"',
    "GENERATED ALWAYS AS (1) STORED",
    "AUTOINCREMENT",
    "); DELETE FROM users; --",
    ", evil TEXT",
    "'",
    "''",
    '"',
    "\\",
    "\0",
    "0",
    "TEXT",
    "TRUE",
    "ON CONFLICT REPLACE",
    "\u00a0",
    "\u2028NULL",
    "\uff1b",
]

PIECES = re.findall(
    r"\S+",
    "TEXT INT ( ) 5 , [ ] NULL NOT PRIMARY KEY UNIQUE DEFAULT 'x' '{}' -1 1.5 TRUE CURRENT_TIMESTAMP "
    "DECIMAL TIMESTAMP WITH TIME ZONE DOUBLE PRECISION VARCHAR BYTEA -- ;",
)


def outcome(text):
    """Return the column that the text is read into, or the message of the SchemaError."""
    try:
        return parse_column("total", text)
    except SchemaError as error:
        return str(error)


@given(column_specs())
def test_reading_a_rendered_definition_gives_the_same_column(spec):
    """Parsing undoes rendering, for every column that can be made, and hashes agree."""
    again = parse_column(spec.name, spec.definition)
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.definition == spec.definition


def junk():
    """Text that no definition goes on with: hostile suffixes, and random text that begins like no option."""
    options = re.compile(r"[ \t\r\n]*(\[|NULL|NOT|UNIQUE|PRIMARY|DEFAULT|\Z)", re.IGNORECASE | re.ASCII)
    return st.sampled_from(HOSTILE_SUFFIXES) | st.text(min_size=1).filter(lambda text: not options.match(text))


@given(column_specs(), junk())
def test_junk_behind_a_definition_is_always_refused(spec, suffix):
    """Whatever is appended that is no option is a SchemaError that names the column, never another error."""
    with pytest.raises(SchemaError, match=rf"\Acolumn '{spec.name}': cannot read "):
        parse_column(spec.name, f"{spec.definition} {suffix}")


@given(st.text() | st.text("TEXINGRAY()[],'0123456789 -;DFULKPM.+e"))
def test_random_text_is_refused_or_read_back(text):
    """Text is refused with a SchemaError, or read into a column whose rendering is read into the same."""
    found = outcome(text)
    if isinstance(found, str):
        assert found.startswith("column 'total': ")
    else:
        assert parse_column("total", found.definition) == found


@given(st.lists(st.sampled_from(PIECES), max_size=9))
def test_random_words_of_the_grammar_are_refused_or_read_back(words):
    """Shuffled pieces of the grammar raise nothing but SchemaError, or are read back the same."""
    found = outcome(" ".join(words))
    if isinstance(found, str):
        assert found.startswith("column 'total': ")
    else:
        assert parse_column("total", found.definition) == found


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_every_single_precision_number_fits_real(number):
    """A REAL column takes every number of its width as a default, unchanged but for minus zero."""
    spec = ColumnSpec("total", ColumnType(Kind.REAL), default=Default("literal", number))
    assert struct.pack("<f", spec.default.value) == struct.pack("<f", number + 0.0)
