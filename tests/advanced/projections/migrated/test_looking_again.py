"""When a store looks at its table again, when it need not, and which refusals are no sign of a migration."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced.projections import catalogue
from cqrs_ddd_persistence_sqlalchemy.exceptions import CollectionNotFoundError
from tests.advanced.projections.migrated.accounts import (
    CHANGES,
    METHODS,
    creation,
    migrate,
    run_elsewhere,
    schema_of,
    seed,
)
from tests.support.kinds import ONLY_POSTGRESQL


async def test_a_table_is_read_once(engine, reader):
    """Operations that fit what is known of a table do not look at it again."""
    statements = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    for method in METHODS.values():
        await seed(reader)
        await method(reader)
    assert [each for each in statements if "pragma" in each.lower() or "pg_attribute" in each] == []


async def test_a_column_that_only_others_use_appears_when_the_table_is_looked_at_again(
    database, engine, reader, monkeypatch
):
    """Without any sign of the change the table is read again after a minute."""
    await migrate(database, engine, CHANGES["column added"])
    assert "colour" not in await reader.find_one("accounts", "a1")
    monkeypatch.setattr(catalogue, "TRUSTED_FOR_SECONDS", 0)
    assert (await reader.find_one("accounts", "a1"))["colour"] is None


async def test_a_table_is_missed_and_found_again(database, engine, store):
    """While the table is away the collection is not found; once it is back, it is."""
    await seed(store)
    await run_elsewhere(database, "DROP TABLE accounts")
    for method, call in METHODS.items():
        if method != "upsert refused":
            with pytest.raises(CollectionNotFoundError, match="'accounts'"):
                await call(store)
    await run_elsewhere(database, *creation(engine, schema_of()))
    await seed(store)
    assert await store.count("accounts") == 2


async def test_a_refusal_after_a_failure_is_told_as_it_is(session_factory, store):
    """In a transaction that has failed before, a bad document is no sign of a migration."""
    await seed(store)
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        with pytest.raises(DBAPIError):
            await uow.session.execute(sa.text("SELECT * FROM nowhere"))
        with pytest.raises(ValueError, match="has no column 'nope'"):
            await store.upsert("accounts", "a1", {"nope": 1}, uow=uow)
        await uow.rollback()


@ONLY_POSTGRESQL
async def test_a_refusal_that_no_migration_explains_is_the_databases_own_error(database, store):
    """A trigger's error, of a kind that a changed column has too, comes out as it is after another look."""
    await seed(store)
    await run_elsewhere(
        database,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN RAISE EXCEPTION USING ERRCODE = ''22003'', MESSAGE = ''too much''; END'",
        "CREATE TRIGGER refuse BEFORE UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    for write in (
        store.upsert("accounts", "a1", {"points": 1}),
        store.bulk_upsert("accounts", [{"id": "a1", "points": 1}]),
    ):
        with pytest.raises(DBAPIError, match="too much"):
            await write
