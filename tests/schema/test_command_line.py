"""Alembic's command line in this repository: without set-up, on any database, as scripts, and when things are wrong."""

from __future__ import annotations

import asyncio
import re

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from cqrs_ddd_persistence_sqlalchemy import configure_engine
from cqrs_ddd_persistence_sqlalchemy.core.models import Base
from tests.support.command_line import (
    APPEND,
    DEAD,
    HEAD,
    LIBRARY_TABLES,
    REVISIONS,
    SAVE_POSITION,
    VERSION_TABLE,
    column,
    copy_repository,
    execute,
    fail,
    run,
    run_script,
    schema,
    succeed,
    tables,
)
from tests.support.databases import Database

_WAITING_FOR_A_LOCK = """
    SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
    WHERE d.datname = current_database() AND NOT l.granted
"""


@pytest.fixture
def repository(tmp_path):
    """A copy of the repository as somebody finds it who has just cloned it."""
    return copy_repository(tmp_path)


@pytest.fixture(params=["app.db", "sqlite", "postgresql"])
def place(request, databases, repository):
    """Where a run goes: (DATABASE_URL, database), the first being None for the default."""
    if request.param == "app.db":
        yield None, Database("sqlite", f"sqlite+aiosqlite:///{repository / 'app.db'}")
    else:
        with databases.fresh(request.param, migrated=False) as database:
            yield database.dsn.replace("+aiosqlite", ""), database


def test_everything_works_from_the_root_without_set_up(repository, place):
    """Upgrade, check, current, history and downgrade work on the default database and on any DATABASE_URL."""
    url, database = place
    succeed("upgrade", "head", cwd=repository, url=url)
    migrated = schema(database)
    assert tables(database) == LIBRARY_TABLES
    assert succeed("check", cwd=repository, url=url) == "No new upgrade operations detected.\n"
    assert succeed("current", cwd=repository, url=url) == f"{HEAD} (head)\n"
    history = succeed("history", cwd=repository, url=url).splitlines()
    assert [re.search(r"-> (\w+)", line)[1] for line in reversed(history)] == REVISIONS
    succeed("downgrade", "base", cwd=repository, url=url)
    assert tables(database) == {VERSION_TABLE}
    assert succeed("current", cwd=repository, url=url) == ""
    succeed("upgrade", "head", cwd=repository, url=url)
    assert schema(database) == migrated
    assert (repository / "app.db").exists() == (url is None)


def test_what_needs_no_database_asks_for_none(repository):
    """The heads and a plain revision are had while the server is down."""
    assert succeed("heads", cwd=repository, url=DEAD) == f"{HEAD} (head)\n"
    succeed("revision", "-m", "by hand", cwd=repository, url=DEAD)
    assert len(list((repository / "migrations" / "versions").glob("*_by_hand.py"))) == 1


def test_the_option_wins_over_the_environment_over_the_file(repository):
    """The database is that of -x url=, else DATABASE_URL, else sqlalchemy.url."""
    ini = repository / "alembic.ini"
    ini.write_text(ini.read_text().replace("[alembic]", "[alembic]\nsqlalchemy.url = sqlite:///of_ini.db"))
    option = "sqlite:///of_option.db"
    succeed("-x", f"url={option}", "upgrade", "head", cwd=repository, url="sqlite:///of_environment.db")
    assert [path.name for path in repository.glob("*.db")] == ["of_option.db"]
    succeed("upgrade", "head", cwd=repository, url="sqlite:///of_environment.db")
    assert {path.name for path in repository.glob("*.db")} == {"of_option.db", "of_environment.db"}
    succeed("upgrade", "head", cwd=repository)
    assert {path.name for path in repository.glob("*.db")} == {"of_option.db", "of_environment.db", "of_ini.db"}


def test_a_revision_that_fails_takes_back_its_transaction(repository, empty_database):
    """Going up, what was committed before the failure stays: each revision on PostgreSQL, nothing on SQLite."""
    (repository / "migrations" / "versions" / "fails.py").write_text(
        f"""
from alembic import op

revision, down_revision, branch_labels, depends_on = "fails", {HEAD!r}, None, None


def upgrade():
    op.execute("CREATE TABLE half_done (id INTEGER)")
    raise RuntimeError("the revision fails")
"""
    )
    done = run("upgrade", "head", cwd=repository, url=empty_database.dsn)
    assert done.stderr.splitlines()[-1] == "RuntimeError: the revision fails"
    if empty_database.kind == "sqlite":
        assert tables(empty_database) == set()
    else:
        assert tables(empty_database) == LIBRARY_TABLES
        assert column(empty_database, f"SELECT version_num FROM {VERSION_TABLE}") == [HEAD]


@pytest.mark.parametrize(
    "drift",
    [
        "DROP TABLE projection_positions",
        "ALTER TABLE projection_positions ADD COLUMN extra INTEGER",
        "ALTER TABLE projection_positions RENAME COLUMN position TO place",
        "CREATE INDEX ix_projection_positions_position ON projection_positions (position)",
    ],
)
def test_a_check_finds_what_was_changed_by_hand(repository, database, drift):
    """A table, column or index that is missing or too much is found, and ends in one line."""
    execute(database, drift)
    message = fail("check", cwd=repository, url=database.dsn)
    assert message.startswith("New upgrade operations detected: ")
    assert "projection_positions" in message


@pytest.mark.parametrize(
    "drift",
    [
        "ALTER TABLE events ALTER COLUMN event_type TYPE text",
        "ALTER TABLE events ALTER COLUMN version TYPE integer",
        "ALTER TABLE events ALTER COLUMN correlation_id SET NOT NULL",
        "ALTER TABLE events ALTER COLUMN schema_version SET DEFAULT 2",
        "ALTER TABLE events ALTER COLUMN recorded_at DROP DEFAULT",
        "ALTER TABLE events DROP CONSTRAINT uq_events_event_id",
        "ALTER TABLE events ALTER COLUMN position DROP IDENTITY",
        "ALTER TABLE events ALTER COLUMN payload TYPE json",
    ],
)
def test_a_check_looks_at_types_defaults_and_constraints(repository, postgresql, drift):
    """A column's type, nullability or default, or a constraint, changed by hand is found."""
    execute(postgresql, drift)
    message = fail("check", cwd=repository, url=postgresql.dsn)
    assert message.startswith("New upgrade operations detected: ")


def test_a_script_makes_the_same_schema(repository, empty_database, reference, server):
    """What `upgrade head --sql` prints runs as it is, and makes what `upgrade head` makes; the way back too."""
    url = empty_database.dsn
    run_script(succeed("upgrade", "head", "--sql", cwd=repository, url=url), empty_database, server)
    assert schema(empty_database) == schema(reference)
    assert succeed("current", cwd=repository, url=url) == f"{HEAD} (head)\n"
    assert succeed("check", cwd=repository, url=url) == "No new upgrade operations detected.\n"
    run_script(succeed("downgrade", "head:base", "--sql", cwd=repository, url=url), empty_database, server)
    assert tables(empty_database) <= {VERSION_TABLE}  # which older Alembics drop in scripts that end at the base
    assert succeed("current", cwd=repository, url=url) == ""


def test_a_script_can_begin_where_the_database_is(repository, empty_database, server):
    """A script from one revision to the next continues what a run has begun."""
    succeed("upgrade", REVISIONS[0], cwd=repository, url=empty_database.dsn)
    script = succeed("upgrade", f"{REVISIONS[0]}:head", "--sql", cwd=repository, url=empty_database.dsn)
    run_script(script, empty_database, server)
    assert succeed("current", cwd=repository, url=empty_database.dsn) == f"{HEAD} (head)\n"


def test_a_script_needs_no_database(repository):
    """Scripts are written while the server is down, and without its password in them."""
    script = succeed("upgrade", "head", "--sql", cwd=repository, url=DEAD)
    assert "CREATE TABLE events" in script
    assert "s3cret" not in script


def test_the_applications_version_table_is_left_alone(repository, empty_database):
    """A table alembic_version that was there before keeps its row through upgrade, check, downgrade and upgrade."""
    url = empty_database.dsn
    execute(
        empty_database,
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)",
        "INSERT INTO alembic_version VALUES ('of_the_application')",
    )
    for command in (("upgrade", "head"), ("check",), ("downgrade", "base"), ("upgrade", "head")):
        succeed(*command, cwd=repository, url=url)
        assert column(empty_database, "SELECT version_num FROM alembic_version") == ["of_the_application"]
    assert column(empty_database, f"SELECT version_num FROM {VERSION_TABLE}") == [HEAD]


def test_a_downgrade_that_would_drop_rows_is_refused(repository, database):
    """Nothing at all is changed, even though other revisions of the run had been undone; the option overrules."""
    execute(database, APPEND)
    before = schema(database)
    message = fail("downgrade", "base", cwd=repository, url=database.dsn)
    assert "'events', which has rows in it" in message
    assert "nothing is changed" in message
    assert "-x allow-data-loss=yes" in message
    assert schema(database) == before
    assert column(database, f"SELECT version_num FROM {VERSION_TABLE}") == [HEAD]
    assert column(database, "SELECT event_id FROM events") == ["e-1"]
    succeed("-x", "allow-data-loss=yes", "downgrade", "base", cwd=repository, url=database.dsn)
    assert tables(database) == {VERSION_TABLE}


def test_a_downgrade_past_an_empty_table_needs_no_leave(repository, database):
    """Rows in tables that the downgrade does not touch are no reason to refuse it."""
    execute(database, APPEND)
    succeed("downgrade", REVISIONS[0], cwd=repository, url=database.dsn)
    assert column(database, "SELECT event_id FROM events") == ["e-1"]


async def test_rows_that_appear_while_a_downgrade_looks_are_kept(repository, postgresql):
    """A row that another transaction commits after the look at the table keeps the table from being dropped."""
    writer, observer = await asyncpg.connect(postgresql.dsn), await asyncpg.connect(postgresql.dsn)
    transaction = writer.transaction()
    await transaction.start()
    await writer.execute(SAVE_POSITION)
    command = asyncio.to_thread(run, "downgrade", REVISIONS[0], cwd=repository, url=postgresql.dsn)
    downgrade = asyncio.create_task(command)
    while not await observer.fetchval(_WAITING_FOR_A_LOCK):
        assert not downgrade.done(), (await downgrade).stdout
    await transaction.commit()
    done = await downgrade
    rows = await observer.fetchval("SELECT to_regclass('projection_positions') IS NOT NULL")
    await writer.close()
    await observer.close()
    assert rows, "the table and its row are gone"
    assert done.stdout.startswith("FAILED: this downgrade would drop table 'projection_positions'")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["bogus=1"], r"unknown option -x bogus; known are: .*-x url=.*-x projection=.*-x allow-data-loss="),
        (["url=sqlite:///a.db", "url=sqlite:///b.db"], r"-x url is given twice"),
        (["url"], r"-x url needs a value: -x url=\.\.\."),
        (["url="], r"-x url needs a value: -x url=\.\.\."),
        (["projection=shop:orders"], r"alembic -x projection=package\.module:schema revision -m"),
    ],
)
def test_wrong_options_are_refused(repository, options, said):
    """An -x option that is unknown, repeated, empty or of another command ends in one line that says what to do."""
    arguments = [part for option in options for part in ("-x", option)]
    assert re.search(said, fail(*arguments, "upgrade", "head", cwd=repository))
    assert list(repository.glob("*.db")) == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (DEAD, r"cannot connect to postgresql\+asyncpg://user:\*\*\*@127\.0\.0\.1:1/nowhere: .*DATABASE_URL"),
        ("postgresql://user:s3cret@no.such.host.invalid/db", r"cannot connect to .*no\.such\.host\.invalid.*"),
        ("postgresql://user:s3cret@127.0.0.1:99999/db", r"99999|port"),
        ("postgresql://user:s3cret@127.0.0.1:port/db", r"cannot read the database URL of DATABASE_URL: write it like"),
        ("user:s3cret@127.0.0.1/db", r"cannot read the database URL of DATABASE_URL: write it like"),
        ("mysql://user:s3cret@127.0.0.1/db", r"driver 'mysql': use postgresql or sqlite"),
        ("postgresql+psycopg2://user:s3cret@127.0.0.1/db", r"driver 'postgresql\+psycopg2': use .*postgresql\+asyncpg"),
        ("postgresql://user:s3cret@127.0.0.1/db?sslmode=bogus", r"sslmode"),
        ("postgresql://user:s3cret@127.0.0.1/db?bogus=1", r"bogus"),
        ("sqlite:///no/such/folder/app.db", r"cannot connect to .*no/such/folder/app\.db: unable to open"),
        ("sqlite:////proc/app.db", r"cannot connect to .*/proc/app\.db: unable to open"),
        ("sqlite:///alembic.ini", r"alembic\.ini: file is not a database"),
    ],
)
def test_databases_out_of_reach_end_in_one_line(repository, url, said):
    """A URL that cannot be read or reached ends in one line that says where it was found, without its password."""
    message = fail("upgrade", "head", cwd=repository, url=url)
    assert re.search(said, message)
    assert "s3cret" not in message


def test_a_database_that_does_not_exist_ends_in_one_line(repository, server):
    """A server without the database, or without the user, ends in one line with the server's reason."""
    url = server.url.replace("+asyncpg", "").rpartition("/")[0]
    message = fail("upgrade", "head", cwd=repository, url=f"{url}/no_such_database")
    assert re.search(r"cannot connect to .*/no_such_database: .*database \"no_such_database\" does not exist", message)
    without_user = re.sub(r"//[^@]*@", "//no_such_user:s3cret@", url)
    message = fail("upgrade", "head", cwd=repository, url=f"{without_user}/postgres")
    assert re.search(r"cannot connect to .*no_such_user", message)
    assert "s3cret" not in message


def test_tables_that_create_all_made_are_not_touched(repository, empty_database):
    """A database with tables but no version ends in one line that names the table and the way to adopt it."""

    async def create_all() -> None:
        engine = configure_engine(create_async_engine(empty_database.url))
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        await engine.dispose()

    asyncio.run(create_all())
    before = schema(empty_database)
    message = fail("upgrade", "head", cwd=repository, url=empty_database.dsn)
    assert re.search(r"table 'events' is in the database already.*alembic stamp", message)
    assert [text for text in schema(empty_database) if VERSION_TABLE not in text] == before


def test_a_database_ahead_of_the_code_is_left_alone(repository, database):
    """A revision of a newer release ends in one line that names it and says to install that release."""
    execute(database, f"UPDATE {VERSION_TABLE} SET version_num = 'cqrs_9999'")
    before = schema(database)
    messages = {fail(*command, cwd=repository, url=database.dsn) for command in [("upgrade", "head"), ("current",)]}
    assert schema(database) == before
    assert all("cqrs_9999" in message for message in messages)
    assert all("newer" in message for message in messages), messages


def test_a_folder_without_configuration_is_alembics_own_business(tmp_path):
    """Where there is no alembic.ini, Alembic says so itself."""
    assert "No 'script_location' key found" in fail("upgrade", "head", cwd=tmp_path)
