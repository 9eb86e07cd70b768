"""Writing documents, on both databases, with types from schemas and from the database."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal

import pytest
import sqlalchemy as sa
from pydantic import BaseModel, Field

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionStore
from cqrs_ddd_persistence_sqlalchemy.exceptions import CollectionNotFoundError, OptimisticConcurrencyError


async def test_a_new_document_gets_defaults_for_what_it_omits(store):
    """Columns that a new document omits get the column's default, not an explicit NULL."""
    assert await store.upsert("orders", "o1", {"customer": "Ada"}) is True
    row = await store.find_one("orders", "o1")
    assert (row["total"], row["status"], row["_version"], row["email"]) == (Decimal("7.50"), "new", 1, None)


async def test_only_the_columns_given_change(store):
    """An update leaves the columns alone that the document omits, also those that are NOT NULL."""
    await store.upsert("orders", "o1", {"customer": "Ada", "total": 1})
    await store.upsert("orders", "o1", {"status": "paid"})
    row = await store.find_one("orders", "o1")
    assert (row["customer"], row["total"], row["status"]) == ("Ada", Decimal("1.00"), "paid")


async def test_a_new_document_without_a_required_column_is_refused(store):
    """A document that is not there yet needs its NOT NULL columns, and the error names them."""
    with pytest.raises(ValueError, match=r"no document \{'id': 'o1'\} in 'orders' yet, and a new one needs customer"):
        await store.upsert("orders", "o1", {"status": "paid"})
    assert await store.find_one("orders", "o1") is None


async def test_none_clears_a_column(store):
    """None is stored as NULL, even where a default exists."""
    await store.upsert("orders", "o1", {"customer": "Ada", "total": 5, "status": "x"})
    await store.upsert("orders", "o1", {"total": None, "status": None})
    row = await store.find_one("orders", "o1")
    assert (row["total"], row["status"]) == (None, None)


async def test_none_in_a_not_null_column_is_refused(store):
    """NOT NULL is a ValueError that names the column."""
    with pytest.raises(ValueError, match="column 'customer' of 'orders' is NOT NULL"):
        await store.upsert("orders", "o1", {"customer": None})


async def test_a_unique_value_of_another_document_is_refused_and_the_transaction_usable(session_factory, store):
    """UNIQUE is a ValueError that names the column; the caller's unit of work goes on."""
    await store.upsert("orders", "o1", {"customer": "Ada", "email": "a@b.c"})
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await store.upsert("orders", "o2", {"customer": "Bob"}, uow=uow)
        with pytest.raises(ValueError, match="column email of 'orders' is UNIQUE"):
            await store.upsert("orders", "o3", {"customer": "Eve", "email": "a@b.c"}, uow=uow)
        with pytest.raises(ValueError, match="column email of 'orders' is UNIQUE"):
            await store.upsert("orders", "o2", {"email": "a@b.c"}, uow=uow)
        await store.upsert("orders", "o4", {"customer": "Joe"}, uow=uow)
    assert [row["id"] for row in await store.find("orders")] == ["o1", "o2", "o4"]


async def test_the_key_alone_is_a_document(store):
    """A document of nothing but its key is inserted once and then left as it is."""
    key = {"order": "o1", "Line": 1}
    assert await store.upsert("order_lines", key, {}) is True
    assert await store.upsert("order_lines", key, {}) is True
    assert await store.find_one("order_lines", key) == key | {"product": None, "quantity": 1}


async def test_the_doc_id_fills_the_key_and_may_not_be_contradicted(store):
    """The document may repeat its key, but not another one."""
    await store.upsert("orders", "o1", {"id": "o1", "customer": "Ada"})
    with pytest.raises(ValueError, match="column 'id' is 'o2' in the document, but doc_id says 'o1'"):
        await store.upsert("orders", "o1", {"id": "o2", "customer": "Ada"})


@pytest.mark.parametrize(
    ("doc_id", "message"),
    [
        ("o1", "give doc_id as a dict"),
        ({"order": "o1"}, r"doc_id has \['order'\], the key of 'order_lines' is \['order', 'Line'\]"),
        ({"order": "o1", "Line": None}, "column 'Line' is part of the key"),
        ({"order": "o1", "Line": "1"}, "column 'Line': '1' does not fit INTEGER"),
        ({"order": "o1", "Line": 1, "x": 1}, "doc_id has"),
    ],
)
async def test_a_composite_key_is_given_whole(store, doc_id, message):
    """A key of several columns is a dict of exactly those."""
    with pytest.raises(ValueError, match=message):
        await store.upsert("order_lines", doc_id, {"quantity": 1})


async def test_a_pydantic_document_counts_with_its_aliases(store):
    """A model is stored by its aliases, so that it can have columns that begin with an underscore."""

    class Order(BaseModel):
        id: str
        customer: str
        version: int = Field(default=3, alias="_version")

    await store.upsert("orders", "o1", Order(id="o1", customer="Ada"))
    assert (await store.find_one("orders", "o1"))["_version"] == 3


async def test_unknown_columns_are_named(store):
    """A column that the table lacks is named, together with those that it has."""
    with pytest.raises(ValueError, match=r"collection 'orders' has no column 'colour'; its columns: id, customer"):
        await store.upsert("orders", "o1", {"customer": "Ada", "colour": "red"})


async def test_a_missing_collection_is_named_with_the_command(store):
    """The error holds the collection and the command that writes its revision."""
    with pytest.raises(CollectionNotFoundError, match=r"'nowhere' .* alembic -x projection=") as raised:
        await store.upsert("nowhere", "o1", {"a": 1})
    assert raised.value.collection == "nowhere"


async def test_the_version_counts_up_by_itself(store):
    """Where the document has no _version, an update counts the stored one up by one."""
    for expected in (1, 2, 3):
        await store.upsert("orders", "o1", {"customer": "Ada"})
        assert (await store.find_one("orders", "o1"))["_version"] == expected


async def test_the_version_of_the_document_is_stored(store):
    """A _version in the document is stored as it is."""
    await store.upsert("orders", "o1", {"customer": "Ada", "_version": 7})
    await store.upsert("orders", "o1", {"_version": 9})
    assert (await store.find_one("orders", "o1"))["_version"] == 9


@pytest.mark.parametrize("doc", [{"status": "paid"}, {"status": "paid", "customer": "Ada"}], ids=["part", "whole"])
async def test_another_version_than_expected_is_a_conflict(session_factory, store, doc):
    """The conflict names both versions, changes nothing and leaves the caller's transaction usable."""
    await store.upsert("orders", "o1", {"customer": "Ada", "_version": 3})
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        for expected in (0, 2, 4):
            with pytest.raises(OptimisticConcurrencyError, match=f"expected version {expected}, found 3") as raised:
                await store.upsert("orders", "o1", doc, expected_version=expected, uow=uow)
            assert (raised.value.entity_type, raised.value.entity_id) == ("orders", "o1")
        await store.upsert("orders", "o1", doc, expected_version=3, uow=uow)
        await uow.commit()
    row = await store.find_one("orders", "o1")
    assert (row["status"], row["_version"]) == ("paid", 4)


async def test_expecting_zero_means_that_it_must_not_exist(store):
    """Version 0 is that of a missing document, and of one without a version."""
    await store.upsert("orders", "o1", {"customer": "Ada"}, expected_version=0)
    with pytest.raises(OptimisticConcurrencyError, match="expected version 0, found 1"):
        await store.upsert("orders", "o1", {"customer": "Bob"}, expected_version=0)
    await store.upsert("orders", "o2", {"customer": "Eve", "_version": 0})
    await store.upsert("orders", "o2", {"status": "x"}, expected_version=0)


async def test_expecting_a_version_of_a_missing_document_is_a_conflict(store):
    """A document that has been deleted meanwhile is not created anew."""
    with pytest.raises(OptimisticConcurrencyError, match="expected version 3, found None"):
        await store.upsert("orders", "o1", {"customer": "Ada"}, expected_version=3)


async def test_a_version_that_would_not_grow_is_refused(store):
    """Storing an old version over an expected one would break every later check."""
    await store.upsert("orders", "o1", {"customer": "Ada", "_version": 3})
    with pytest.raises(ValueError, match="'_version' would go from 3 to 3"):
        await store.upsert("orders", "o1", {"status": "x", "_version": 3}, expected_version=3)


async def test_guards_need_their_columns(store):
    """A guard whose column the table lacks is a ValueError that names it."""
    for guard, column in (
        ({"expected_version": 1}, "_version"),
        ({"event_id": "e1"}, "_last_event_id"),
        ({"event_position": 1}, "_last_event_position"),
    ):
        with pytest.raises(ValueError, match=f"has no column '{column}'"):
            await store.upsert("order_lines", {"order": "o", "Line": 1}, {}, **guard)


@pytest.mark.parametrize("doc", [{"status": "b"}, {"status": "b", "customer": "Ada"}], ids=["part", "whole"])
async def test_a_repeated_event_changes_nothing_before_versions_are_compared(store, doc):
    """A repeat of the last event is False, even where its expected version has passed."""
    assert await store.upsert("orders", "o1", {"customer": "Ada", "status": "a"}, event_id="e1", expected_version=0)
    assert await store.upsert("orders", "o1", doc, event_id="e1", expected_version=0) is False
    row = await store.find_one("orders", "o1")
    assert (row["status"], row["_version"], row["_last_event_id"]) == ("a", 1, "e1")
    assert await store.upsert("orders", "o1", doc, event_id="e2", expected_version=1) is True
    assert (await store.find_one("orders", "o1"))["_last_event_id"] == "e2"


@pytest.mark.parametrize("doc", [{"status": "b"}, {"status": "b", "customer": "Ada"}], ids=["part", "whole"])
async def test_an_event_at_a_position_that_is_not_newer_changes_nothing(store, doc):
    """Late and repeated positions are False, newer ones are written."""
    assert await store.upsert("orders", "o1", {"customer": "Ada", "status": "a"}, event_position=5)
    for position in (5, 4, 0):
        assert await store.upsert("orders", "o1", doc, event_position=position) is False
    assert (await store.find_one("orders", "o1"))["status"] == "a"
    assert await store.upsert("orders", "o1", doc, event_position=6) is True
    assert (await store.find_one("orders", "o1"))["_last_event_position"] == 6


@pytest.mark.parametrize(
    ("doc", "guard"),
    [({"_last_event_id": "e2"}, {"event_id": "e1"}), ({"_last_event_position": 2}, {"event_position": 1})],
)
async def test_a_document_may_not_contradict_its_event(store, doc, guard):
    """What a guard stores cannot be another value in the document; the same value is fine."""
    with pytest.raises(ValueError, match="in the document, but the event's is "):
        await store.upsert("orders", "o1", {"customer": "Ada"} | doc, **guard)
    same = {"_last_event_id": "e1"} if "event_id" in guard else {"_last_event_position": 1}
    assert await store.upsert("orders", "o1", {"customer": "Ada"} | same, **guard)


async def test_of_concurrent_writers_with_one_expected_version_one_wins(store):
    """Sixteen writers of one version: one True, fifteen conflicts."""
    await store.upsert("orders", "o1", {"customer": "Ada"})

    async def write(number):
        try:
            return await store.upsert("orders", "o1", {"status": f"{number}"}, expected_version=1)
        except OptimisticConcurrencyError:
            return False

    assert sum(await asyncio.gather(*(write(n) for n in range(16)))) == 1
    assert (await store.find_one("orders", "o1"))["_version"] == 2


async def test_shuffled_and_repeated_events_end_at_the_newest(store):
    """However 100 events of one document are delivered to 8 tasks, the newest stands and none counts twice."""
    events = list(range(1, 101)) * 2
    random.Random(7).shuffle(events)

    async def deliver(mine):
        return sum(
            [
                await store.upsert(
                    "orders", "o1", {"customer": "Ada", "status": f"{n}"}, event_id=f"e{n}", event_position=n
                )
                for n in mine
            ]
        )

    written = sum(await asyncio.gather(*(deliver(events[n::8]) for n in range(8))))
    row = await store.find_one("orders", "o1")
    assert (row["status"], row["_last_event_position"], row["_version"]) == ("100", 100, written)


async def test_bulk_upsert_takes_different_columns_and_repeated_keys(store):
    """A batch ends as if its documents had been upserted one after the other."""
    docs = [
        {"id": "o1", "customer": "Ada"},
        {"id": "o2", "customer": "Bob", "status": "x"},
        {"id": "o1", "status": "paid"},
        {"id": "o1", "customer": "Ada L."},
        {"id": "o2", "customer": "Bob", "status": "y"},
    ]
    assert await store.bulk_upsert("orders", docs) == 5
    assert [(r["id"], r["customer"], r["status"], r["_version"]) for r in await store.find("orders")] == [
        ("o1", "Ada L.", "paid", 3),
        ("o2", "Bob", "y", 2),
    ]


async def test_bulk_upsert_reads_any_iterable_in_chunks(store):
    """Thousands of documents from a generator, none of them kept."""
    docs = ({"order": f"o{n % 500}", "Line": n, "product": "p"} for n in range(2500))
    assert await store.bulk_upsert("order_lines", docs) == 2500
    assert len(await store.find("order_lines", limit=5000)) == 2500
    assert await store.bulk_upsert("order_lines", []) == 0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"customer": "x"}, "has no id, which identifies it"),
        ({"id": "o9", "customer": None}, "column 'customer' of 'orders' is NOT NULL"),
        ({"id": "o9", "customer": "x", "email": "a@b.c"}, "column email of 'orders' is UNIQUE"),
        ({"id": "o9"}, "a new one needs customer"),
        ({"id": "o9", "customer": "x", "total": "1"}, "column 'total': '1' does not fit"),
        ({"id": "o9", "customer": "x", "colour": 1}, "has no column 'colour'"),
    ],
)
async def test_bulk_upsert_writes_all_or_none(session_factory, store, bad, message):
    """A bad document in the second chunk undoes the first one, and the caller's transaction goes on."""
    docs = [{"id": f"a{n}", "customer": "x", "email": "a@b.c" if n == 0 else None} for n in range(1001)]
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        with pytest.raises(ValueError, match=message):
            await store.bulk_upsert("orders", [*docs, bad], uow=uow)
        await store.upsert("orders", "after", {"customer": "Ada"}, uow=uow)
    assert [row["id"] for row in await store.find("orders")] == ["after"]


@pytest.mark.parametrize("docs", [{"id": "o1"}, "o1", 5, None])
async def test_bulk_upsert_refuses_what_is_no_list_of_documents(store, docs):
    """A single document in place of a list is a ValueError."""
    with pytest.raises(ValueError, match="docs is an iterable of documents"):
        await store.bulk_upsert("orders", docs)


async def test_a_unique_column_may_identify_documents(session_factory, made):
    """default_id_column and doc_id_field name another unique column than the key; others are refused."""
    by_email = SQLAlchemyProjectionStore(session_factory, default_id_column="email")
    await by_email.upsert("orders", "a@b.c", {"id": "o1", "customer": "Ada"})
    await by_email.upsert("orders", "a@b.c", {"id": "o1", "customer": "Bob"})
    assert (await by_email.find_one("orders", "a@b.c"))["customer"] == "Bob"
    store = SQLAlchemyProjectionStore(session_factory)
    await store.bulk_upsert("orders", [{"email": "a@b.c", "id": "o1", "customer": "Eve"}], "email")
    assert (await store.find_one("orders", "o1"))["customer"] == "Eve"
    with pytest.raises(ValueError, match="column 'status' of 'orders' does not identify documents"):
        await store.bulk_upsert("orders", [{"id": "o1"}], "status")
    with pytest.raises(ValueError, match="collection 'orders' has no column 'nope'"):
        await store.bulk_upsert("orders", [{"id": "o1"}], "nope")


async def test_a_new_column_is_found_by_a_running_store(engine, store):
    """A migration that adds a column heals the store's memory of the table at its first use."""
    if store._catalogue._declared:  # a store with schemas goes by them
        return
    await store.upsert("orders", "o1", {"customer": "Ada"})
    async with engine.begin() as connection:
        await connection.execute(sa.text("ALTER TABLE orders ADD COLUMN colour VARCHAR(20)"))
    await store.upsert("orders", "o1", {"colour": "red"})
    assert (await store.find_one("orders", "o1"))["colour"] == "red"


async def test_a_table_that_is_gone_is_named(engine, store):
    """A table that was dropped under a running store is a CollectionNotFoundError, not the driver's error."""
    await store.upsert("orders", "o1", {"customer": "Ada"})
    async with engine.begin() as connection:
        await connection.execute(sa.text("DROP TABLE orders"))
    with pytest.raises(CollectionNotFoundError, match="'orders'"):
        await store.upsert("orders", "o1", {"customer": "Ada"})
