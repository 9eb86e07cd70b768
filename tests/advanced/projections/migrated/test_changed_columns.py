"""A running store goes by the columns, the key and the indexes that the table has since a migration."""

from __future__ import annotations

from decimal import Decimal

import pytest

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from tests.advanced.projections.migrated.accounts import (
    CHANGES,
    TABLE,
    Change,
    keyed_by,
    migrate,
    rebuilding,
    rows_of,
    run_elsewhere,
    seed,
)
from tests.support.kinds import ONLY_POSTGRESQL


async def test_a_column_that_came_with_a_migration_is_used_at_once(database, engine, reader, uow):
    """In a document, in several, in a filter and in a sort."""
    await migrate(database, engine, CHANGES["column added"])
    await reader.upsert("accounts", "a1", {"colour": "red"}, uow=uow)
    assert (await reader.find_one("accounts", "a1", uow=uow))["colour"] == "red"
    assert await reader.count("accounts", {"colour": "red"}, uow=uow) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda store, uow: store.bulk_upsert("accounts", [{"id": "a1", "colour": "red"}], uow=uow),
        lambda store, uow: store.count("accounts", {"colour": None}, uow=uow),
        lambda store, uow: store.find("accounts", sort=[("colour", 1)], uow=uow),
        lambda store, uow: rows_of(store.stream("accounts", {"colour": None}, uow=uow)),
        lambda store, uow: store.upsert("accounts", "a1", {"colour": "red"}, uow=uow),
    ],
    ids=["bulk_upsert", "count", "find", "stream", "upsert"],
)
async def test_each_method_finds_a_new_column(database, engine, reader, uow, call):
    """Whichever names it first."""
    await migrate(database, engine, CHANGES["column added"])
    await call(reader, uow)


async def test_a_column_that_a_migration_dropped_is_unknown(database, engine, reader):
    """A document that names it is refused as one with any unknown column."""
    await migrate(database, engine, CHANGES["column dropped"])
    for call in (
        reader.upsert("accounts", "a1", {"note": "x"}),
        reader.upsert("accounts", "a1", {"note": "x"}),
        reader.bulk_upsert("accounts", [{"id": "a1", "note": "x"}]),
        reader.find("accounts", {"note": "x"}),
    ):
        with pytest.raises(ValueError, match="collection 'accounts' has no column 'note'; its columns: id, owner"):
            await call


async def test_values_that_fit_since_a_migration_are_taken(database, engine, reader, uow):
    """A larger number, more places, a longer text and None, without a restart."""
    await migrate(database, engine, CHANGES["integer widened"])
    await reader.upsert("accounts", "a1", {"points": 2**40}, uow=uow)
    assert (await reader.find_one("accounts", "a1", uow=uow))["points"] == 2**40


@pytest.mark.parametrize(
    ("name", "doc"),
    [
        ("decimal widened", {"total": Decimal("1.2345")}),
        ("text widened", {"owner": "x" * 50}),
        ("made nullable", {"owner": None}),
    ],
)
@pytest.mark.parametrize("by_one", [True, False], ids=["upsert", "bulk_upsert"])
async def test_what_a_migration_allows_is_taken(database, engine, reader, uow, name, doc, by_one):
    """The document that was refused before goes in as it is and comes back as it is."""
    with pytest.raises(ValueError, match=next(iter(doc))):
        await reader.upsert("accounts", "a1", doc)
    await migrate(database, engine, CHANGES[name])
    if by_one:
        await reader.upsert("accounts", "a1", doc, uow=uow)
    else:
        await reader.bulk_upsert("accounts", [doc | {"id": "a1"}], uow=uow)
    row = await reader.find_one("accounts", "a1", uow=uow)
    assert {column: row[column] for column in doc} == doc


async def test_a_column_that_became_required_is_asked_for(database, engine, store):
    """A document that is there is updated without it; a new one is refused with the column's name."""
    await seed(store)
    await migrate(database, engine, CHANGES["made not null"])
    assert await store.upsert("accounts", "a1", {"owner": "Bob"})
    await migrate(database, engine, CHANGES["made not null"], back=True)
    await store.upsert("accounts", "new", {"owner": "Bob"})
    await store.delete("accounts", "new")
    await migrate(database, engine, CHANGES["made not null"])
    with pytest.raises(ValueError, match="no document .* yet, and a new one needs total"):
        await store.upsert("accounts", "new", {"owner": "Bob"})
    with pytest.raises(ValueError, match="column 'total' of 'accounts' is NOT NULL"):
        await store.upsert("accounts", "a1", {"total": None})
    with pytest.raises(ValueError, match="a new one needs total"):
        await store.bulk_upsert("accounts", [{"id": "new", "owner": "Bob"}])


async def test_a_batch_goes_on_where_a_column_became_required(database, engine, store, uow):
    """The chunk that met the change is written again in its savepoint, a caller's transaction included."""
    await store.bulk_upsert("accounts", ({"id": f"a{n}", "owner": "Ada", "total": 1} for n in range(3)))
    await migrate(database, engine, CHANGES["made not null"])
    docs = ({"id": f"a{n}", "owner": "Bob"} for n in range(3))
    assert await store.bulk_upsert("accounts", docs, uow=uow) == 3
    assert await store.count("accounts", {"owner": "Bob"}, uow=uow) == 3


async def test_a_column_that_got_a_default_is_required_no_more(database, engine, reader, uow):
    """A new document may omit it as soon as the migration is through."""
    with pytest.raises(ValueError, match="a new one needs owner"):
        await reader.upsert("accounts", "new", {"points": 1})
    fields = {"owner": "VARCHAR(20) NOT NULL DEFAULT 'nobody'"}
    await migrate(database, engine, Change(f"{TABLE} ALTER owner SET DEFAULT 'nobody'", "", fields))
    await reader.upsert("accounts", "new", {"points": 1}, uow=uow)
    assert (await reader.find_one("accounts", "new", uow=uow))["owner"] == "nobody"


UID = "12345678-1234-5678-1234-567812345678"


@ONLY_POSTGRESQL
@pytest.mark.parametrize(
    ("migration", "call", "message"),
    [
        (
            "ALTER owner TYPE VARCHAR(5)",
            lambda store: store.upsert("accounts", "a1", {"owner": "x" * 20}),
            "column 'owner': .* does not fit VARCHAR",
        ),
        (
            "ALTER points TYPE SMALLINT",
            lambda store: store.bulk_upsert("accounts", [{"id": "a1", "points": 40000}]),
            "column 'points': 40000 does not fit SMALLINT",
        ),
        (
            "ALTER note TYPE UUID USING NULL",
            lambda store: store.find("accounts", {"note": "x"}),
            "column 'note': 'x' does not fit UUID",
        ),
        (
            "ALTER note TYPE UUID USING NULL",
            lambda store: store.upsert("accounts", "a1", {"note": "x"}),
            "column 'note': 'x' does not fit UUID",
        ),
    ],
    ids=["shorter text", "smaller integer", "another type in a filter", "another type in a document"],
)
async def test_values_that_do_not_fit_any_more_are_named(database, store, migration, call, message):
    """What the column has become too small for, or another type, is a ValueError and not the driver's error."""
    await seed(store)
    await run_elsewhere(database, f"{TABLE} {migration}")
    with pytest.raises(ValueError, match=message):
        await call(store)
    await store.upsert("accounts", "a1", {"owner": "Bob", "points": 1, "note": UID})
    assert str((await store.find_one("accounts", "a1"))["note"]) == UID


async def test_a_key_that_a_migration_changed_is_asked_for(database, engine, store):
    """A document is identified by the key that the table has by now."""
    await seed(store)
    wider = keyed_by("id", "owner")
    await run_elsewhere(database, *rebuilding(engine, wider))
    with pytest.raises(ValueError, match="the key of 'accounts' has the columns id, owner"):
        await store.upsert("accounts", "a1", {"owner": "Ada"})
    key = {"id": "a1", "owner": "Bob"}
    assert await store.upsert("accounts", key, {"points": 1})
    assert (await store.find_one("accounts", key))["points"] == 1


async def test_a_key_column_that_a_schema_does_not_know_is_asked_for(database, engine, store):
    """A migration that widens the key by a new column makes it part of what identifies a document."""
    await seed(store)
    wider = keyed_by("id", "region", more={"region": "TEXT NOT NULL DEFAULT 'here'"})
    await run_elsewhere(database, *rebuilding(engine, wider))
    with pytest.raises(ValueError, match="the key of 'accounts' has the columns id, region"):
        await store.upsert("accounts", "a1", {"owner": "Ada"})
    key = {"id": "a1", "region": "here"}
    assert await store.upsert("accounts", key, {"points": 9})
    assert (await store.find_one("accounts", key))["points"] == 9


async def test_a_unique_index_that_came_with_a_migration_is_named(database, engine, session_factory, store):
    """Its first violation is a ValueError; from then on a caller's transaction survives one too."""
    await seed(store)
    await run_elsewhere(database, "CREATE UNIQUE INDEX one_note ON accounts (note)")
    await store.upsert("accounts", "a1", {"note": "x"})
    with pytest.raises(ValueError, match="column note of 'accounts' is UNIQUE"):
        await store.upsert("accounts", "a2", {"note": "x"})
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        with pytest.raises(ValueError, match="column note of 'accounts' is UNIQUE"):
            await store.upsert("accounts", "a2", {"note": "x"}, uow=uow)
        await store.upsert("accounts", "a2", {"note": "y"}, uow=uow)
    assert (await store.find_one("accounts", "a2"))["note"] == "y"
