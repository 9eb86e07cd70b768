"""Filters, against a naive evaluation in memory and by example, on both databases."""

from __future__ import annotations

import fnmatch
import random
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

START = datetime(2026, 5, 1, tzinfo=UTC)
VALUES = {
    "customer": ["Ada", "ada", "Bob", "B%b", "Ev_e", "", "ab", "a.b"],
    "total": [None, Decimal("0.00"), Decimal("-1.50"), Decimal("10.00"), Decimal("99.99")],
    "status": [None, "new", "paid", "New"],
    "placed_at": [None, START, START + timedelta(microseconds=1), START + timedelta(days=1)],
    "_version": [None, 1, 2, 3],
}


def naive(document, filter_):
    """Evaluate a filter as MongoDB does, NULL standing for a missing value."""
    return all(_entry(document, name, value) for name, value in filter_.items())


def _entry(document, name, value):
    if name == "$and":
        return all(naive(document, each) for each in value)
    if name == "$or":
        return any(naive(document, each) for each in value)
    if name == "$not":
        return not naive(document, value)
    stored = document[name]
    if not isinstance(value, dict):
        return stored == value
    return all(_operation(stored, operator, operand) for operator, operand in value.items())


def _operation(stored, operator, operand):  # noqa: PLR0911  (one answer an operator)
    compared = {"$gt": "__gt__", "$gte": "__ge__", "$lt": "__lt__", "$lte": "__le__"}
    if operator in compared:
        return stored is not None and getattr(stored, compared[operator])(operand) is True
    match operator:
        case "$eq":
            return stored == operand
        case "$ne":
            return stored != operand
        case "$in":
            return stored in operand
        case "$nin":
            return stored not in operand
        case "$exists":
            return (stored is not None) is operand
        case "$not":
            return not _entry({"x": stored}, "x", operand)
        case "$like":
            return stored is not None and re.fullmatch(_as_regex(operand), stored, re.DOTALL) is not None
    raise AssertionError(operator)


def _as_regex(pattern):
    parts = re.findall(r"\\?.", pattern, re.DOTALL)
    return "".join({"%": ".*", "_": "."}.get(part, re.escape(part[-1])) for part in parts)


def a_filter(rng, depth=0):
    """Return a random filter over the columns of orders."""
    if depth < 3 and rng.random() < 0.3:
        operator = rng.choice(["$and", "$or", "$not"])
        if operator == "$not":
            return {"$not": a_filter(rng, depth + 1)}
        return {operator: [a_filter(rng, depth + 1) for _ in range(rng.randint(1, 3))]}
    names = rng.sample(list(VALUES), rng.randint(0 if depth else 1, 2))
    return {name: a_condition(rng, name) for name in names}


def a_condition(rng, name, depth=0):
    some = VALUES[name]
    operator = rng.choice(["plain", "$eq", "$ne", "$in", "$nin", "$exists", "$order", "$not", "$like"])
    # Text is ordered by the database's own rules, which Python's are not.
    if operator == "$order" and name not in {"customer", "status"}:
        value = rng.choice([each for each in some if each is not None])
        return {rng.choice(["$gt", "$gte", "$lt", "$lte"]): value}
    if operator == "$like" and name in {"customer", "status"}:
        return {"$like": rng.choice(["%", "a%", "A%", "_b", r"B\%b", r"%\_%", "%b", "[A]da", "*", "?da", ""])}
    if operator in {"$in", "$nin"}:
        return {operator: rng.sample(some, rng.randint(0, 3))}
    if operator == "$exists":
        return {"$exists": rng.random() < 0.5}
    if operator == "$not" and depth < 2:
        inner = a_condition(rng, name, depth + 1)
        return {"$not": inner if isinstance(inner, dict) else {"$eq": inner}}
    value = rng.choice(some)
    return {operator: value} if operator in {"$eq", "$ne"} else value


async def test_filters_find_what_a_naive_evaluation_finds(store):
    """Four hundred random filters over sixty random documents, each also counted."""
    rng = random.Random(20260501)
    documents = [
        {"id": f"o{n:02}"} | {name: rng.choice([v for v in values if v is not None or name != "customer"])
                              for name, values in VALUES.items()}
        for n in range(60)
    ]  # fmt: skip
    documents = [
        {k: v for k, v in document.items() if k != "_version"} | {"_version": document["_version"]}
        for document in documents
    ]
    await store.bulk_upsert("orders", documents)
    # Without a version of its own a new document gets the column's default.
    for document in documents:
        document["_version"] = 1 if document["_version"] is None else document["_version"]
    wrong = []
    for _ in range(400):
        filter_ = a_filter(rng)
        expected = [document["id"] for document in documents if naive(document, filter_)]
        found = [row["id"] for row in await store.find("orders", filter_)]
        if found != expected or await store.count("orders", filter_) != len(expected):
            wrong.append((filter_, expected, found))
    assert wrong == []


def test_the_naive_patterns_are_those_of_like():
    """The oracle itself: % and _ are wild, a backslash takes their meaning away."""
    assert fnmatch.fnmatchcase("Bob", "B*")
    assert re.fullmatch(_as_regex("B%"), "Bob")
    assert not re.fullmatch(_as_regex(r"B\%"), "Bob")


@pytest.mark.parametrize(
    ("filter_", "message"),
    [
        ({"total": {}}, "is compared with an empty dict"),
        ({"total": {"$gt": None}}, r"\$gt of column 'total' takes a value"),
        ({"total": {"$gt": "5"}}, "column 'total': '5' does not fit"),
        ({"total": {"$in": "5"}}, r"\$in and \$nin of column 'total' take a list"),
        ({"total": {"$in": {"a": 1}}}, r"\$in and \$nin of column 'total' take a list"),
        ({"total": {"$in": b"5"}}, r"\$in and \$nin of column 'total' take a list"),
        ({"total": {"$nin": 5}}, r"\$in and \$nin of column 'total' take a list"),
        ({"total": {"$in": iter([1])}}, r"\$in and \$nin of column 'total' take a list, not <list_iterator"),
        ({"total": {"$exists": 1}}, r"\$exists of column 'total' takes True or False"),
        ({"total": {"$like": "a"}}, r"\$like is for text, column 'total'"),
        ({"status": {"$like": None}}, r"\$like of column 'status' takes a pattern"),
        ({"status": {"$like": "a\\"}}, r"\$like of column 'status' takes a pattern"),
        ({"status": {"$not": "a"}}, r"\$not of column 'status' takes operators"),
        ({"status": {"$regex": "a"}}, r"unknown operator '\$regex' for column 'status'"),
        ({"status": {"$gt": 1, "x": 2}}, "does not fit|unknown operator"),
        ({"status": {5: 2}}, "unknown operator 5"),
        ({"$and": []}, r"\$and takes a list of at least one filter"),
        ({"$or": {"status": "a"}}, r"\$or takes a list of filters"),
        ({"$or": ["status"]}, r"\$or takes a list of at least one filter"),
        ({"$or": iter([{}])}, r"\$or takes a list of filters"),
        ({"$or": 5}, r"\$or takes a list of filters"),
        ({"$and": "status"}, r"\$and takes a list of filters"),
        ({"$not": ["status"]}, r"\$not takes a filter"),
        ({"$where": "1"}, r"unknown operator '\$where'"),
        ({"$and": [{"colour": 1}]}, "has no column 'colour'"),
        ({5: 1}, "Invalid SQL column name: 5"),
        ({"status": b"x"}, "column 'status'"),
    ],
)
async def test_what_no_filter_says_is_refused(store, filter_, message):
    """Wrong operators and operands are named, in `count` and `stream` as in `find`."""
    for call in (store.find("orders", filter_), store.count("orders", filter_), anext(store.stream("orders", filter_))):
        with pytest.raises(ValueError, match=message):
            await call


def nested(depth, innermost, *operators):
    """Return a filter that many levels deep, made with each of the operators in turn."""
    for level in range(depth):
        operator = operators[level % len(operators)]
        other = {"customer": "Bob"} if operator == "$or" else {"customer": "Ada"}
        innermost = {operator: innermost} if operator == "$not" else {operator: [innermost, other]}
    return innermost


@pytest.mark.parametrize(
    "operators",
    [("$not",), ("$or",), ("$and",), ("$and", "$or"), ("$not", "$and", "$or"), ("$or", "$not")],
    ids=" ".join,
)
async def test_a_filter_is_nested_up_to_twenty_levels_deep(store, operators):
    """Twenty work on both databases whatever they are; one more is refused before it is sent."""
    await store.upsert("orders", "o1", {"customer": "Ada"})
    deepest = nested(19, {"customer": "Ada"}, *operators)
    assert await store.find("orders", deepest) == [
        row for row in await store.find("orders") if naive({"customer": "Ada"}, deepest)
    ]
    with pytest.raises(ValueError, match="nested more than 20 levels deep"):
        await store.count("orders", {"$not": deepest})


async def test_conditions_on_one_column_nest_up_to_twenty_levels_deep(store):
    """$not behind a column counts like $not around one."""
    await store.upsert("orders", "o1", {"customer": "Ada"})
    condition = {"$eq": "Ada"}
    for _ in range(18):
        condition = {"$not": condition}
    assert await store.count("orders", {"customer": condition}) == 1
    with pytest.raises(ValueError, match="nested more than 20 levels deep"):
        await store.count("orders", {"customer": {"$not": condition}})


async def test_a_filter_that_contains_itself_is_refused(store):
    """A loop in a filter is an error, not the end of Python's stack."""
    endless = {"customer": "Ada"}
    endless["$or"] = [endless, endless]
    with pytest.raises(ValueError, match="filter has more than 500 conditions|contains itself"):
        await store.count("orders", endless)
    endless = {}
    endless["$not"] = endless
    with pytest.raises(ValueError, match="contains itself"):
        await store.count("orders", endless)


@pytest.mark.parametrize("operator", ["$and", "$or"])
@pytest.mark.parametrize("condition", ["Ada", {"$ne": "Bob"}, {"$not": {"$in": ["Bob", None]}}])
async def test_a_filter_has_up_to_five_hundred_conditions(store, operator, condition):
    """Five hundred work on both databases, one more is refused before it is sent."""
    await store.upsert("orders", "o1", {"customer": "Ada"})
    assert await store.count("orders", {operator: [{"customer": condition}] * 499}) == 1
    with pytest.raises(ValueError, match="filter has more than 500 conditions"):
        await store.count("orders", {operator: [{"customer": condition}] * 500})


async def test_a_filter_has_up_to_thirty_thousand_values(store):
    """Drivers end at some 32,000 parameters; the limit below is the same on both databases."""
    await store.upsert("orders", "o1", {"customer": "Ada"})
    names = ["Ada", *(f"{n}" for n in range(29_999))]
    assert await store.count("orders", {"customer": {"$in": names}}) == 1
    for filter_ in ({"customer": {"$in": [*names, "x"]}}, {"customer": {"$in": names}, "status": {"$nin": ["x"]}}):
        with pytest.raises(ValueError, match="filter has 30001 values in lists, at most 30000"):
            await store.count("orders", filter_)


async def test_a_pattern_has_up_to_ten_thousand_characters(store):
    """SQLite takes no more than 50,000 bytes; ten thousand characters of any kind are fewer."""
    for character in ("a", "*", "[", "😀", "_"):
        await store.upsert("orders", "o1", {"customer": character * 10_000})
        assert await store.count("orders", {"customer": {"$like": character * 10_000}}) == 1
        with pytest.raises(
            ValueError, match=r"\$like of column 'customer' takes a pattern of at most 10000 characters"
        ):
            await store.count("orders", {"customer": {"$like": character * 10_001}})


async def test_a_column_is_compared_with_values_that_it_could_not_hold(store):
    """Too long a text, too large a number and more places than the column has match nothing, or everything."""
    await store.upsert("orders", "o1", {"customer": "Ada", "total": 10})
    assert await store.count("orders", {"status": "x" * 100}) == 0
    assert await store.count("orders", {"customer": "x" * 40_000}) == 0
    assert await store.count("orders", {"total": {"$lt": 10**12}}) == 1
    assert await store.count("orders", {"total": {"$gt": Decimal("9.995")}}) == 1
    assert await store.count("orders", {"total": {"$gt": Decimal("10.005")}}) == 0
    assert await store.count("orders", {"_version": {"$lt": 2**40}}) == 1


async def test_a_pattern_may_end_in_a_backslash_that_is_meant(store):
    """Two backslashes stand for one; a single one at the end has nothing to stand before."""
    await store.upsert("orders", "o1", {"customer": "C:\\"})
    assert await store.count("orders", {"customer": {"$like": r"C:\\"}}) == 1
    assert await store.count("orders", {"customer": {"$like": r"C:\\\\"}}) == 0
    for pattern in ("C:\\", r"C:\\" + "\\"):
        with pytest.raises(ValueError, match=r"\$like of column 'customer' takes a pattern"):
            await store.count("orders", {"customer": {"$like": pattern}})


async def test_a_filter_is_not_rounded_to_what_sqlite_can_compare(store, engine):
    """A decimal of more than fifteen digits is compared exactly, or refused where the database has doubles only."""
    await store.upsert("orders", "o1", {"customer": "Ada", "total": Decimal("1.20")})
    close = Decimal("1.1999999999999999999")
    if engine.dialect.name == "sqlite":
        with pytest.raises(ValueError, match="column 'total': .* this database holds 15 digits exactly, it has 20"):
            await store.count("orders", {"total": {"$gt": close}})
    else:
        assert await store.count("orders", {"total": {"$gt": close}}) == 1
        assert await store.count("orders", {"total": close}) == 0


async def test_documents_are_compared_with_none_only(store):
    """JSON has no equality that both databases share."""
    await store.upsert("everything", 1, {"doc": {"a": 1}})
    assert await store.count("everything", {"doc": {"$exists": True}}) == 1
    assert await store.count("everything", {"doc": None}) == 0
    with pytest.raises(ValueError, match="column 'doc' is JSONB, which is compared with None only"):
        await store.count("everything", {"doc": "x"})
    for column in ("doc", "tags"):
        with pytest.raises(ValueError, match=rf"\$like is for text, column '{column}' is "):
            await store.count("everything", {column: {"$like": "%"}})
    with pytest.raises(ValueError, match="column 'doc' is JSONB, which has no order"):
        await store.find("everything", sort=[("doc", 1)])
