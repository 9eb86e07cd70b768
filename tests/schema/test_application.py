"""An application's own revisions: in its own folder and version table, after the library's, under one command."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from tests.support.command_line import (
    APPEND,
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
    write_ini,
)
from tests.support.databases import ROOT, Database

if TYPE_CHECKING:
    from pathlib import Path

READ_MODELS = """
from cqrs_ddd_advanced_core.projections import ProjectionSchema

orders = ProjectionSchema("order_summaries", [("id", "UUID PRIMARY KEY"), ("total", "DECIMAL(10, 2) NOT NULL")])
fields = [("id", "TEXT PRIMARY KEY"), ("name", "TEXT DEFAULT 'it''s 50%: x'")]
customers = ProjectionSchema("customers", fields, indexes=["name"])
"""


@pytest.fixture
def application(tmp_path):
    """A folder with the configuration and the read models of an application that has no revisions yet."""
    write_ini(tmp_path)
    (tmp_path / "read_models.py").write_text(READ_MODELS)
    (tmp_path / "versions").mkdir()
    return tmp_path


@pytest.fixture
def with_revisions(application):
    """The application with a revision for each of its projections."""
    for name in ("orders", "customers"):
        succeed("-x", f"projection=read_models:{name}", "revision", "-m", f"create {name}", cwd=application)
    return application


def revision_files(folder: Path) -> list[str]:
    """Return the slugs of the application's revisions."""
    return sorted(path.stem.split("_", 1)[1] for path in (folder / "versions").glob("*.py"))


def versions(database: Database) -> tuple[list[str], int]:
    """Return the library's revisions in the database, and how many the application has there."""
    return (
        column(database, f"SELECT version_num FROM {VERSION_TABLE}"),
        len(column(database, "SELECT version_num FROM alembic_version")),
    )


def test_without_revisions_the_librarys_tables_are_made(application, empty_database, reference):
    """`upgrade head` with an empty folder installs the library's chain and nothing else."""
    succeed("upgrade", "head", cwd=application, url=empty_database.dsn)
    assert [
        text for text in schema(empty_database) if "alembic_version" not in text.replace(VERSION_TABLE, "")
    ] == schema(reference)
    assert column(empty_database, f"SELECT version_num FROM {VERSION_TABLE}") == [HEAD]


def test_one_command_runs_both_chains(with_revisions, empty_database):
    """`upgrade head` runs the library's revisions before the application's, and records each in its own table."""
    done = run("upgrade", "head", cwd=with_revisions, url=empty_database.dsn)
    assert done.returncode == 0, done.stderr
    ran = re.findall(r"Running upgrade \w* -> \w+, (.+)", done.stderr)
    assert len(ran) == len(REVISIONS) + 2
    assert ran[-2:] == ["create orders.", "create customers."]
    assert tables(empty_database) == LIBRARY_TABLES | {"alembic_version", "order_summaries", "customers"}
    assert versions(empty_database) == ([HEAD], 1)
    assert Counter(run("upgrade", "head", cwd=with_revisions, url=empty_database.dsn).stderr.split())["Running"] == 0


def test_the_application_sees_its_own_chain(with_revisions, empty_database):
    """`heads`, `history`, `current` and `check` are about the application's revisions, of which one is the head."""
    url = empty_database.dsn
    (head,) = re.findall(r"^(\w+) \(head\)$", succeed("heads", cwd=with_revisions, url=url), re.MULTILINE)
    assert succeed("current", cwd=with_revisions, url=url) == ""
    succeed("upgrade", "head", cwd=with_revisions, url=url)
    assert succeed("current", cwd=with_revisions, url=url) == f"{head} (head)\n"
    history = succeed("history", cwd=with_revisions, url=url).splitlines()
    assert [line.rpartition(", ")[2] for line in history] == ["create customers.", "create orders."]
    assert succeed("check", cwd=with_revisions, url=url) == "No new upgrade operations detected.\n"


def test_a_check_wants_the_library_up_to_date(with_revisions, empty_database):
    """`check` on a database behind the library ends in one line with the command to run."""
    message = fail("check", cwd=with_revisions, url=empty_database.dsn)
    assert re.search(r"the database is behind the library: .*cqrs_0001 is missing; run: alembic upgrade head", message)
    assert tables(empty_database) <= {"alembic_version"}


async def test_a_check_joins_the_callers_transaction(application, engine):
    """`check` on a connection in a transaction of the caller's leaves it open, with what it has written."""
    config = Config(application / "alembic.ini")

    def check(connection: sa.Connection) -> None:
        config.attributes["connection"] = connection
        command.check(config)

    async with engine.connect() as connection:
        transaction = await connection.begin()
        await connection.execute(sa.text(SAVE_POSITION))
        await connection.run_sync(check)
        assert transaction.is_active
        assert await connection.scalar(sa.text("SELECT position FROM projection_positions")) == 7
        await transaction.rollback()


def test_a_check_leaves_other_tables_alone(with_revisions, empty_database):
    """Tables that no revision made, the application's business, are no difference to `check`."""
    succeed("upgrade", "head", cwd=with_revisions, url=empty_database.dsn)
    execute(empty_database, "CREATE TABLE by_hand (id INTEGER)")
    assert succeed("check", cwd=with_revisions, url=empty_database.dsn) == "No new upgrade operations detected.\n"


def test_going_down_leaves_the_library_alone(with_revisions, empty_database):
    """`downgrade base` drops the application's tables only, with events in the store all the same."""
    url = empty_database.dsn
    succeed("upgrade", "head", cwd=with_revisions, url=url)
    before = schema(empty_database)
    execute(empty_database, APPEND)
    succeed("downgrade", "base", cwd=with_revisions, url=url)
    assert tables(empty_database) == LIBRARY_TABLES | {"alembic_version"}
    assert versions(empty_database) == ([HEAD], 0)
    assert column(empty_database, "SELECT event_id FROM events") == ["e-1"]
    succeed("upgrade", "head", cwd=with_revisions, url=url)
    assert schema(empty_database) == before


def test_going_down_keeps_rows(with_revisions, empty_database):
    """A projection with rows is not dropped unasked, nor is the empty one whose revision was undone before."""
    url = empty_database.dsn
    succeed("upgrade", "head", cwd=with_revisions, url=url)
    execute(
        empty_database,
        "INSERT INTO order_summaries (id, total) VALUES ('3f2504e0-4f89-41d3-9a0c-0305e82c3301', 9.5)",
    )
    before = schema(empty_database)
    message = fail("downgrade", "base", cwd=with_revisions, url=url)
    assert "'order_summaries', which has rows in it" in message
    assert schema(empty_database) == before
    assert versions(empty_database) == ([HEAD], 1)
    succeed("-x", "allow-data-loss=yes", "downgrade", "base", cwd=with_revisions, url=url)
    assert tables(empty_database) == LIBRARY_TABLES | {"alembic_version"}


def test_revisions_land_in_the_applications_folder(application):
    """Revisions by hand and of projections follow each other there, and nothing is written beside the library's."""
    installed = sorted((ROOT / "migrations" / "versions").glob("*.py"))
    succeed("revision", "-m", "by hand", cwd=application)
    succeed("-x", "projection=read_models:orders", "revision", "-m", "create orders", cwd=application)
    assert revision_files(application) == ["by_hand", "create_orders"]
    assert len(succeed("heads", cwd=application).splitlines()) == 1
    assert sorted((ROOT / "migrations" / "versions").glob("*.py")) == installed


def test_a_folder_that_is_not_there_yet_is_made(application):
    """The first revision makes the folder that version_locations names; `upgrade head` before it does without."""
    (application / "versions").rmdir()
    succeed("upgrade", "head", cwd=application)
    succeed("revision", "-m", "by hand", cwd=application)
    assert revision_files(application) == ["by_hand"]


@pytest.mark.parametrize("options", [(), ("-x", "projection=read_models:orders"), ("--autogenerate",)])
def test_nothing_is_written_into_the_package(application, options):
    """Without version_locations a revision is refused, where it would have landed in site-packages."""
    installed = sorted((ROOT / "migrations" / "versions").glob("*.py"))
    write_ini(application, version_locations=None)
    succeed("upgrade", "head", cwd=application)
    before = [option for option in options if option != "--autogenerate"]
    after = [option for option in options if option == "--autogenerate"]
    message = fail(*before, "revision", *after, "-m", "x", cwd=application)
    assert re.search(r"would land in the installed package: set version_locations to a folder", message)
    assert sorted((ROOT / "migrations" / "versions").glob("*.py")) == installed


@pytest.mark.parametrize("command", [("upgrade", "head"), ("heads",), ("current",), ("revision", "-m", "x")])
def test_both_folders_are_one_too_many(application, command):
    """version_locations that lists the library's folder beside the application's is refused, by commands that ask."""
    both = "\n    %(here)s/versions\n    cqrs_ddd_persistence_sqlalchemy:migrations/versions"
    write_ini(application, version_locations=both)
    if command == ("heads",):
        return
    message = fail(*command, cwd=application)
    assert re.search(
        r"version_locations names the library's revisions beside your own.*name your own folder only", message
    )
    assert revision_files(application) == []


def test_a_script_holds_both_chains(with_revisions, empty_database, reference, server):
    """What `upgrade head --sql` prints makes in one go what `upgrade head` makes."""
    succeed("upgrade", "head", cwd=with_revisions, url=reference.dsn)
    script = succeed("upgrade", "head", "--sql", cwd=with_revisions, url=empty_database.dsn)
    run_script(script, empty_database, server)
    assert schema(empty_database) == schema(reference)
    assert versions(empty_database) == ([HEAD], 1)
    assert succeed("check", cwd=with_revisions, url=empty_database.dsn) == "No new upgrade operations detected.\n"


def test_a_script_that_goes_on_holds_the_applications_chain(with_revisions, empty_database, server):
    """A script from a revision of the application's to its head says that the library's chain is not in it."""
    succeed("upgrade", "+1", cwd=with_revisions, url=empty_database.dsn)
    (current,) = column(empty_database, "SELECT version_num FROM alembic_version")
    done = run("upgrade", f"{current}:head", "--sql", cwd=with_revisions, url=empty_database.dsn)
    assert done.returncode == 0, done.stderr
    assert "library's chain is taken to be at its head" in done.stderr
    run_script(done.stdout, empty_database, server)
    assert "customers" in tables(empty_database)


def test_a_script_goes_down_too(with_revisions, empty_database, server):
    """What `downgrade head:base --sql` prints drops the application's tables only."""
    url = empty_database.dsn
    succeed("upgrade", "head", cwd=with_revisions, url=url)
    run_script(succeed("downgrade", "head:base", "--sql", cwd=with_revisions, url=url), empty_database, server)
    assert tables(empty_database) - {"alembic_version"} == LIBRARY_TABLES


def test_a_failure_in_the_application_leaves_its_chain_where_it_was(application, empty_database):
    """A revision of the application's that fails is not recorded, and the next run begins with it."""
    succeed("revision", "-m", "by hand", cwd=application)
    (path,) = (application / "versions").glob("*.py")
    good = path.read_text()
    path.write_text(
        good.replace("    pass", "    op.execute('CREATE TABLE t (id INTEGER)')\n    raise SystemExit(3)", 1)
    )
    assert run("upgrade", "head", cwd=application, url=empty_database.dsn).returncode == 3
    assert "t" not in tables(empty_database)
    path.write_text(good)
    succeed("upgrade", "head", cwd=application, url=empty_database.dsn)
    assert versions(empty_database) == ([HEAD], 1)


def test_a_table_of_the_library_is_not_the_applications(application):
    """A collection with the name of a table of the library is refused here as well."""
    (application / "read_models.py").write_text(READ_MODELS.replace("order_summaries", "events"))
    message = fail("-x", "projection=read_models:orders", "revision", "-m", "x", cwd=application)
    assert "collection 'events' has the name of a table of the library" in message
    assert revision_files(application) == []


def test_pyproject_does_instead_of_an_ini(application, empty_database):
    """The same settings under [tool.alembic] of pyproject.toml, with no alembic.ini, do the same."""
    (application / "alembic.ini").unlink()
    (application / "pyproject.toml").write_text(
        """
[tool.alembic]
script_location = "cqrs_ddd_persistence_sqlalchemy:migrations"
version_locations = ["%(here)s/versions"]
prepend_sys_path = ["."]
revision_environment = true
"""
    )
    succeed("-x", "projection=read_models:orders", "revision", "-m", "create orders", cwd=application)
    assert revision_files(application) == ["create_orders"]
    succeed("upgrade", "head", cwd=application, url=empty_database.dsn)
    assert tables(empty_database) == LIBRARY_TABLES | {"alembic_version", "order_summaries"}
    assert succeed("check", cwd=application, url=empty_database.dsn) == "No new upgrade operations detected.\n"


THREE_LINES = {
    "pyproject.toml": """
[tool.alembic]
script_location = "cqrs_ddd_persistence_sqlalchemy:migrations"
version_locations = ["%(here)s/versions"]
projections = ["read_models"]
""",
    "alembic.ini": """
[alembic]
script_location = cqrs_ddd_persistence_sqlalchemy:migrations
version_locations = %(here)s/versions
projections = read_models
""",
}


@pytest.mark.parametrize("name", THREE_LINES)
def test_three_lines_are_enough(application, empty_database, name):
    """With three settings and no more every command does what its name says for the application's projections."""
    url = empty_database.dsn
    (application / "alembic.ini").unlink()
    (application / name).write_text(THREE_LINES[name])
    succeed("upgrade", "head", cwd=application, url=url)
    succeed("revision", "--autogenerate", "-m", "create both", cwd=application, url=url)
    succeed("upgrade", "head", cwd=application, url=url)
    assert tables(empty_database) == LIBRARY_TABLES | {"alembic_version", "order_summaries", "customers"}
    assert succeed("check", cwd=application, url=url) == "No new upgrade operations detected.\n"
    assert succeed("history", cwd=application, url=url).endswith("create both.\n")
    assert "(head)" in succeed("current", cwd=application, url=url)
    succeed("revision", "-m", "by hand", cwd=application, url=url)
    succeed("upgrade", "head", cwd=application, url=url)
    done = run("-x", "projection=read_models:orders", "revision", "-m", "x", cwd=application, url=url)
    assert (done.returncode, len(revision_files(application))) == (255, 2)
    assert "set revision_environment = true in alembic.ini, or in [tool.alembic] of pyproject.toml" in done.stderr
    succeed("downgrade", "base", cwd=application, url=url)
    assert tables(empty_database) == LIBRARY_TABLES | {"alembic_version"}


def test_the_url_of_the_ini_may_hold_percent_signs(application):
    """A percent sign doubled in sqlalchemy.url, as ini files want it, is one percent sign."""
    write_ini(application, **{"sqlalchemy.url": "sqlite:///100%%.db"})
    succeed("upgrade", "head", cwd=application)
    assert [path.name for path in application.glob("*.db")] == ["100%.db"]


def test_a_repository_as_schema_package_moves_to_an_application(empty_database, tmp_path):
    """An application's chain goes on where this repository's own command has brought the library's."""
    (tmp_path / "repository").mkdir()
    (tmp_path / "application" / "versions").mkdir(parents=True)
    repository = copy_repository(tmp_path / "repository")
    succeed("upgrade", "head", cwd=repository, url=empty_database.dsn)
    write_ini(tmp_path / "application")
    done = run("upgrade", "head", cwd=tmp_path / "application", url=empty_database.dsn)
    assert (done.returncode, re.findall("Running upgrade", done.stderr)) == (0, [])
    assert column(empty_database, f"SELECT version_num FROM {VERSION_TABLE}") == [HEAD]
