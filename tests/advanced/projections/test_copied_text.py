"""Batches that are copied as text: each value arrives as the one that is written by itself."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionStore
from cqrs_ddd_persistence_sqlalchemy.advanced.projections import batches
from tests.support.kinds import ONLY_POSTGRESQL

MANY = 2000  # as many as are worth copying
HOSTILE = {
    "name": [
        *("", " ", "\\", "\\.", "\\N", "a\tb", "a\nb", "a\rb", "\r\n", "\\t", "\\\\n", "ü€😀", "N"),
        *("null", '"', "'", "a\x0bb", "\x7f"),
    ],
    "small": [0, -1, 32767, -32768],
    "big": [0, 2**63 - 1, -(2**63)],
    "amount": [
        *(Decimal(each) for each in ("0", "-0.01", "0.5", "1E+2", "-0", "99999999.99", "5.10", "12E-1", "-99999999")),
        7, 0.1,
    ],
    "ratio": [0.1, 5.0, -1.5, 1e308, 5e-324, 1 / 3],
    "paid": [True, False],
    "day": [date(2026, 1, 1), date.max, date.min, date(44, 3, 15)],
    "at": [
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2026, 3, 29, 2, 30, 0, 7, tzinfo=timezone(timedelta(hours=5, minutes=45))),
        datetime.max.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=UTC),
        datetime(44, 3, 15, 23, 59, 59, 999999, tzinfo=UTC),
    ],
    "key": [UUID(int=0), UUID(int=2**128 - 1), "00000000-0000-0000-0000-00000000000a"],
    "data": [{}, [], "text", "\\", {"a\\b": "c\td\n", "ü": ["\\N", None, 1.5, True]}, [[['"']]], 5, "null"],
}  # fmt: skip
SCHEMA = ProjectionSchema(
    collection="copied",
    fields=[
        ("id", "VARCHAR(50) PRIMARY KEY"),
        ("name", "TEXT"),
        ("small", "SMALLINT"),
        ("big", "BIGINT"),
        ("amount", "DECIMAL(10, 2)"),
        ("ratio", "DOUBLE PRECISION"),
        ("paid", "BOOLEAN"),
        ("day", "DATE"),
        ("at", "TIMESTAMP"),
        ("key", "UUID"),
        ("data", "JSONB"),
    ],
)


@pytest.fixture
async def store(session_factory):
    """A store with the collection in the database."""
    store = SQLAlchemyProjectionStore(session_factory, schemas=[SCHEMA], allow_auto_ddl=True)
    await store.ensure_collection("copied", schema=SCHEMA)
    return store


async def test_every_kind_of_value(store, engine, copied):
    """Whatever a text form gives a meaning to, and the ends of what a type holds, is what it is by itself."""
    docs = [dict.fromkeys(HOSTILE)]
    docs += [dict.fromkeys(HOSTILE) | {name: value} for name, values in HOSTILE.items() for value in values]
    for number, doc in enumerate(docs):
        await store.upsert("copied", f"alone-{number}", doc)
    many = [{"id": f"copied-{number}", **docs[number % len(docs)]} for number in range(MANY)]
    assert await store.bulk_upsert("copied", many) == MANY
    alone = await store.find_many("copied", [f"alone-{number}" for number in range(len(docs))])
    together = await store.find_many("copied", [f"copied-{number}" for number in range(len(docs))])
    assert [doc | {"id": ""} for doc in together] == [doc | {"id": ""} for doc in alone]
    same = "FROM copied a JOIN copied b ON b.id = replace(a.id, 'alone', 'copied') WHERE a.id LIKE 'alone%'"
    async with engine.connect() as connection:
        different = " OR ".join(f"a.{name} IS DISTINCT FROM b.{name}" for name in ("day", "at", "amount", "name"))
        if engine.dialect.name == "postgresql":  # where a date can be infinite, which Python has no word for
            assert await connection.scalar(sa.text(f"SELECT count(*) {same} AND ({different})")) == 0
        assert await connection.scalar(sa.text(f"SELECT count(*) {same}")) == len(docs)
    assert copied == ([(MANY, True)] if engine.dialect.name == "postgresql" else [])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
            st.none() | st.decimals(-(10**8) + 1, 10**8 - 1, places=2),
            st.none() | st.datetimes(timezones=st.just(UTC)),
        ),
        min_size=1,
        max_size=30,
    )
)
async def test_any_text(store, values):
    """What comes back is what went in."""
    docs = [dict(zip(("name", "amount", "at"), each, strict=True)) for each in values]
    await store.bulk_upsert("copied", [{"id": f"d{n}", **docs[n % len(docs)]} for n in range(MANY)])
    found = await store.find_many("copied", [f"d{n}" for n in range(len(docs))])
    assert [{name: doc[name] for name in ("name", "amount", "at")} for doc in found] == docs


@ONLY_POSTGRESQL
@pytest.mark.parametrize("count", [10, MANY])
async def test_another_encoding_of_the_client(database, make_engine, store, count):
    """What is copied is no other text than what is bound, whichever encoding the connection has."""
    settings = {"server_settings": {"client_encoding": "LATIN1"}}
    latin = async_sessionmaker(make_engine(database.url, connect_args=settings))
    docs = [{"id": f"d{number}", "name": "Müller"} for number in range(count)]
    await SQLAlchemyProjectionStore(latin, schemas=[SCHEMA]).bulk_upsert("copied", docs)
    assert (await store.find_one("copied", "d1"))["name"] == "Müller"


class Numbered(UUID):
    """A UUID that is shown in another way."""

    def __str__(self):
        return f"number {self.int}"


@pytest.mark.parametrize("count", [10, MANY])
async def test_values_that_are_shown_in_another_way(store, count):
    """What a class of the application's prints is not what is stored."""
    await store.bulk_upsert("copied", [{"id": f"d{n}", "key": Numbered(int=n)} for n in range(count)])
    assert (await store.find_one("copied", "d7"))["key"] == UUID(int=7)


@pytest.mark.parametrize("longest", [100, 50_000])
async def test_large_documents_are_left_to_the_driver(store, monkeypatch, engine, copied, longest):
    """A chunk's text is not kept where it is long: not from the first hundred documents, nor from later ones."""
    monkeypatch.setattr(batches, "_LONGEST_TEXT", longest)
    docs = [{"id": f"d{number}", "name": "x" * 100, "data": {"n": number}} for number in range(MANY)]
    assert await store.bulk_upsert("copied", docs) == MANY
    assert (await store.find_one("copied", "d1999"))["data"] == {"n": 1999}
    assert copied == ([(MANY, False)] if engine.dialect.name == "postgresql" else [])
