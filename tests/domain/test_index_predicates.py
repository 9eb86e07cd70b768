"""Partial indexes: constants in the types of their columns, and the predicates that are refused."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import IntEnum, StrEnum
from uuid import UUID

import pytest

from cqrs_ddd_advanced_core.projections import ProjectionIndex, ProjectionSchema
from cqrs_ddd_advanced_core.projections.predicates import Condition
from tests.domain.carts import schema
from tests.domain.refusals import refused


class Status(StrEnum):
    OPEN = "open"


class Level(IntEnum):
    LOW = 1


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
