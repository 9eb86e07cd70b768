"""What an application asks at its start: whether the database has what the code needs."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from alembic import command
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from cqrs_ddd_advanced_core.projections import ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy import configure_engine, schema
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.tables import build_table
from cqrs_ddd_persistence_sqlalchemy.exceptions import PersistenceError, SchemaOutOfDateError
from tests.schema.every_type import EVERYTHING, LONG_NAMED
from tests.schema.programs import chain
from tests.support.command_line import HEAD, REVISIONS, VERSION_TABLE
from tests.support.engines import check_no_leaks, configured_engine

ORDERS = ProjectionSchema(
    "order_summaries",
    [("id", "UUID PRIMARY KEY"), ("total", "DECIMAL(10, 2) NOT NULL"), ("status", "VARCHAR(20)"), ("Note", "TEXT")],
    indexes=["status"],
)
COMMAND = "alembic upgrade head"


@pytest.fixture(params=["configured", "stock"])
async def any_engine(request, database):
    """An engine on the migrated database, as the library recommends it and as SQLAlchemy makes it."""
    made = create_async_engine(database.url)
    yield configure_engine(made) if request.param == "configured" else made
    await check_no_leaks(made)


@pytest.fixture
async def empty_engine(empty_database):
    """An engine on a database without a table."""
    async with configured_engine(empty_database.url) as made:
        yield made


async def create(engine, projection: ProjectionSchema, *, without: tuple[str, ...] = ()) -> None:
    """Make a projection's table, or one that lacks some of its columns."""
    fields = [field for field in projection.to_dict()["fields"] if field[0] not in without]
    indexes = [] if without else projection.indexes
    declared = ProjectionSchema(projection.collection, fields, indexes, projection.primary_key)
    async with engine.begin() as connection:
        await connection.run_sync(build_table(declared, sa.MetaData()).create)


async def execute(engine, statement: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(sa.text(statement))


async def test_a_migrated_database_is_fine(any_engine):
    """Right after `upgrade head` there is nothing to say, with or without projections."""
    await schema.verify(any_engine)
    await create(any_engine, ORDERS)
    await schema.verify(any_engine, schemas=[ORDERS])


async def test_every_type_of_the_grammar_is_recognised(engine):
    """A table made from a schema with every type, reserved words and long names matches that schema."""
    for projection in (EVERYTHING, LONG_NAMED):
        await create(engine, projection)
    await schema.verify(engine, schemas=[EVERYTHING, LONG_NAMED])


async def test_an_empty_database_is_behind(empty_engine):
    """A database without a table has no revision, and the first one is named with the command to run."""
    with pytest.raises(SchemaOutOfDateError, match=rf"no revision.*{REVISIONS[0]} is missing.*{COMMAND}"):
        await schema.verify(empty_engine)


async def test_a_database_one_revision_behind_is_behind(engine):
    """The missing revision is named with the one that is there and the command to run."""
    async with engine.connect() as connection:
        await connection.run_sync(lambda sync: command.downgrade(chain(sync), "-1"))
    with pytest.raises(SchemaOutOfDateError, match=rf"at {REVISIONS[-2]} and {HEAD} is missing.*{COMMAND}"):
        await schema.verify(engine)


async def test_a_database_ahead_of_the_code_is_fine(engine):
    """A newer revision, as a rolling deploy leaves it, is no reason to stop; a missing projection still is."""
    await execute(engine, f"UPDATE {VERSION_TABLE} SET version_num = 'cqrs_9999'")
    await schema.verify(engine)
    with pytest.raises(SchemaOutOfDateError, match="'order_summaries' is not in the database"):
        await schema.verify(engine, schemas=[ORDERS])


async def test_a_version_table_without_a_row_is_behind(engine):
    """A version table that names no revision is that of a database downgraded to the base."""
    await execute(engine, f"DELETE FROM {VERSION_TABLE}")
    with pytest.raises(SchemaOutOfDateError, match=rf"no revision.*{REVISIONS[0]} is missing"):
        await schema.verify(engine)


async def test_a_projection_without_a_table_is_named(any_engine):
    """The missing table is named with the command to run, whatever other schemas are fine."""
    await create(any_engine, LONG_NAMED)
    with pytest.raises(SchemaOutOfDateError, match=rf"'order_summaries' is not in the database.*{COMMAND}"):
        await schema.verify(any_engine, schemas=[LONG_NAMED, ORDERS])


async def test_columns_that_are_missing_are_named(any_engine):
    """Each column that the schema declares and the table lacks is named with the command to run."""
    await create(any_engine, ORDERS, without=("total", "Note"))
    with pytest.raises(SchemaOutOfDateError, match=rf"'order_summaries'.*total.*Note.*{COMMAND}") as behind:
        await schema.verify(any_engine, schemas=[ORDERS])
    assert "status" not in str(behind.value)


async def test_columns_beyond_the_schema_are_fine(engine):
    """A table may have more columns than an older schema declares."""
    await create(engine, ORDERS)
    await execute(engine, "ALTER TABLE order_summaries ADD COLUMN added_later TEXT")
    await schema.verify(engine, schemas=[ORDERS])


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"total": "TEXT NOT NULL"}, "total"),
        ({"total": "DECIMAL(12, 2) NOT NULL"}, "total"),
        ({"total": "DECIMAL(10, 2)"}, "total"),
        ({"status": "VARCHAR(21)"}, "status"),
        ({"status": "VARCHAR(20) NOT NULL"}, "status"),
        ({"Note": "TEXT PRIMARY KEY"}, "key"),
    ],
)
async def test_other_types_and_keys_are_named(engine, declared, said):
    """A column of another type, length or nullability, and another key, are differences."""
    await create(engine, ORDERS)
    fields = dict(ORDERS.to_dict()["fields"]) | declared
    other = ProjectionSchema("order_summaries", list(fields.items()))
    with pytest.raises(SchemaOutOfDateError, match=rf"'order_summaries'.*{said}"):
        await schema.verify(engine, schemas=[other])


async def test_a_look_does_not_wait_for_writers(engine):
    """A write transaction of another connection, as of a busy application, does not hold the look up."""
    async with engine.connect() as writer:
        await writer.begin()
        await writer.execute(sa.text("INSERT INTO projection_positions (projection_name, position) VALUES ('a', 1)"))
        await schema.verify(engine)
        await writer.rollback()


async def test_on_postgresql_it_is_one_statement(databases_engine):
    """A look at a revision and two projections sends one statement, and not even BEGIN."""
    sent: list[str] = []
    sa.event.listen(databases_engine.sync_engine, "before_cursor_execute", lambda *each: sent.append(each[2]))
    await create(databases_engine, ORDERS)
    await create(databases_engine, LONG_NAMED)
    sent.clear()
    await schema.verify(databases_engine, schemas=[ORDERS, LONG_NAMED])
    assert len(sent) == 1


@pytest.fixture
async def databases_engine(postgresql):
    """An engine on a migrated PostgreSQL database."""
    engine = create_async_engine(postgresql.url)
    yield engine
    await engine.dispose()


async def test_a_tenant_is_looked_at_in_its_schema(databases_engine):
    """With `schema=` the look is at that schema's tables, and the error names it and the command for it."""
    with pytest.raises(
        SchemaOutOfDateError, match=r"schema 'tenant_a' .* run: alembic -x schema=tenant_a upgrade head"
    ):
        await schema.verify(databases_engine, schema="tenant_a")
    await execute(databases_engine, "CREATE SCHEMA tenant_a")
    await execute(databases_engine, f"CREATE TABLE tenant_a.{VERSION_TABLE} AS SELECT * FROM {VERSION_TABLE}")
    await schema.verify(databases_engine, schema="tenant_a")
    await create(databases_engine, ORDERS)
    with pytest.raises(SchemaOutOfDateError, match=r"'order_summaries' is not in schema 'tenant_a'"):
        await schema.verify(databases_engine, schemas=[ORDERS], schema="tenant_a")
    await execute(databases_engine, "ALTER TABLE order_summaries SET SCHEMA tenant_a")
    await schema.verify(databases_engine, schemas=[ORDERS], schema="tenant_a")
    with pytest.raises(SchemaOutOfDateError, match=r"'order_summaries' is not in the database"):
        await schema.verify(databases_engine, schemas=[ORDERS])


async def test_a_translated_schema_is_looked_at(databases_engine):
    """An engine that translates schemas is looked at where its statements go."""
    translated = databases_engine.execution_options(schema_translate_map={None: "tenant_a"})
    with pytest.raises(SchemaOutOfDateError, match="schema 'tenant_a'"):
        await schema.verify(translated)


@pytest.fixture
def stranger(databases, postgresql):
    """The url of a user who has been granted nothing in the database."""
    name = make_url(postgresql.url).database
    databases.admin(f"CREATE ROLE stranger_{name} LOGIN")
    yield make_url(postgresql.url).set(username=f"stranger_{name}")
    databases.admin(f"DROP ROLE stranger_{name}")


@pytest.mark.parametrize(
    ("tenant", "reason"),
    [(None, f"permission denied for table {VERSION_TABLE}"), ("tenant_a", "permission denied for schema tenant_a")],
)
async def test_a_user_who_may_not_look_is_told_so(databases_engine, stranger, tenant, reason):
    """Rights that are missing are named in one line with what to grant; the database may be as it should."""
    await execute(databases_engine, "CREATE SCHEMA tenant_a")
    engine = create_async_engine(stranger)
    with pytest.raises(PersistenceError, match=rf"^the database's user may not look.*{reason}; grant it USAGE") as told:
        await schema.verify(engine, schema=tenant)
    assert "\n" not in str(told.value)
    assert not isinstance(told.value, SchemaOutOfDateError)
    await engine.dispose()


async def test_a_schema_with_a_bad_name_is_refused(engine):
    """What is no identifier is refused by its name, before anything is asked."""
    with pytest.raises(ValueError, match=r"Invalid SQL schema name: 'a; b'"):
        await schema.verify(engine, schema="a; b")
