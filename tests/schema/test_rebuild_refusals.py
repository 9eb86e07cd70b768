"""What keeps a table from being replaced is found first and named, and what can be carried over is."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa

from cqrs_ddd_advanced_core import StoredEvent
from cqrs_ddd_advanced_core.projections import Fold, Projection, ProjectionIndex, ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionStore
from cqrs_ddd_persistence_sqlalchemy.exceptions import CollectionNotFoundError, RebuildError, SchemaOutOfDateError
from cqrs_ddd_persistence_sqlalchemy.schema import abandon_rebuild, rebuild
from tests.support.command_line import schema as text_of_schema
from tests.support.kinds import KINDS, ONLY_POSTGRESQL

FIELDS = [("id", "TEXT PRIMARY KEY"), ("n", "INTEGER")]
ITEMS = ProjectionSchema("items", FIELDS, ["n"])
PROJECTION = Projection("items", ITEMS)


@PROJECTION.fold("Counted")
def counted(row, event):
    return {"n": (row["n"] if row else 0) + 1}


ATTACHED = {
    "CREATE VIEW late AS SELECT id FROM items": "view late",
    "CREATE TABLE notes (item TEXT REFERENCES items (id))": "foreign key .*notes",
}
POSTGRESQL = {
    "CREATE MATERIALIZED VIEW m AS SELECT id FROM items": "materialized view m",
    "CREATE TRIGGER audit BEFORE UPDATE ON items FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()": (
        "trigger audit"
    ),
    "CREATE RULE quiet AS ON DELETE TO items DO ALSO NOTIFY gone": "rule of items",
    "CREATE POLICY mine ON items USING (true)": "policy mine",
    "ALTER TABLE items ENABLE ROW LEVEL SECURITY": "row level security",
    "CREATE PUBLICATION news FOR TABLE items": "publication news",
    "CREATE STATISTICS st ON id, n FROM items": "statistics st",
    "CREATE TABLE more () INHERITS (items)": "child table more",
    "ALTER TABLE items ADD CONSTRAINT positive CHECK (n > 0)": "check positive of table items",
    "CREATE INDEX lower_id ON items (lower(id))": "index lower_id",
    "CREATE FUNCTION newest() RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM items; END": r"function newest\(\)",
}
SQLITE = {
    "CREATE TRIGGER audit AFTER INSERT ON items BEGIN SELECT 1; END": "trigger audit",
    "CREATE TRIGGER copy AFTER DELETE ON projection_positions BEGIN DELETE FROM Items; END": "trigger copy",
    "CREATE INDEX lower_id ON items (lower(id))": "index lower_id",
}
DIFFERENT = {
    "ALTER TABLE items ADD COLUMN extra TEXT": "column extra is not in the schema",
    "DROP INDEX ix_items_n": "index ix_items_n differs",
    "CREATE UNIQUE INDEX by_n ON items (n)": "index by_n differs",
}


@pytest.fixture
async def store(session_factory):
    made = SQLAlchemyProjectionStore(session_factory, allow_auto_ddl=True)
    await made.ensure_collection("items", schema=ITEMS)
    await made.upsert("items", "i1", {"n": 5})
    return made


async def run(engine, statement):
    async with engine.begin() as connection:
        await connection.exec_driver_sql(statement)


async def refused(database, session_factory, error, message):
    """Rebuild in vain, and make sure that nothing is changed."""
    before = await asyncio.to_thread(text_of_schema, database)
    with pytest.raises(error, match=message):
        await rebuild(PROJECTION, session_factory)
    assert await asyncio.to_thread(text_of_schema, database) == before


@pytest.mark.parametrize(
    ("database", "creation", "name"),
    [
        *((kind, *case) for kind in KINDS for case in ATTACHED.items()),
        *(("postgresql", *case) for case in POSTGRESQL.items()),
        *(("sqlite", *case) for case in SQLITE.items()),
    ],
    indirect=["database"],
)
async def test_what_belongs_to_the_table_or_depends_on_it_is_named(
    engine, database, session_factory, store, creation, name
):
    """It would be lost, or keep the table from being dropped."""
    await run(engine, creation)
    message = rf"^the table of 'items' cannot be replaced, as these belong to it or depend on it: .*{name}.*Drop them"
    await refused(database, session_factory, RebuildError, message)
    assert (await store.find_one("items", "i1"))["n"] == 5


@pytest.mark.parametrize(("change", "difference"), DIFFERENT.items())
async def test_a_table_that_is_not_as_its_schema_says_is_migrated_first(
    engine, database, session_factory, store, change, difference
):
    """A rebuild makes the schema's table, and so would change it behind the revisions' back."""
    await run(engine, change)
    message = rf"the table of 'items' is not as its schema says: .*{difference}.*run: alembic upgrade head"
    await refused(database, session_factory, SchemaOutOfDateError, message)


async def test_a_table_that_is_missing_is_not_created(database, session_factory):
    """A rebuild makes no table where no revision has."""
    await refused(database, session_factory, CollectionNotFoundError, "collection 'items' is not in the database")


async def test_a_table_with_the_shadows_name_is_not_dropped(engine, database, session_factory, store):
    """Only a rebuild's own table is ever dropped."""
    await run(engine, "CREATE TABLE items__rebuild (id INTEGER)")
    await refused(database, session_factory, RebuildError, "needs the name 'items__rebuild' .* no rebuild has made")
    assert not await abandon_rebuild(PROJECTION, session_factory)
    await refused(database, session_factory, RebuildError, "needs the name 'items__rebuild'")


@ONLY_POSTGRESQL
async def test_owner_rights_parameters_and_comments_are_carried_over(engine, database, session_factory, store):
    """They are the table's on PostgreSQL, and in no schema; SQLite has none of them."""
    statements = [
        'CREATE ROLE "the owner"',
        "CREATE ROLE reader",
        "GRANT SELECT ON items TO reader",
        "GRANT UPDATE (n) ON items TO reader WITH GRANT OPTION",
        "GRANT SELECT ON items TO PUBLIC",
        "COMMENT ON TABLE items IS 'what''s counted: %s'",
        "COMMENT ON COLUMN items.n IS 'how often'",
        "ALTER TABLE items SET (fillfactor = 70, autovacuum_enabled = false)",
        'ALTER TABLE items OWNER TO "the owner"',
    ]
    for statement in statements:
        await run(engine, statement)
    settings = sa.text(
        "SELECT pg_get_userbyid(relowner), array(SELECT unnest(relacl)::text ORDER BY 1), reloptions,"
        " obj_description(oid), col_description(oid, 2),"
        " (SELECT array_agg(attname || attacl::text) FROM pg_attribute WHERE attrelid = c.oid AND attacl IS NOT NULL)"
        " FROM pg_class c WHERE relname = 'items'"
    )
    try:
        async with engine.connect() as connection:
            before = (await connection.execute(settings)).one()
        await rebuild(PROJECTION, session_factory)
        async with engine.connect() as connection:
            assert (await connection.execute(settings)).one() == before
    finally:
        for statement in ("DROP TABLE items", 'DROP ROLE "the owner"', "DROP ROLE reader"):
            await run(engine, statement)


async def test_a_row_that_breaks_a_unique_index_stops_the_rebuild(session_factory):
    """As it would stop the projection: at its event, with the column's name."""
    schema = ProjectionSchema("items", FIELDS, [ProjectionIndex("n", unique=True)])
    store = SQLAlchemyProjectionStore(session_factory, allow_auto_ddl=True)
    await store.ensure_collection("items", schema=schema)
    projection = Projection("items", schema, {"Counted": Fold(counted)})
    events = [StoredEvent(aggregate_id=f"i{n}", event_type="Counted", payload={}) for n in range(2)]
    await SQLAlchemyEventStore(session_factory).append(events)
    with pytest.raises(RebuildError, match=r"failed at event 2: ValueError: column n of .* is UNIQUE"):
        await rebuild(projection, session_factory)
