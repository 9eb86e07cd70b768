"""What is built and installed: everything an application needs, and nothing that is a team's own."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from typing import TYPE_CHECKING
from zipfile import ZipFile

import pytest

from tests.support.command_line import LIBRARY_TABLES, column, tables
from tests.support.databases import ROOT, Database
from tests.support.floors import floors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PACKAGES = ("cqrs_ddd_advanced_core", "cqrs_ddd_persistence_sqlalchemy")
MIGRATIONS = "cqrs_ddd_persistence_sqlalchemy/migrations"
REVISIONS = {path.name for path in (ROOT / "migrations" / "versions").glob("cqrs_*.py")}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HEAD = max(REVISIONS)[: len("cqrs_0000")]
OF_A_TEAM = f'''"""A projection's revision, as a team keeps it that has this repository for its schema package."""

revision = "0123456789ab"
down_revision = "{HEAD}"
branch_labels = None
depends_on = None
projections = ("order_summaries",)


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
'''

OF_THE_NEXT_RELEASE = f'''"""One more column."""

import sqlalchemy as sa
from alembic import op

revision = "cqrs_9999"
down_revision = "{HEAD}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job_schedules", sa.Column("of_the_next_release", sa.Text()))


def downgrade() -> None:
    op.drop_column("job_schedules", "of_the_next_release")
'''

PYPROJECT = """\
[tool.alembic]
script_location = "cqrs_ddd_persistence_sqlalchemy:migrations"
version_locations = ["%(here)s/versions"]
projections = ["read_models"]
"""
MODELS = """\
import sqlalchemy as sa

metadata = sa.MetaData()
sa.Table("customers", metadata, sa.Column("id", sa.Integer(), primary_key=True), sa.Column("name", sa.String(100)))
"""
URL_OF_ENVIRONMENT = """
import os

config.set_main_option("sqlalchemy.url", os.environ["DATABASE_URL"])
"""
VERIFIES = """\
import asyncio
import sys

from cqrs_ddd_persistence_sqlalchemy import schema
from cqrs_ddd_persistence_sqlalchemy.exceptions import SchemaOutOfDateError
from read_models import balances
from sqlalchemy.ext.asyncio import create_async_engine


async def main(url):
    engine = create_async_engine(url)
    try:
        await schema.verify(engine, schemas=[balances])
        print("fine")
    except SchemaOutOfDateError as error:
        print(error)
    await engine.dispose()


asyncio.run(main(sys.argv[1]))
"""

INI = """\
[alembic]
script_location = cqrs_ddd_persistence_sqlalchemy:migrations
version_locations = %(here)s/versions
path_separator = newline
prepend_sys_path = .
revision_environment = true
"""
READ_MODELS = """\
from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema

balances = ProjectionSchema(
    collection="balances",
    fields=[
        ("account_id", "VARCHAR(50) PRIMARY KEY"),
        ("total", "DECIMAL(12, 2) NOT NULL DEFAULT 0"),
        ("_last_event_position", "BIGINT"),
    ],
)
"""
PROGRAM = """\
import asyncio
import sys
from decimal import Decimal

from cqrs_ddd_advanced_core import StoredEvent
from cqrs_ddd_persistence_sqlalchemy import (
    SQLAlchemyEventStore, SQLAlchemyUnitOfWork, configure_engine, schema
)
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionPositionStore, SQLAlchemyProjectionStore
from read_models import balances
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine


async def main(url):
    engine = configure_engine(create_async_engine(url))
    await schema.verify(engine, schemas=[balances])
    sessions = async_sessionmaker(engine)
    events, views = SQLAlchemyEventStore(sessions), SQLAlchemyProjectionStore(sessions, schemas=[balances])
    positions = SQLAlchemyProjectionPositionStore(sessions)
    paid = [StoredEvent(aggregate_id="a-1", event_type="Paid", payload={"amount": amount}) for amount in ("1.50", "2")]
    await events.append(paid, expected_version=0)
    async with SQLAlchemyUnitOfWork(sessions) as uow:
        total = Decimal(0)
        for event in await events.get_events_after(0, limit=500, uow=uow):
            total += Decimal(event.payload["amount"])
            await views.upsert("balances", event.aggregate_id, {"total": total}, event_position=event.position, uow=uow)
            await positions.save_position("balances", event.position, uow=uow)
    print(await views.find_one("balances", "a-1"), await positions.get_position("balances"))
    await engine.dispose()


asyncio.run(main(sys.argv[1]))
"""


def command(*arguments: object, cwd: Path, url: str | None = None, release: Path | None = None) -> str:
    """Run a program as a user of the installed package would, make sure that it succeeds, return what it prints.

    With a release, a folder, that one's packages are used in place of the installed ones.
    """
    ours = {"DATABASE_URL", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV"}  # as compiling again takes seconds
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    if url is not None:
        environment["DATABASE_URL"] = url
    if release is not None:
        environment["PYTHONPATH"] = str(release)
    done = subprocess.run(
        list(map(str, arguments)), cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, f"{arguments}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Makes a folder that all processes of this run share, the first one that asks for it; returns its path."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make(name: str, fill: Callable[[Path], None]) -> Path:
        folder, whole = base / f"package_{name}", base / f"package_{name}.whole"
        with (base / f"package_{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not whole.exists():
                shutil.rmtree(folder, ignore_errors=True)  # what one has left that failed
                folder.mkdir()
                fill(folder)
                whole.touch()
        return folder

    return make


@pytest.fixture(scope="module")
def source(made_once) -> Path:
    """A copy of what is in version control or about to be, with a team's revision among the library's."""
    return made_once("source", copy_source)


def copy_source(folder: Path) -> None:
    """Fill the folder for the fixture."""
    list_files = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(list_files, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        for name in filter(None, listed.stdout.split("\0")):
            if os.path.lexists(ROOT / name):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    else:  # an unpacked sdist
        ignored = shutil.ignore_patterns(".*", "__pycache__", "dist", "build")
        shutil.copytree(ROOT, folder, symlinks=True, dirs_exist_ok=True, ignore=ignored)
    (folder / "migrations" / "versions" / "0123456789ab_create_order_summaries.py").write_text(OF_A_TEAM)


@pytest.fixture(scope="module")
def built(source, made_once) -> Path:
    """The folder with the sdist and the wheel that was built from it, as `python -m build` does by itself."""

    def build(folder: Path) -> None:
        command(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, cwd=source)

    return made_once("built", build)


@pytest.fixture(scope="module")
def wheel(built) -> Path:
    """The wheel."""
    (path,) = built.glob("*.whl")
    return path


def contents(wheel: Path) -> dict[str, int]:
    """Return the checksum of each file in the wheel but the list of them."""
    with ZipFile(wheel) as archive:
        return {info.filename: info.CRC for info in archive.infolist() if not info.filename.endswith("RECORD")}


def test_the_wheel_holds_the_migrations_of_the_library_alone(wheel):
    """env.py, the template and every cqrs_* revision are inside the package, a team's revisions are not."""
    files = {name for name in contents(wheel) if name.startswith(MIGRATIONS)}
    revisions = {f"{MIGRATIONS}/versions/{name}" for name in REVISIONS}
    assert files == revisions | {f"{MIGRATIONS}/env.py", f"{MIGRATIONS}/script.py.mako"}


def test_the_wheel_holds_every_module_and_no_more(wheel, source):
    """Both packages are whole and marked as typed, the licence comes with them, and nothing else does."""
    files = set(contents(wheel))
    modules = {
        str(path.relative_to(source / "src"))
        for name in PACKAGES
        for path in (source / "src" / name).rglob("*.py")
        if "migrations" not in path.parts
    }
    typed = {f"{name}/py.typed" for name in PACKAGES}
    assert modules | typed <= files
    others = {name for name in files - modules - typed if not name.startswith(MIGRATIONS)}
    assert {re.sub(r"^[^/]*\.dist-info/", "", name) for name in others} == {"METADATA", "WHEEL", "licenses/LICENSE"}


def test_the_tree_and_the_sdist_make_the_same_wheel(wheel, source, tmp_path):
    """A wheel built from the tree at once has the contents of the one that was built from the sdist."""
    command(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, cwd=source)
    (direct,) = tmp_path.glob("*.whl")
    assert contents(direct) == contents(wheel)


def test_the_sdist_can_be_tested(built):
    """The sdist holds the sources, the migrations, their configuration and the tests."""
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"pyproject.toml", "README.md", "LICENSE", "alembic.ini", "Makefile", "migrations/env.py"}
    wanted |= {"src/cqrs_ddd_advanced_core/py.typed", "tests/conftest.py", "tests/support/postgres.py"}
    assert wanted <= names


@pytest.fixture(scope="module")
def installed(wheel, made_once) -> Path:
    """The programs of a virtual environment that was empty before the wheel was installed from its file."""

    def install(folder: Path) -> None:
        command(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", folder / "venv" / "bin/python"]
        command(*pip, "install", "--quiet", "--no-compile", wheel, cwd=folder)

    return made_once("installed", install) / "venv" / "bin"


def test_an_application_needs_the_wheel_alone(installed, empty_database, tmp_path):
    """In an empty folder, with commands only: a revision, the migrations, and a program that appends and projects."""
    url = empty_database.dsn.replace("+aiosqlite", "")
    alembic = installed / "alembic"
    (tmp_path / "alembic.ini").write_text(INI)
    (tmp_path / "read_models.py").write_text(READ_MODELS)
    (tmp_path / "program.py").write_text(PROGRAM)
    packaged = next(installed.parent.rglob(MIGRATIONS)) / "versions"
    command(alembic, "-x", "projection=read_models:balances", "revision", "-m", "create balances", cwd=tmp_path)
    command(alembic, "upgrade", "head", cwd=tmp_path, url=url)
    assert command(alembic, "check", cwd=tmp_path, url=url) == "No new upgrade operations detected.\n"
    assert tables(empty_database) == LIBRARY_TABLES | {"alembic_version", "balances"}
    said = command(installed / "python", "program.py", empty_database.url, cwd=tmp_path)
    assert said == "{'account_id': 'a-1', 'total': Decimal('3.50'), '_last_event_position': 2} 2\n"
    assert [path.name.partition("_")[2] for path in (tmp_path / "versions").glob("*.py")] == ["create_balances.py"]
    assert {path.name for path in packaged.glob("*.py")} == REVISIONS


def test_the_embedded_default_needs_no_url(installed, tmp_path):
    """Without any URL the database is app.db in the current folder, where the application finds it."""
    (tmp_path / "alembic.ini").write_text(INI)
    command(installed / "alembic", "upgrade", "head", cwd=tmp_path)
    assert "events" in tables(Database("sqlite", f"sqlite+aiosqlite:///{tmp_path / 'app.db'}"))


@pytest.fixture(scope="module")
def next_release(installed, made_once) -> Path:
    """The packages of a release with one more revision."""

    def copy(folder: Path) -> None:
        site_packages = next(installed.parent.rglob(MIGRATIONS)).parents[1]
        for name in PACKAGES:
            shutil.copytree(site_packages / name, folder / name)
        (folder / MIGRATIONS / "versions" / "cqrs_9999_one_more.py").write_text(OF_THE_NEXT_RELEASE)

    return made_once("next", copy)


def library_revision(database: Database) -> str:
    """Return where the library's tables are."""
    return column(database, "SELECT version_num FROM cqrs_ddd_alembic_version")[0]


def test_an_update_needs_nothing_but_an_upgrade(installed, next_release, empty_database, tmp_path):
    """In an application without an environment of its own, the next release's revision comes with `upgrade head`."""
    url, alembic = empty_database.dsn, installed / "alembic"
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "read_models.py").write_text(READ_MODELS)
    (tmp_path / "verifies.py").write_text(VERIFIES)
    command(alembic, "upgrade", "head", cwd=tmp_path, url=url)
    command(alembic, "revision", "--autogenerate", "-m", "create balances", cwd=tmp_path, url=url)
    command(alembic, "upgrade", "head", cwd=tmp_path, url=url)
    python = installed / "python"
    assert command(python, "verifies.py", empty_database.url, cwd=tmp_path) == "fine\n"
    said = command(python, "verifies.py", empty_database.url, cwd=tmp_path, release=next_release)
    assert f"it is at {HEAD} and cqrs_9999 is missing; run: alembic upgrade head" in said
    command(alembic, "upgrade", "head", cwd=tmp_path, url=url, release=next_release)
    assert library_revision(empty_database) == "cqrs_9999"
    assert command(python, "verifies.py", empty_database.url, cwd=tmp_path, release=next_release) == "fine\n"
    assert command(python, "verifies.py", empty_database.url, cwd=tmp_path) == "fine\n", "the old release goes on"
    assert command(alembic, "check", cwd=tmp_path, url=url, release=next_release).startswith("No new upgrade")
    assert len(list((tmp_path / "versions").glob("*.py"))) == 1


def test_an_update_is_one_revision_of_an_environments_own(installed, next_release, empty_database, tmp_path):
    """In an application with an environment and tables of its own, verify says which command writes the revision."""
    url, alembic, python = empty_database.url, installed / "alembic", installed / "python"
    follow = (python, "-m", "cqrs_ddd_persistence_sqlalchemy.schema", "revision")
    command(alembic, "init", "-t", "async", "migrations", cwd=tmp_path)
    env = (tmp_path / "migrations" / "env.py").read_text()
    options = "target_metadata=target_metadata"
    assert env.count(options) == 2
    env = env.replace(options, f"{options}, include_name=schema.include_name")
    env = env.replace("target_metadata = None", "target_metadata = metadata\n" + URL_OF_ENVIRONMENT)
    imports = "from cqrs_ddd_persistence_sqlalchemy import schema\nfrom models import metadata\n"
    (tmp_path / "migrations" / "env.py").write_text(
        env.replace("from alembic import context\n", f"from alembic import context\n{imports}")
    )
    (tmp_path / "models.py").write_text(MODELS)
    (tmp_path / "verifies.py").write_text(
        VERIFIES.replace("schemas=[balances]", "").replace("from read_models import balances\n", "")
    )
    command(*follow, cwd=tmp_path)
    command(alembic, "upgrade", "head", cwd=tmp_path, url=url)
    command(alembic, "revision", "--autogenerate", "-m", "customers", cwd=tmp_path, url=url)
    command(alembic, "upgrade", "head", cwd=tmp_path, url=url)
    assert tables(empty_database) == LIBRARY_TABLES | {"alembic_version", "customers"}
    said = command(python, "verifies.py", empty_database.url, cwd=tmp_path, release=next_release)
    assert "first writes its revision: python -m cqrs_ddd_persistence_sqlalchemy.schema revision" in said
    command(*follow, cwd=tmp_path, release=next_release)
    command(alembic, "upgrade", "head", cwd=tmp_path, url=url, release=next_release)
    assert library_revision(empty_database) == "cqrs_9999"
    assert command(python, "verifies.py", empty_database.url, cwd=tmp_path, release=next_release) == "fine\n"
    assert command(alembic, "check", cwd=tmp_path, url=url, release=next_release).startswith("No new upgrade")
    assert len(command(alembic, "heads", cwd=tmp_path, url=url).splitlines()) == 1


def test_the_floors_pin_every_dependency():
    """What `make test-floor` constrains is one exact version for each dependency of an application."""
    names = [re.match(r"[\w-]+", each)[0] for each in PROJECT["dependencies"]]
    assert [each.partition("==")[0] for each in floors()] == [*names, "croniter"]
    assert all(re.fullmatch(r"[\w-]+==\d+(\.\d+)*", each) for each in floors())
