"""Stores with schemas: what they say counts for as long as the table agrees, and gives way where it must."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionStore
from tests.advanced.projections.migrated.accounts import FIELDS, TABLE, Change, migrate, run_elsewhere, schema_of, seed


async def test_a_store_with_schemas_goes_by_them(database, engine, session_factory, made):
    """What a table has beyond its schema is not used, as long as the schema's statements fit it."""
    store = SQLAlchemyProjectionStore(session_factory, schemas=[schema_of()])
    await seed(store)
    fields = {"points": "BIGINT", "colour": "TEXT"}
    await migrate(database, engine, Change(f"{TABLE} ADD colour TEXT; {TABLE} ALTER points TYPE BIGINT", "", fields))
    for _ in range(2):
        with pytest.raises(ValueError, match="has no column 'colour'"):
            await store.upsert("accounts", "a1", {"colour": "red"})
        with pytest.raises(ValueError, match="column 'points': .* does not fit INTEGER"):
            await store.upsert("accounts", "a1", {"points": 2**40})
        assert set(await store.find_one("accounts", "a1")) == set(FIELDS)


async def test_a_schema_that_its_table_has_left_behind_gives_way_where_it_must(database, engine, session_factory, made):
    """What the table still has stays as the schema says, arrays on SQLite included; what it has not is left out."""
    schema = schema_of(Change("", "", {"moments": "TIMESTAMP[]"}))
    await migrate(database, engine, Change(f"{TABLE} ADD moments TIMESTAMPTZ[]", "", {"moments": "TIMESTAMP[]"}))
    store = SQLAlchemyProjectionStore(session_factory, schemas=[schema])
    moment = datetime(2026, 5, 1, tzinfo=UTC)
    await store.upsert("accounts", "a1", {"owner": "Ada", "moments": [moment]})
    await run_elsewhere(database, f"{TABLE} DROP COLUMN note", f"{TABLE} ADD COLUMN extra TEXT")
    await store.upsert("accounts", "a1", {"owner": "Ada", "moments": [moment]})
    row = await store.find_one("accounts", "a1")
    assert row["moments"] == [moment]
    assert set(row) == set(FIELDS) - {"note"} | {"moments"}
    with pytest.raises(ValueError, match="column 'points': 1099511627776 does not fit INTEGER"):
        await store.upsert("accounts", "a1", {"points": 2**40})


async def test_a_schema_gives_way_in_the_types_that_its_table_has_changed(database, engine, session_factory, made):
    """Once the table is known to be another one, its types count where they are not the schema's any more."""
    store = SQLAlchemyProjectionStore(session_factory, schemas=[schema_of()])
    await seed(store)
    fields = {"note": None, "points": "BIGINT"}
    await migrate(database, engine, Change(f"{TABLE} DROP COLUMN note; {TABLE} ALTER points TYPE BIGINT", "", fields))
    assert "note" not in await store.find_one("accounts", "a1")
    await store.upsert("accounts", "a1", {"points": 2**40, "tags": ["y"]})
    assert (await store.find_one("accounts", "a1"))["points"] == 2**40
    with pytest.raises(ValueError, match=r"column 'tags': \[1\] does not fit TEXT\[\]"):
        await store.upsert("accounts", "a1", {"tags": [1]})
