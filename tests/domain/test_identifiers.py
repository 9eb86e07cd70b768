import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cqrs_ddd_advanced_core.identifiers import check_identifier

LEGAL = [
    "a",
    "A",
    "_",
    "_version",
    "order_summaries",
    "Order",
    "x1",
    "select",
    "USER",
    "table",
    "a" * 63,
    "__a__",
]

HOSTILE = [
    "",
    " ",
    "1a",
    "9",
    "a b",
    " a",
    "a ",
    "a\n",
    "\na",
    "a\r",
    "a\t",
    "a\0",
    "\0",
    "a" * 64,
    "a.b",
    "public.orders",
    "a-b",
    "a--",
    "a/**/",
    "a;",
    "a; DROP TABLE users; --",
    "order_summaries; DROP TABLE users; --",
    '"a"',
    'a"b',
    "a'b",
    "a`b",
    "[a]",
    "a]",
    "a(b)",
    "a,b",
    "a=b",
    "a\\b",
    "a$b",
    "$1",
    ":a",
    "?",
    "%s",
    "%(a)s",
    "{a}",
    "a@b",
    "a#b",
    "a!b",
    "a|b",
    "a&b",
    "*",
    "a*",
    "ä",
    "größe",
    "\u017felect",
    "а",  # noqa: RUF001  a Cyrillic letter that looks like a Latin one
    "a\u200b",
    "a\u00a0b",
    "a\u0301",
    "\ufeffa",
    "a\u2028",
    "a\u0085",
    "a\ud800",
    "a\u0660",
    "\u0661a",
    "a²",
    "表",
    "🙂",
    "1; SELECT 1",
    "a' OR '1'='1",
]


@pytest.mark.parametrize("name", LEGAL)
def test_a_plain_name_is_returned_as_it_is(name):
    """Letters, digits and underscores pass, reserved words and mixed case included."""
    assert check_identifier(name, kind="table") == name


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_refused(name):
    """Anything else is refused with the kind and the name in the message."""
    with pytest.raises(ValueError, match=r"\A" + re.escape(f"Invalid SQL column name: {name!r}") + r"\Z"):
        check_identifier(name, kind="column")


@pytest.mark.parametrize("name", [None, 1, b"a", ["a"], ("a",), object, 1.5])
def test_what_is_not_a_string_is_refused(name):
    """Bytes, numbers and the like are refused as names are, not with a TypeError."""
    with pytest.raises(ValueError, match=re.escape(f"Invalid SQL schema name: {name!r}")):
        check_identifier(name, kind="schema")


@given(st.text())
def test_whatever_passes_is_plain_ascii(name):
    """No text passes that is not made of at most 63 ASCII letters, digits and underscores, no digit first."""
    try:
        check_identifier(name, kind="table")
    except ValueError:
        return
    assert name.isascii()
    assert name.replace("_", "a").isalnum()
    assert not name[0].isdigit()
    assert len(name.encode()) <= 63
