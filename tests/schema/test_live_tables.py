"""Migrations beside a running application: short locks, indexes that are built twice, tables that SQLite rebuilds."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.ext.asyncio import create_async_engine

from cqrs_ddd_advanced_core.projections import ProjectionIndex, ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy import configure_engine
from tests.support.command_line import column, environment, execute, fail, generate, make_application, schema, succeed

if TYPE_CHECKING:
    from tests.support.databases import Database

KEY = ("id", "TEXT PRIMARY KEY")
PLAIN = ProjectionSchema("orders", [KEY, ("number", "INTEGER"), ("name", "TEXT DEFAULT ':x'")])
INDEXED = ProjectionSchema("orders", PLAIN.fields, [ProjectionIndex("number", unique=True, name="by_number")])
WIDER = ProjectionSchema("orders", [KEY, ("number", "BIGINT"), ("name", "TEXT DEFAULT ':x'")])


@pytest.fixture
def app(tmp_path):
    """An application that gives up quickly where a table is in use."""
    return make_application(tmp_path / "app", lock_timeout_seconds="0.2", lock_timeout_retries="1")


def migrate(app, database: Database, message: str, wanted: ProjectionSchema) -> None:
    """Write the revisions for the schema and apply them."""
    generate(app, database, message, wanted)
    succeed("upgrade", "head", cwd=app, url=database.url)


def test_an_interrupted_index_is_built_again(app, postgresql):
    """What a failed CREATE INDEX CONCURRENTLY has left is dropped, and the index built, when the upgrade runs again."""
    migrate(app, postgresql, "create", PLAIN)
    execute(postgresql, "INSERT INTO orders (id, number) VALUES ('a', 1), ('b', 1)")
    generate(app, postgresql, "index", INDEXED)
    message = fail("upgrade", "head", cwd=app, url=postgresql.url)
    assert "do not allow this change" in message
    invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
    assert column(postgresql, invalid) == [1]
    execute(postgresql, "DELETE FROM orders WHERE id = 'b'")
    succeed("upgrade", "head", cwd=app, url=postgresql.url)
    assert column(postgresql, invalid) == [0]
    assert column(postgresql, "SELECT count(*) FROM pg_index WHERE indexrelid = 'by_number'::regclass") == [1]
    assert "No new upgrade operations" in succeed("check", cwd=app, url=postgresql.url)


@asynccontextmanager
async def reading(database: Database):
    """Keep a transaction open that has read the table."""
    connection = await asyncpg.connect(database.dsn)
    transaction = connection.transaction()
    await transaction.start()
    await connection.fetch("SELECT * FROM orders")
    try:
        yield transaction
    finally:
        await connection.close()


async def upgrading(app, database: Database) -> asyncio.subprocess.Process:
    """Start an upgrade beside this test."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "alembic", "upgrade", "head"),
        cwd=app,
        env=environment(database.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


async def test_a_migration_gives_way_to_the_application(app, postgresql):
    """While a table is in use the upgrade lets go of it again and again, and says at the end why it gave up."""
    await asyncio.to_thread(migrate, app, postgresql, "create", PLAIN)
    await asyncio.to_thread(generate, app, postgresql, "widen", WIDER)
    async with reading(postgresql):
        process = await upgrading(app, postgresql)
        bystander = await asyncpg.connect(postgresql.dsn)
        while process.returncode is None:
            # Without a limit this read would wait behind the upgrade, and the upgrade behind the open transaction.
            await asyncio.wait_for(bystander.fetch("SELECT * FROM orders"), timeout=20)
            await asyncio.wait([asyncio.create_task(process.wait())], timeout=0.05)
        await bystander.close()
        said = (await process.stdout.read()).decode()
    assert process.returncode != 0
    assert "a table was in use for longer than 0.2 seconds, at each of 2 tries" in said
    await asyncio.to_thread(succeed, "upgrade", "head", cwd=app, url=postgresql.url)


async def test_a_migration_goes_on_when_the_table_is_free(tmp_path, postgresql):
    """A retry succeeds once the transaction in the way has ended."""
    app = make_application(tmp_path / "app", lock_timeout_seconds="0.1", lock_timeout_retries="500")
    await asyncio.to_thread(migrate, app, postgresql, "create", PLAIN)
    await asyncio.to_thread(generate, app, postgresql, "widen", WIDER)
    async with reading(postgresql) as transaction:
        process = await upgrading(app, postgresql)
        line = b""
        while b"A table is in use; trying again" not in line:
            line = await process.stdout.readline()
            assert line, "the upgrade has ended without being in anybody's way"
        await transaction.rollback()
        await process.communicate()
    assert process.returncode == 0


async def test_an_index_waits_for_old_transactions(app, postgresql):
    """CREATE INDEX CONCURRENTLY waits for an old transaction as long as it takes: nobody waits behind it."""
    await asyncio.to_thread(migrate, app, postgresql, "create", PLAIN)
    await asyncio.to_thread(generate, app, postgresql, "index", INDEXED)
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE UNIQUE INDEX%' AND wait_event_type = 'Lock'"
    )
    async with reading(postgresql) as transaction:
        process = await upgrading(app, postgresql)
        observer = await asyncpg.connect(postgresql.dsn)
        while not await observer.fetchval(waiting):  # noqa: ASYNC110  (the condition is in the database)
            await asyncio.sleep(0.05)
        since = await observer.fetchval("SELECT clock_timestamp()")
        while await observer.fetchval("SELECT extract(epoch FROM clock_timestamp() - $1)", since) < 1:
            assert await observer.fetchval(waiting), "it has given up, though nobody waits behind it"
            await observer.execute("INSERT INTO orders (id) VALUES (gen_random_uuid()::text)")
        await transaction.rollback()
        await observer.close()
        await process.communicate()
    assert process.returncode == 0


async def test_an_index_needs_a_connection_without_a_transaction(app, postgresql):
    """Inside the caller's transaction the revision of an index is refused in words, not by an assertion."""
    await asyncio.to_thread(migrate, app, postgresql, "create", PLAIN)
    await asyncio.to_thread(generate, app, postgresql, "index", INDEXED)

    def upgrade(connection: sa.Connection) -> None:
        config = Config(app / "alembic.ini")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    engine = create_async_engine(postgresql.url)
    async with engine.connect() as connection:
        await connection.begin()
        with pytest.raises(CommandError, match="hand over a connection that is in none"):
            await connection.run_sync(upgrade)
    async with engine.connect() as connection:
        await connection.run_sync(upgrade)
    await engine.dispose()


@pytest.mark.parametrize("setting", ["lock_timeout_seconds = soon", "lock_timeout_retries = 1.5"])
def test_settings_are_checked(app, setting, database):
    """A limit that is no number ends in one line that names it."""
    ini = app / "alembic.ini"
    name = setting.split()[0]
    ini.write_text(re.sub(rf"{name} = .*", setting, ini.read_text()))
    assert name in fail("upgrade", "head", cwd=app, url=database.url)


def test_scripts_keep_locks_short_and_pass_squawk(app, postgresql):
    """A script for PostgreSQL limits its waits, and squawk finds nothing that is not excluded on purpose."""
    migrate(app, postgresql, "create", PLAIN)
    changed = ProjectionSchema(
        "orders",
        [KEY, ("number", "BIGINT NOT NULL UNIQUE"), ("made", "TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP")],
        [ProjectionIndex("made", descending=["made"])],
    )
    generate(app, postgresql, "change", changed)
    script = succeed("upgrade", "head", "--sql", cwd=app, url=postgresql.url)
    assert script.count("BEGIN;") == script.count("SET LOCAL lock_timeout = '200ms';")
    squawk = [f"{sys.prefix}/bin/squawk", "--config", ".squawk.toml", "--stdin-filepath", "script.sql"]
    done = subprocess.run(squawk, input=script, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_script_cannot_rebuild_a_table(app, databases):
    """For SQLite a change that copies a table cannot be scripted: that is said, and no half of a script is written."""
    with databases.fresh("sqlite") as database:
        migrate(app, database, "create", PLAIN)
        generate(app, database, "widen", WIDER)
        assert "cannot be written as a script" in fail("upgrade", "head", "--sql", cwd=app, url=database.url)


CHILDREN = "CREATE TABLE lines (id INTEGER PRIMARY KEY, of TEXT REFERENCES orders (id) ON DELETE CASCADE)"
TRIGGER = "CREATE TRIGGER watch AFTER UPDATE ON orders BEGIN UPDATE lines SET of = of; END"


@pytest.fixture
def with_children(app, databases):
    """An SQLite database with a projection, rows that refer to its rows, and a trigger."""
    with databases.fresh("sqlite") as database:
        migrate(app, database, "create", PLAIN)
        execute(
            database, "INSERT INTO orders (id) VALUES ('a')", CHILDREN, "INSERT INTO lines VALUES (1, 'a')", TRIGGER
        )
        generate(app, database, "widen", WIDER)
        yield database


def test_a_rebuilt_table_keeps_what_hangs_on_it(app, with_children):
    """Rows that refer to a rebuilt table, its triggers, and defaults with colons are there afterwards."""
    succeed("upgrade", "head", cwd=app, url=with_children.url)
    assert column(with_children, "SELECT of FROM lines") == ["a"]
    assert TRIGGER in schema(with_children)
    execute(with_children, "INSERT INTO orders (id) VALUES ('b')")
    assert column(with_children, "SELECT name FROM orders") == [":x", ":x"]


async def test_enforced_foreign_keys_delete_nothing(app, with_children):
    """An engine that enforces foreign keys migrates with them off, and has them on again afterwards."""

    def upgrade(connection: sa.Connection) -> None:
        config = Config(app / "alembic.ini")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    engine = configure_engine(create_async_engine(with_children.url))
    async with engine.connect() as connection:
        await connection.begin()
        with pytest.raises(CommandError, match="would delete or change rows of lines"):
            await connection.run_sync(upgrade)
        await connection.rollback()
        await connection.run_sync(upgrade)
        assert await connection.scalar(sa.text("PRAGMA foreign_keys")) == 1
    await engine.dispose()
    assert column(with_children, "SELECT of FROM lines") == ["a"]
