"""An application with an Alembic environment, tables and a history of its own, which the library's chain joins."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from cqrs_ddd_persistence_sqlalchemy import schema as library_schema
from tests.schema.every_type import EVERYTHING
from tests.schema.own_application import (
    MODELS,
    OWN_TABLES,
    follow,
    library_revision,
    of_library,
    revision_by_hand,
    schema_command,
    write_application,
)
from tests.support.command_line import (
    APPEND,
    HEAD,
    LIBRARY_TABLES,
    REVISIONS,
    VERSION_TABLE,
    column,
    execute,
    fail,
    make_application,
    run,
    run_script,
    schema,
    succeed,
    tables,
)
from tests.support.databases import alembic

if TYPE_CHECKING:
    import subprocess

PROJECTIONS = f"""
from cqrs_ddd_advanced_core.projections import ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy import schema

schema.add_projections(metadata, [ProjectionSchema.from_dict({EVERYTHING.to_dict()!r})])
"""
NO_CHANGES = "No new upgrade operations detected.\n"


@pytest.fixture
def application(tmp_path):
    """An application with one table, of which no revision tells yet."""
    return write_application(tmp_path / "application")


@pytest.fixture
def following(application, empty_database):
    """The application with a revision of its table, and behind it one that follows the library's chain to its head."""
    succeed("upgrade", "head", cwd=application, url=empty_database.dsn)
    succeed("revision", "--autogenerate", "-m", "customers", cwd=application, url=empty_database.dsn)
    assert follow(application)[0] == 0
    return application


def test_one_history_makes_both(following, empty_database, reference):
    """`upgrade head` makes the application's table and just what the library's own environment would make."""
    succeed("upgrade", "head", cwd=following, url=empty_database.dsn)
    assert tables(empty_database) == LIBRARY_TABLES | OWN_TABLES
    assert of_library(schema(empty_database)) == of_library(schema(reference))
    assert library_revision(empty_database) == [HEAD]
    assert len(succeed("heads", cwd=following, url=empty_database.dsn).splitlines()) == 1


def test_autogenerate_leaves_the_librarys_tables_alone(following, empty_database):
    """Right after the upgrade `check` finds nothing, and a new table of the application's is all that is proposed."""
    url = empty_database.dsn
    succeed("upgrade", "head", cwd=following, url=url)
    assert succeed("check", cwd=following, url=url) == NO_CHANGES
    (following / "models.py").write_text(MODELS + 'sa.Table("more", metadata, sa.Column("id", sa.Integer()))\n')
    succeed("revision", "--autogenerate", "-m", "more", cwd=following, url=url)
    (text,) = [path.read_text() for path in (following / "migrations" / "versions").glob("*_more.py")]
    assert re.findall(r"op\.(\w+)\(\s*'(\w+)'", text) == [("create_table", "more"), ("drop_table", "more")]


def test_the_way_down_leaves_nothing(following, empty_database):
    """`downgrade base` drops the library's tables too, version table included, and `upgrade` makes them again."""
    url = empty_database.dsn
    succeed("upgrade", "head", cwd=following, url=url)
    before = schema(empty_database)
    succeed("downgrade", "base", cwd=following, url=url)
    assert tables(empty_database) == {"alembic_version"}
    succeed("upgrade", "head", cwd=following, url=url)
    assert schema(empty_database) == before


def test_the_way_down_keeps_events(following, empty_database):
    """A downgrade that would drop a table of the library's with rows in it is refused, unless it is allowed to."""
    url = empty_database.dsn
    succeed("upgrade", "head", cwd=following, url=url)
    execute(empty_database, APPEND)
    done = run("downgrade", "base", cwd=following, url=url)
    assert done.returncode != 0
    assert "this downgrade would drop table 'events', which has rows in it" in done.stdout + done.stderr
    assert library_revision(empty_database) == [HEAD]
    assert column(empty_database, "SELECT event_id FROM events") == ["e-1"]
    succeed("-x", "allow-data-loss=yes", "downgrade", "base", cwd=following, url=url)
    assert tables(empty_database) == {"alembic_version"}


def test_a_script_holds_both(following, empty_database, reference, server):
    """What `upgrade head --sql` prints makes the same, and `downgrade --sql` takes it back."""
    url = empty_database.dsn
    execute(empty_database, "DROP TABLE alembic_version")  # the fixture's
    run_script(succeed("upgrade", "head", "--sql", cwd=following, url=url), empty_database, server)
    assert of_library(schema(empty_database)) == of_library(schema(reference))
    assert library_revision(empty_database) == [HEAD]
    assert succeed("check", cwd=following, url=url) == NO_CHANGES
    run_script(succeed("downgrade", "head:base", "--sql", cwd=following, url=url), empty_database, server)
    assert tables(empty_database) <= {"alembic_version"}


def test_an_update_of_the_library_is_one_more_revision(application, empty_database, reference):
    """Where the revisions come to an older release's head, the command writes what is between, and that once."""
    url, older = empty_database.dsn, REVISIONS[-3]
    revision_by_hand(application, f'schema.upgrade(to="{older}")', f'schema.downgrade(from_="{older}")')
    succeed("upgrade", "head", cwd=application, url=url)
    assert library_revision(empty_database) == [older]
    code, said = schema_command(application, "check")
    assert code == 1
    assert f"the revisions here come to {older}, this release's to {HEAD}" in said
    assert "run: python -m cqrs_ddd_persistence_sqlalchemy.schema revision" in said
    code, said = follow(application, "-m", "update the library")
    assert (code, "Generating" in said) == (0, True)
    (text,) = [path.read_text() for path in (application / "migrations" / "versions").glob("*update_the_library.py")]
    assert f'schema.upgrade(to="{HEAD}", from_="{older}")' in text
    assert f'schema.downgrade(to="{older}", from_="{HEAD}")' in text
    assert follow(application) == (0, "the revisions come to the newest one already\n")
    assert schema_command(application, "check") == (0, "")
    succeed("upgrade", "head", cwd=application, url=url)
    assert of_library(schema(empty_database)) == of_library(schema(reference))
    succeed("downgrade", "-1", cwd=application, url=url)
    assert library_revision(empty_database) == [older]


def test_the_last_call_says_how_far_the_revisions_come(application):
    """Of several calls in one revision the last one counts, however deep the others stand."""
    first, older = REVISIONS[0], REVISIONS[-3]
    calls = f'if True:\n        schema.upgrade(to="{first}")\n    schema.upgrade(to="{older}", from_="{first}")'
    revision_by_hand(application, calls, f'schema.downgrade(from_="{older}")')
    assert f"the revisions here come to {older}, this release's to {HEAD}" in schema_command(application, "check")[1]


def test_a_database_at_the_end_already_is_left_alone(following, empty_database):
    """Tables that the library's own environment has brought to where a revision ends are taken as they are."""
    url = empty_database.dsn
    alembic("upgrade", "head", url=url)
    before = of_library(schema(empty_database))
    succeed("upgrade", "head", cwd=following, url=url)
    assert of_library(schema(empty_database)) == before


def test_a_database_elsewhere_is_refused(application, empty_database):
    """A revision that begins elsewhere than the database is, is refused with both, and changes nothing."""
    url, first, older = empty_database.dsn, REVISIONS[0], REVISIONS[-3]
    revision_by_hand(application, f'schema.upgrade(to="{first}")', f'schema.downgrade(from_="{first}")')
    succeed("upgrade", "head", cwd=application, url=url)
    revision_by_hand(
        application,
        f'schema.upgrade(to="{HEAD}", from_="{older}")',
        f'schema.downgrade(to="{older}", from_="{HEAD}")',
    )
    before = schema(empty_database)
    message = fail("upgrade", "head", cwd=application, url=url)
    assert f"the library's tables are at {first} ({VERSION_TABLE}), and this revision goes from {older}" in message
    assert schema(empty_database) == before


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ('schema.upgrade(to="cqrs_9999")', "this release of the library has no revision 'cqrs_9999'"),
        (f'schema.upgrade(to="{REVISIONS[0]}", from_="{HEAD}")', "there is nothing between"),
        (f'schema.upgrade(to="{HEAD}", from_="{HEAD}")', "there is nothing between"),
        ('schema.downgrade(from_="base")', "has no revision 'base'"),
    ],
)
def test_calls_that_make_no_sense_are_refused(application, empty_database, call, said):
    """An unknown revision, or two the wrong way round, are refused by name, in scripts too; nothing is made."""
    revision_by_hand(application, call, "pass")
    assert said in fail("upgrade", "head", cwd=application, url=empty_database.dsn)
    assert tables(empty_database) <= {"alembic_version"}
    script = run("upgrade", "head", "--sql", cwd=application, url=empty_database.dsn)
    assert script.returncode != 0
    assert said in script.stdout + script.stderr
    assert "cqrs_" not in script.stdout.partition("FAILED")[0]


def test_a_table_of_the_librarys_name_is_refused(application, empty_database):
    """A table of the application's that has the name of one of the library's is named in one line, and stays."""
    execute(empty_database, "CREATE TABLE jobs (id INTEGER)")
    assert follow(application)[0] == 0
    message = fail("upgrade", "head", cwd=application, url=empty_database.dsn)
    assert "table 'jobs' is in the database already" in message
    assert "The library needs that name for a table of its own: rename yours before" in message
    assert tables(empty_database) <= {"jobs", "alembic_version"}


async def test_the_lock_is_released_under_another_search_path(empty_postgresql):
    """A search path that changes under the lock, as an env.py for tenants may do it, leaves no lock on the session."""
    engine = create_async_engine(empty_postgresql.url, pool_size=1, max_overflow=0)

    def migrate(connection) -> None:
        with library_schema.migration_lock(connection):
            connection.execute(sa.text("CREATE SCHEMA tenant_a"))
            connection.execute(sa.text("SET search_path = tenant_a"))

    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    async with engine.connect() as connection:
        held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
        assert await connection.scalar(sa.text(held)) == 0
    await engine.dispose()


def test_many_at_once_all_succeed(following, empty_database):
    """Six processes upgrade one database at once under the lock that env.py takes: all succeed, one works."""

    def upgrade(_number: int) -> subprocess.CompletedProcess[str]:
        return run("upgrade", "head", cwd=following, url=empty_database.dsn)

    with ThreadPoolExecutor(6) as six:
        done = list(six.map(upgrade, range(6)))
    assert [each.returncode for each in done] == [0] * 6, [each.stderr for each in done if each.returncode]
    assert tables(empty_database) == LIBRARY_TABLES | OWN_TABLES


def test_projections_are_among_the_applications_tables(application, empty_database):
    """Tables of projections are created by the application's own autogenerate, of every type, and stay as they are."""
    url = empty_database.dsn
    (application / "models.py").write_text(MODELS + PROJECTIONS)
    assert follow(application)[0] == 0
    succeed("upgrade", "head", cwd=application, url=url)
    succeed("revision", "--autogenerate", "-m", "tables", cwd=application, url=url)
    succeed("upgrade", "head", cwd=application, url=url)
    assert tables(empty_database) == LIBRARY_TABLES | OWN_TABLES | {EVERYTHING.collection}
    assert succeed("check", cwd=application, url=url) == NO_CHANGES
    succeed("downgrade", "-1", cwd=application, url=url)
    assert EVERYTHING.collection not in tables(empty_database)


def test_a_revision_written_on_one_database_runs_on_the_other(application, databases):
    """What the application's autogenerate writes of a projection on SQLite runs on PostgreSQL, and the other way."""
    (application / "models.py").write_text(MODELS + PROJECTIONS)
    kinds = ["sqlite", "postgresql"]
    for here, there in (kinds, kinds[::-1]):
        with databases.fresh(here, migrated=False) as first, databases.fresh(there, migrated=False) as second:
            succeed("revision", "--autogenerate", "-m", "tables", cwd=application, url=first.dsn)
            succeed("upgrade", "head", cwd=application, url=second.dsn)
            assert succeed("check", cwd=application, url=second.dsn) == NO_CHANGES
        for path in (application / "migrations" / "versions").glob("*.py"):
            path.unlink()


def test_the_librarys_own_environment_needs_no_revision(tmp_path):
    """In an application that runs the library's environment the command says that upgrade head does it."""
    folder = make_application(tmp_path / "application")
    code, said = follow(folder)
    assert code == 2
    assert "this environment is the library's" in said
    assert "run: alembic upgrade head" in said
    assert list((folder / "versions").iterdir()) == []


def test_an_env_that_does_not_look_at_a_schema_says_so(following, empty_database):
    """`-x schema=` is refused where env.py does not pass it on, instead of migrating another schema."""
    message = fail("-x", "schema=tenant_a", "upgrade", "head", cwd=following, url=empty_database.dsn)
    assert "-x schema= is given, and this env.py does not look at it: nothing is migrated" in message
    assert tables(empty_database) <= {"alembic_version"}


def test_an_environment_of_ones_own_can_have_tenants(following, databases):
    """Where env.py passes `-x schema=` on, the tenant's schema gets everything and the default one stays empty."""
    env = following / "migrations" / "env.py"
    tenant = 'context.get_x_argument(as_dictionary=True).get("schema")'
    env.write_text(
        env.read_text().replace("migration_lock(connection)", f"migration_lock(connection, schema={tenant})")
    )
    with databases.fresh("postgresql", migrated=False) as postgresql:
        for name in ("tenant_a", "Tenant_b"):
            succeed("-x", f"schema={name}", "upgrade", "head", cwd=following, url=postgresql.dsn)
            found = column(postgresql, f"SELECT tablename FROM pg_tables WHERE schemaname = '{name}'")
            assert set(found) == LIBRARY_TABLES | OWN_TABLES
            assert succeed("-x", f"schema={name}", "check", cwd=following, url=postgresql.dsn) == NO_CHANGES
        assert tables(postgresql) == set()
