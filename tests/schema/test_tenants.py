"""`-x schema=tenant_a`: the library's tables and the projections in a schema of the tenant's, apart from all others."""

from __future__ import annotations

import argparse
import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.ext.asyncio import create_async_engine

from cqrs_ddd_advanced_core.projections import ProjectionIndex, ProjectionSchema
from tests.support.command_line import (
    HEAD,
    LIBRARY_TABLES,
    VERSION_TABLE,
    column,
    copy_repository,
    declare,
    execute,
    fail,
    make_application,
    run,
    run_script,
    succeed,
    tables,
)

if TYPE_CHECKING:
    from subprocess import CompletedProcess

ORDERS = ProjectionSchema(
    "order_summaries",
    [("id", "VARCHAR(36) PRIMARY KEY"), ("status", "VARCHAR(20) NOT NULL"), ("tags", "TEXT[]")],
    indexes=["status"],
)
CHANGED = ProjectionSchema(
    "order_summaries",
    [("id", "VARCHAR(36) PRIMARY KEY"), ("status", "VARCHAR(40) NOT NULL"), ("total", "DECIMAL(10, 2)")],
    indexes=["status", ProjectionIndex(("total",), where={"status": "new"})],
)
TENANT = ("-x", "schema=Tenant_a")


@pytest.fixture
def empty_sqlite(databases):
    """An empty SQLite file."""
    with databases.fresh("sqlite", migrated=False) as fresh:
        yield fresh


@pytest.fixture
def application(tmp_path, empty_postgresql):
    """An application with the revision of one projection."""
    folder = make_application(tmp_path / "application")
    (folder / "versions").mkdir(exist_ok=True)
    declare(folder, ORDERS)
    succeed("-x", "projection=read_models:order_summaries", "revision", "-m", "create orders", cwd=folder)
    return folder


def tables_of(database, schema: str) -> set[str]:
    """Return the tables in a schema."""
    return set(column(database, f"SELECT tablename FROM pg_tables WHERE schemaname = '{schema}'"))


def columns_of(database, schema: str) -> list[str]:
    """Return what the catalogue says of the columns, keys and indexes in a schema, the schema's own name left out."""
    found = column(
        database,
        f"""
        SELECT concat_ws(' ', table_name, column_name, data_type, column_default, is_nullable)
        FROM information_schema.columns WHERE table_schema = '{schema}'
        UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = '{schema}'
        UNION ALL SELECT pg_get_triggerdef(t.oid) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
        WHERE c.relnamespace = '"{schema}"'::regnamespace AND NOT tgisinternal
        """,
    )
    return sorted(re.sub(r'(public|"?Tenant_a"?)\.', "", text) for text in found)


def test_everything_lands_in_the_schema(application, empty_postgresql):
    """The schema is created, holds both chains with their version tables, and public stays empty."""
    succeed(*TENANT, "upgrade", "head", cwd=application, url=empty_postgresql.dsn)
    assert tables_of(empty_postgresql, "Tenant_a") == LIBRARY_TABLES | {"alembic_version", "order_summaries"}
    assert tables(empty_postgresql) == set()
    assert column(empty_postgresql, f'SELECT version_num FROM "Tenant_a".{VERSION_TABLE}') == [HEAD]


def test_the_schema_holds_what_the_default_one_would(application, empty_postgresql):
    """Columns, defaults, keys, indexes and triggers are those of a database without tenants."""
    succeed("upgrade", "head", cwd=application, url=empty_postgresql.dsn)
    succeed(*TENANT, "upgrade", "head", cwd=application, url=empty_postgresql.dsn)
    assert columns_of(empty_postgresql, "Tenant_a") == columns_of(empty_postgresql, "public")


def test_commands_look_into_the_schema(application, empty_postgresql):
    """`current` and `check` are about the schema's tables, whatever stands in the default one."""
    url = empty_postgresql.dsn
    succeed(*TENANT, "upgrade", "head", cwd=application, url=url)
    assert succeed("current", cwd=application, url=url) == ""
    assert "(head)" in succeed(*TENANT, "current", cwd=application, url=url)
    assert succeed(*TENANT, "check", cwd=application, url=url) == "No new upgrade operations detected.\n"
    execute(empty_postgresql, 'ALTER TABLE "Tenant_a".order_summaries DROP COLUMN tags')
    assert "order_summaries" in fail(*TENANT, "check", cwd=application, url=url)


def test_changes_are_found_and_made_in_the_schema(application, empty_postgresql):
    """A revision that is generated from one tenant's tables upgrades that tenant and another, indexes included."""
    url = empty_postgresql.dsn
    succeed(*TENANT, "upgrade", "head", cwd=application, url=url)
    declare(application, CHANGED)
    succeed(*TENANT, "revision", "--autogenerate", "-m", "totals", cwd=application, url=url)
    for tenant in ("Tenant_a", "tenant_b"):
        succeed("-x", f"schema={tenant}", "upgrade", "head", cwd=application, url=url)
        assert succeed("-x", f"schema={tenant}", "check", cwd=application, url=url) == (
            "No new upgrade operations detected.\n"
        )
    assert tables(empty_postgresql) == set()


def test_a_downgrade_touches_the_schema_only(application, empty_postgresql):
    """`downgrade` drops one tenant's projection, refuses where it has rows, and leaves the other tenant's."""
    url = empty_postgresql.dsn
    for tenant in ("Tenant_a", "tenant_b"):
        succeed("-x", f"schema={tenant}", "upgrade", "head", cwd=application, url=url)
    execute(empty_postgresql, "INSERT INTO \"Tenant_a\".order_summaries (id, status) VALUES ('1', 'new')")
    assert "'order_summaries', which has rows in it" in fail(*TENANT, "downgrade", "base", cwd=application, url=url)
    succeed("-x", "schema=tenant_b", "downgrade", "base", cwd=application, url=url)
    assert "order_summaries" in tables_of(empty_postgresql, "Tenant_a")
    assert "order_summaries" not in tables_of(empty_postgresql, "tenant_b")


def test_a_script_creates_the_schema_and_works_in_it(application, empty_postgresql, server):
    """What `--sql` prints makes what the command makes, and leaves the session as it was."""
    succeed("-x", "schema=tenant_b", "upgrade", "head", cwd=application, url=empty_postgresql.dsn)
    script = succeed(*TENANT, "upgrade", "head", "--sql", cwd=application, url=empty_postgresql.dsn)
    run_script(script + "\nCREATE TABLE afterwards (id INTEGER);", empty_postgresql, server)
    assert tables_of(empty_postgresql, "Tenant_a") == tables_of(empty_postgresql, "tenant_b")
    assert tables(empty_postgresql) == {"afterwards"}
    assert (
        succeed(*TENANT, "check", cwd=application, url=empty_postgresql.dsn) == "No new upgrade operations detected.\n"
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tenant-a", "Invalid SQL schema name: 'tenant-a'"),
        ("a;DROP TABLE events", "Invalid SQL schema name"),
        ("1a", "Invalid SQL schema name"),
        ("é", "Invalid SQL schema name"),
        ("a" * 64, "Invalid SQL schema name"),
        ("pg_tenant", "PostgreSQL's own"),
        ("information_schema", "PostgreSQL's own"),
    ],
)
def test_bad_names_are_refused(application, empty_postgresql, name, said):
    """A name that is no identifier, or the server's own, is refused and named; nothing is created."""
    assert said in fail("-x", f"schema={name}", "upgrade", "head", cwd=application, url=empty_postgresql.dsn)
    assert set(column(empty_postgresql, "SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_)'")) == {
        "public"
    }


@pytest.mark.parametrize("command", [("check",), ("current",), ("downgrade", "base"), ("revision", "--autogenerate")])
def test_only_an_upgrade_creates_a_schema(application, empty_postgresql, command):
    """Other commands say of a schema that is missing how to create it."""
    message = fail(*TENANT, *command, cwd=application, url=empty_postgresql.dsn)
    assert "there is no schema 'Tenant_a' in the database; run: alembic -x schema=Tenant_a upgrade head" in message
    assert column(empty_postgresql, "SELECT nspname FROM pg_namespace WHERE nspname = 'Tenant_a'") == []


def test_a_revision_is_the_same_for_all(application):
    """A schema given to a command that writes a revision without a database is refused."""
    message = fail(*TENANT, "-x", "projection=read_models:order_summaries", "revision", "-m", "x", cwd=application)
    assert "a revision is the same for every schema: leave -x schema= out" in message


@pytest.mark.parametrize("options", [(), ("--sql",)])
def test_sqlite_has_none(application, empty_sqlite, options):
    """On SQLite the option is refused with what to do instead, and nothing is migrated."""
    message = fail(*TENANT, "upgrade", "head", *options, cwd=application, url=empty_sqlite.dsn)
    assert "SQLite has no schema 'Tenant_a', nor any other: give each tenant a file of its own" in message
    assert tables(empty_sqlite) == set()


def test_a_right_to_create_is_needed_only_once(application, empty_postgresql):
    """A schema that is there is migrated by its owner, who may create no other."""
    role = f"tenant_{empty_postgresql.dsn.rpartition('/')[2]}"
    execute(empty_postgresql, f"CREATE ROLE {role} LOGIN")
    try:
        execute(empty_postgresql, f"CREATE SCHEMA tenant_b AUTHORIZATION {role}")
        url = empty_postgresql.dsn.replace("postgres@", f"{role}@")
        succeed("-x", "schema=tenant_b", "upgrade", "head", cwd=application, url=url)
        message = fail("-x", "schema=tenant_c", "upgrade", "head", cwd=application, url=url)
        assert "the database's user may not do this: permission denied for database" in message
    finally:
        execute(empty_postgresql, f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")


def test_the_repositorys_own_chain_goes_into_a_schema_too(tmp_path, empty_postgresql):
    """In this repository, which is no application, the option does the same."""
    folder = copy_repository(tmp_path)
    succeed(*TENANT, "upgrade", "head", cwd=folder, url=empty_postgresql.dsn)
    assert tables_of(empty_postgresql, "Tenant_a") == LIBRARY_TABLES
    assert succeed(*TENANT, "check", cwd=folder, url=empty_postgresql.dsn) == "No new upgrade operations detected.\n"
    succeed(*TENANT, "downgrade", "base", cwd=folder, url=empty_postgresql.dsn)
    assert tables_of(empty_postgresql, "Tenant_a") == {VERSION_TABLE}


def test_a_connection_is_given_back_as_it_was(application, empty_postgresql):
    """A connection that a program hands over has its search path back, in its transaction and without one."""

    def migrate(connection, tenant: str) -> None:
        config = Config(str(application / "alembic.ini"), cmd_opts=argparse.Namespace(x=[f"schema={tenant}"]))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    async def both() -> list[str]:
        engine = create_async_engine(empty_postgresql.url)
        async with engine.connect() as connection:
            await connection.run_sync(migrate, "tenant_a")
            paths = [await connection.scalar(sa.text("SHOW search_path"))]
            await connection.commit()
            await connection.begin()
            await connection.run_sync(migrate, "tenant_b")
            paths.append(await connection.scalar(sa.text("SHOW search_path")))
            await connection.rollback()
        await engine.dispose()
        return paths

    assert asyncio.run(both()) == ['"$user", public'] * 2
    assert tables_of(empty_postgresql, "tenant_a") >= LIBRARY_TABLES
    assert column(empty_postgresql, "SELECT nspname FROM pg_namespace WHERE nspname = 'tenant_b'") == []


def test_ten_tenants_four_at_a_time(application, empty_postgresql):
    """Ten tenants are migrated by four processes at once, twice each, indexes built CONCURRENTLY included."""
    tenants = [f"tenant_{number}" for number in range(10)]
    succeed(*TENANT, "upgrade", "head", cwd=application, url=empty_postgresql.dsn)
    declare(application, CHANGED)
    succeed(*TENANT, "revision", "--autogenerate", "-m", "totals", cwd=application, url=empty_postgresql.dsn)

    def migrate(tenant: str) -> CompletedProcess[str]:
        return run("-x", f"schema={tenant}", "upgrade", "head", cwd=application, url=empty_postgresql.dsn)

    with ThreadPoolExecutor(4) as four:
        done = list(four.map(migrate, [*tenants, *tenants]))
    assert [each.returncode for each in done] == [0] * 20, [each.stderr for each in done if each.returncode]
    expected = columns_of(empty_postgresql, "tenant_0")
    for tenant in tenants:
        assert [text.replace(f"{tenant}.", "tenant_0.") for text in columns_of(empty_postgresql, tenant)] == expected
    assert tables(empty_postgresql) == set()


def test_a_new_schema_is_created_once(application, empty_postgresql):
    """Four processes that migrate one tenant that is not there yet all succeed."""

    def migrate(_number: int) -> CompletedProcess[str]:
        return run("-x", "schema=tenant_a", "upgrade", "head", cwd=application, url=empty_postgresql.dsn)

    with ThreadPoolExecutor(4) as four:
        done = list(four.map(migrate, range(4)))
    assert [each.returncode for each in done] == [0] * 4, [each.stderr for each in done if each.returncode]
    assert tables_of(empty_postgresql, "tenant_a") == LIBRARY_TABLES | {"alembic_version", "order_summaries"}
