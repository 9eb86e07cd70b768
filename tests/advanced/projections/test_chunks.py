"""More documents than are written at once: each chunk is converted while the one before is being written."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextvars import ContextVar
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

import pytest
import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionStore
from cqrs_ddd_persistence_sqlalchemy.core.meanwhile import meanwhile
from tests.support.kinds import ONLY_POSTGRESQL

CHUNK = 5000


class Word(StrEnum):
    YES = "yes"


def orders(count, *, bad_at=None, fails_at=None):
    """Make orders; one may have no customer, or there the iterator fails."""
    for n in range(count):
        if n == fails_at:
            raise OSError("the file has ended")
        yield {"id": f"o{n}", "customer": None if n == bad_at else "ann", "total": Decimal(n)}


async def count_of(session_factory, table="orders"):
    async with session_factory() as session:
        return await session.scalar(sa.text(f"SELECT count(*) FROM {table}"))


@pytest.mark.parametrize("count", [CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 50])
async def test_any_number_is_written(store, session_factory, count):
    """What is written is what was given, wherever the last chunk ends."""
    assert await store.bulk_upsert("orders", orders(count)) == count
    assert await count_of(session_factory) == count
    assert (await store.find_one("orders", f"o{count - 1}"))["total"] == Decimal(count - 1)


@pytest.mark.parametrize("joined", [False, True], ids=["own", "joined"])
@pytest.mark.parametrize(
    ("docs", "error", "message"),
    [
        ({"bad_at": 7000}, ValueError, "column 'customer' of 'orders' is NOT NULL"),
        ({"fails_at": 7000}, OSError, "the file has ended"),
        ({"fails_at": 3}, OSError, "the file has ended"),
    ],
    ids=["value", "iterator", "iterator at once"],
)
async def test_nothing_is_written_where_one_fails(store, session_factory, joined, docs, error, message):
    """A document that is refused, and an iterator that fails, leave nothing of all chunks, and the rest usable."""
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await store.upsert("orders", "before", {"customer": "bob"}, uow=uow)
        await uow.commit()
        given = {}
        if joined:
            await store.upsert("orders", "joined", {"customer": "bob"}, uow=uow)
            given = {"uow": uow}
        with pytest.raises(error, match=message):
            await store.bulk_upsert("orders", orders(3 * CHUNK, **docs), **given)
    assert await count_of(session_factory) == 1 + joined


async def test_cancelled_it_leaves_nothing(store, session_factory):
    """A bulk_upsert that is cancelled on its way has written nothing, and no task goes on."""
    reached = asyncio.Event()

    def slow():
        for n, doc in enumerate(orders(4 * CHUNK)):
            if n == CHUNK + 100:
                reached.set()
            yield doc

    writing = asyncio.create_task(store.bulk_upsert("orders", slow()))
    await reached.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert not [task for task in asyncio.all_tasks() if "next_chunk" in repr(task)]
    assert await count_of(session_factory) == 0


async def test_others_have_their_turn(store):
    """The event loop is held for a hundred documents at a time, and not for all of them."""
    turns, at_turn = 0, Counter()

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def watched():
        for doc in orders(CHUNK + 2000):
            at_turn[turns] += 1
            yield doc

    async with meanwhile(others()):
        await store.bulk_upsert("orders", watched())
    assert sum(at_turn.values()) == CHUNK + 2000
    assert max(at_turn.values()) <= 200


async def test_a_column_that_a_migration_adds_meanwhile(engine, session_factory, made):
    """Documents with a column that is newer than what the store knows are converted again, in each chunk."""
    store = SQLAlchemyProjectionStore(session_factory)
    await store.bulk_upsert("orders", orders(10))
    async with engine.begin() as connection:
        await connection.execute(sa.text("ALTER TABLE orders ADD COLUMN discount INTEGER"))
    docs = ({**doc, "discount": n} for n, doc in enumerate(orders(2 * CHUNK + 10)))
    assert await store.bulk_upsert("orders", docs) == 2 * CHUNK + 10
    for number in (1, CHUNK + 1, 2 * CHUNK + 1):
        assert (await store.find_one("orders", f"o{number}"))["discount"] == number


VALUES = {
    "char": ["abcde", "ü", Word.YES, None],
    "varchar": ["abcde", "日本", "", Word.YES],
    "text": ["plain", "ß🎉", None],
    "small": [-(2**15), 2**15 - 1, None],
    "whole": [2**31 - 1, -(2**31)],
    "big": [2**63 - 1, -(2**63), 0],
    "decimal": [Decimal("1.5"), 3, 2.25, Decimal("-0.0001"), Decimal("1E+3"), None],
    "real": [1.5, 2, -0.0],
    "double": [1e300, 5, None],
    "yes": [True, False, None],
    "day": [date(2026, 1, 2), None],
    "clock": [time(1, 2, 3), None],
    "moment": [
        datetime(2026, 1, 2, tzinfo=UTC),
        datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        None,
    ],
    "uid": [UUID(int=7), str(UUID(int=8)), None],
    "doc": [{"a": [1, None]}, ["ß"], "text", 5, None],
    "bytes": [b"\0\1", bytearray(b"x"), None],
    "tags": [["a", None], ("ü",), [], None],
}


@pytest.mark.parametrize("column", VALUES)
async def test_a_column_at_a_time_is_no_different(store, column):
    """Many documents are converted a column at a time, to the same rows as each by itself."""
    values = VALUES[column]
    for values_of_it in ([values[0]], values):  # of one type, and of several
        docs = [{"id": n, column: values_of_it[n % len(values_of_it)]} for n in range(150)]
        await store.bulk_upsert("everything", docs)
        together = await store.find_many("everything", list(range(150)))
        await store.truncate("everything")
        for doc in docs:
            await store.upsert("everything", doc["id"], doc)
        assert await store.find_many("everything", list(range(150))) == together
        await store.truncate("everything")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("varchar", "abcdef"),
        ("varchar", "a\0b"),
        ("text", "\udc80"),
        ("text", 5),
        ("small", 2**15),
        ("whole", True),
        ("big", 2**63),
        ("decimal", Decimal("0.00001")),
        ("decimal", Decimal("NaN")),
        ("decimal", 10**11),
        ("double", float("inf")),
        ("yes", 1),
        ("day", datetime(2026, 1, 2, tzinfo=UTC)),
        ("moment", datetime(2026, 1, 2)),  # noqa: DTZ001
        ("uid", "no"),
        ("doc", {"a": float("nan")}),
        ("unknown", 1),
    ],
)
async def test_one_of_many_is_refused_by_name(store, session_factory, column, value):
    """A value that does not fit is named as it would be by itself, and nothing is written."""
    docs = [{"id": n, **({column: VALUES[column][0]} if column in VALUES else {})} for n in range(150)]
    docs[120][column] = value
    with pytest.raises(ValueError, match=f"column '{column}'") as alone:
        await store.upsert("everything", 120, docs[120])
    with pytest.raises(ValueError, match=f"column '{column}'") as among_many:
        await store.bulk_upsert("everything", docs)
    assert str(among_many.value) == str(alone.value)
    assert await count_of(session_factory, "everything") == 0


@pytest.mark.parametrize("count", [4, 5, 60, 1999, 2000])
@pytest.mark.parametrize(
    "documents",
    [
        [[0], [1]],
        [[[0]]],
        [[{"a": 1}], []],
        [(1,)],
        [{"a": [1]}, [2, 3], "text", True, None, [None]],
        [[1, 2], True],
    ],
    ids=repr,
)
async def test_lists_stay_lists(store, documents, count):
    """A document that is a list is not taken for another dimension of the batch, in batches of any size."""
    docs = [{"id": n, "doc": documents[n % len(documents)]} for n in range(count)]
    await store.bulk_upsert("everything", docs)
    found = await store.find_many("everything", list(range(count)))
    expected = [list(each["doc"]) if isinstance(each["doc"], tuple) else each["doc"] for each in docs]
    assert [row["doc"] for row in found] == expected


class Offset(tzinfo):
    """A time zone that cannot be hashed, as there are."""

    __hash__ = None

    def utcoffset(self, _):
        return timedelta(hours=1)

    def dst(self, _):
        return timedelta(0)


async def test_time_zones_of_any_kind(store):
    """A time is what counts, whatever its zone is made of."""
    moment = datetime(2026, 1, 2, 1, tzinfo=Offset())
    await store.bulk_upsert("everything", [{"id": n, "moment": moment} for n in range(7)])
    assert {row["moment"] for row in await store.find_many("everything", range(7))} == {
        datetime(2026, 1, 2, tzinfo=UTC)
    }


@pytest.mark.parametrize("count", [10, CHUNK + 10, 2 * CHUNK])
async def test_generators_are_read_in_their_callers_context(store, count):
    """What a generator sets in a context variable it can reset in the end, as spans and bound loggers do."""
    current, seen = ContextVar("current", default="outside"), set()

    def within():
        token = current.set("inside")
        try:
            for doc in orders(count):
                seen.add(current.get())
                yield doc
        finally:
            current.reset(token)

    assert await store.bulk_upsert("orders", within()) == count
    assert seen == {"inside"}
    assert current.get() == "outside"


@pytest.mark.parametrize("count", [5, 2000])
@ONLY_POSTGRESQL
async def test_keys_that_are_lists(engine, session_factory, count):
    """A table made by hand may have a key that Python cannot hash."""
    async with engine.begin() as connection:
        await connection.execute(sa.text("CREATE TABLE by_hand (k text[] PRIMARY KEY, n integer)"))
    store = SQLAlchemyProjectionStore(session_factory)
    assert await store.bulk_upsert("by_hand", [{"k": [str(n)], "n": n} for n in range(count)]) == count
    assert await count_of(session_factory, "by_hand") == count


async def test_a_key_that_only_equals_the_documents_is_looked_at_by_itself(store, session_factory):
    """True equals 1 and is none: a key that does not fit is refused, though the document has one that does."""
    with pytest.raises(ValueError, match="column 'id'"):
        await store.upsert("everything", True, {"id": 1, "text": "a"})  # noqa: FBT003
    assert await count_of(session_factory, "everything") == 0
