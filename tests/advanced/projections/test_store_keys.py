"""Documents that several columns identify, through every method, on both databases."""

from __future__ import annotations

import random

import pytest

from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionStore
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError

SEATS = ProjectionSchema(
    collection="seats",
    fields=[
        ("guest", "TEXT NOT NULL DEFAULT 'nobody'"),
        ("Number", "INTEGER"),  # the key's columns are neither the first ones nor in the order of the key
        ("select", "VARCHAR(10)"),
        ("at", "TIMESTAMP"),
        ("price", "DECIMAL(8, 2)"),
        ("uid", "UUID"),
        ("_version", "INTEGER DEFAULT 1"),
        ("_last_event_id", "TEXT"),
        ("_last_event_position", "BIGINT"),
    ],
    primary_key=["select", "Number"],
)


@pytest.fixture(params=["types from the database", "types from schemas"])
async def seats(request, session_factory):
    """A store of seats, each identified by hall and number."""
    await SQLAlchemyProjectionStore(session_factory, allow_auto_ddl=True).ensure_collection("seats", schema=SEATS)
    return SQLAlchemyProjectionStore(session_factory, schemas=() if "database" in request.param else (SEATS,))


def seat(hall, number):
    return {"select": hall, "Number": number}


async def test_an_upsert_inserts_and_changes_by_the_whole_key(seats):
    """A part of the key in common is another document."""
    for hall, number in (("a", 1), ("a", 2), ("b", 1)):
        assert await seats.upsert("seats", seat(hall, number), {"guest": f"{hall}{number}"})
    assert await seats.upsert("seats", {"Number": 1, "select": "a"}, {"guest": "Ada"})
    found = await seats.find("seats")
    assert [(row["select"], row["Number"], row["guest"], row["_version"]) for row in found] == [
        ("a", 1, "Ada", 2),
        ("a", 2, "a2", 1),
        ("b", 1, "b1", 1),
    ]
    with pytest.raises(ValueError, match="column 'Number' is 2 in the document, but doc_id says 1"):
        await seats.upsert("seats", seat("a", 1), {"Number": 2})


async def test_guards_hold_for_the_whole_key(seats):
    """Versions and events of one document say nothing of its neighbour."""
    await seats.upsert("seats", seat("a", 1), {"guest": "Ada"}, event_id="e1", event_position=5)
    assert await seats.upsert("seats", seat("a", 2), {"guest": "Bob"}, event_id="e1", event_position=5)
    assert await seats.upsert("seats", seat("a", 1), {"guest": "Eve"}, event_id="e1") is False
    assert await seats.upsert("seats", seat("a", 1), {"guest": "Eve"}, event_position=5) is False
    assert await seats.upsert("seats", seat("a", 1), {"guest": "Eve"}, expected_version=1)
    with pytest.raises(OptimisticConcurrencyError, match="expected version 2, found 1") as raised:
        await seats.upsert("seats", seat("a", 2), {"guest": "Eve"}, expected_version=2)
    assert raised.value.entity_id == seat("a", 2)
    with pytest.raises(OptimisticConcurrencyError, match="expected version 1, found None"):
        await seats.upsert("seats", seat("b", 2), {"guest": "Eve"}, expected_version=1)


async def test_a_batch_identifies_its_documents_by_all_key_columns(seats, session_factory):
    """Different columns, repeated keys and parts of documents end as if upserted one after the other."""
    docs = [
        seat("a", 1) | {"guest": "Ada"},
        {"guest": "Bob", "Number": 2, "select": "a"},
        seat("b", 1) | {"price": 5},
        seat("a", 1) | {"price": 7},
        seat("a", 1),
    ]
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        assert await seats.bulk_upsert("seats", iter(docs), uow=uow) == 5
    found = await seats.find("seats")
    assert [(row["select"], row["Number"], row["guest"], row["price"], row["_version"]) for row in found] == [
        ("a", 1, "Ada", 7, 3),
        ("a", 2, "Bob", None, 1),
        ("b", 1, "nobody", 5, 1),
    ]
    for lacking, named in (({"select": "a"}, "Number"), ({"guest": "x"}, "select, Number")):
        with pytest.raises(ValueError, match=f"a document for 'seats' has no {named}, which identifies it"):
            await seats.bulk_upsert("seats", [seat("z", 1), lacking])
    assert await seats.count("seats", {"select": "z"}) == 0


async def test_several_are_found_in_the_order_asked_for(seats):
    """None for the missing ones, repeated ones repeated, each a dict of its own, however the parts are ordered."""
    await seats.bulk_upsert("seats", (seat(hall, number) for hall in "ab" for number in range(1200)))
    keys = [seat("b", 7), {"Number": 3, "select": "a"}, seat("c", 7), seat("b", 7), seat("a", 1199), seat("b", 5000)]
    found = await seats.find_many("seats", (key for key in keys))
    assert [row and (row["select"], row["Number"]) for row in found] == [
        ("b", 7), ("a", 3), None, ("b", 7), ("a", 1199), None,
    ]  # fmt: skip
    found[0]["guest"] = "changed"
    assert found[3]["guest"] == "nobody"
    everything = [seat(hall, number) for hall in "ba" for number in range(1200)]
    assert [seat(row["select"], row["Number"]) for row in await seats.find_many("seats", everything)] == everything
    with pytest.raises(ValueError, match="the key of 'seats' has the columns select, Number: give doc_id as a dict"):
        await seats.find_many("seats", [("a", 1)])


async def test_a_deletion_takes_the_whole_key_and_a_version(seats):
    """A neighbour stays, and so does a document with another version."""
    await seats.bulk_upsert("seats", [seat("a", 1), seat("a", 2), seat("b", 1)])
    await seats.upsert("seats", seat("a", 1), {"guest": "Ada"})
    with pytest.raises(OptimisticConcurrencyError, match="expected version 1, found 2") as raised:
        await seats.delete("seats", seat("a", 1), expected_version=1)
    assert raised.value.entity_id == seat("a", 1)
    assert await seats.delete("seats", seat("a", 1), expected_version=2) is True
    assert await seats.delete("seats", seat("a", 1)) is False
    with pytest.raises(OptimisticConcurrencyError, match="expected version 2, found None"):
        await seats.delete("seats", seat("a", 1), expected_version=2)
    with pytest.raises(ValueError, match=r"doc_id has \['select'\], the key of 'seats' is \['select', 'Number'\]"):
        await seats.delete("seats", {"select": "a"})
    assert [(row["select"], row["Number"]) for row in await seats.find("seats")] == [("a", 2), ("b", 1)]


@pytest.mark.parametrize(
    "sort",
    [
        None,
        [("Number", -1)],
        [("select", -1)],
        [("price", 1)],
        [("price", -1), ("select", -1)],
        [("Number", -1), ("select", -1)],
    ],
)
async def test_pages_go_on_behind_a_whole_key(seats, sort):
    """Pages of seven are the list, whichever part of the key the sort leaves to break its ties; so is a stream."""
    rng = random.Random(5)
    await seats.bulk_upsert(
        "seats", [seat(hall, n) | {"price": rng.choice([None, 1, 2])} for hall in "abc" for n in range(15)]
    )
    everything = await seats.find("seats", sort=sort)
    pages, last = [], None
    while page := await seats.find("seats", sort=sort, limit=7, after=last):
        pages += page
        last = {name: page[-1][name] for name in ("select", "Number", "price")}
    assert pages == everything
    assert len(everything) == 45
    assert [row async for row in seats.stream("seats", sort=sort)] == everything


async def test_a_cursor_without_a_part_of_the_key_is_refused(seats):
    """The part is named."""
    with pytest.raises(ValueError, match="after has no Number, by which these pages are ordered"):
        await seats.find("seats", after={"select": "a"})


async def test_one_column_of_a_key_does_not_identify_documents(session_factory, seats):
    """Neither as the store's id column nor as that of a batch."""
    with pytest.raises(ValueError, match="column 'select' of 'seats' does not identify documents"):
        await seats.bulk_upsert("seats", [seat("a", 1)], "select")
    with pytest.raises(ValueError, match="column 'Number' of 'seats' does not identify documents"):
        await SQLAlchemyProjectionStore(session_factory, default_id_column="Number").find_one("seats", 1)
