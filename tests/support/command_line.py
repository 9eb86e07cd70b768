"""Alembic's command line as a user runs it, and a look at what it did to a database."""

from __future__ import annotations

import asyncio
import re
import shutil
import sqlite3
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import asyncpg

import cqrs_ddd_persistence_sqlalchemy.advanced.models  # noqa: F401  (registers its tables with Base.metadata)
from cqrs_ddd_persistence_sqlalchemy.core.models import Base
from tests.support.databases import ROOT, Database
from tests.support.processes import environment, run_command

if TYPE_CHECKING:
    from pathlib import Path

    from cqrs_ddd_advanced_core.projections import ProjectionSchema

VERSION_TABLE = "cqrs_ddd_alembic_version"
REVISIONS = sorted(path.stem[:9] for path in (ROOT / "migrations" / "versions").glob("cqrs_*.py"))
HEAD = REVISIONS[-1]
LIBRARY_TABLES = frozenset(Base.metadata.tables) | {VERSION_TABLE}
DEAD = "postgresql://user:s3cret@127.0.0.1:1/nowhere"
APPEND = (
    "INSERT INTO events (event_id, aggregate_id, aggregate_type, event_type, version, payload, metadata, occurred_at) "
    "VALUES ('e-1', 'order-1', 'Order', 'Placed', 1, '{}', '{}', '2024-05-17 10:00:00+00')"
)
SAVE_POSITION = "INSERT INTO projection_positions (projection_name, position) VALUES ('orders', 7)"

SETTINGS = {
    "script_location": "cqrs_ddd_persistence_sqlalchemy:migrations",
    "version_locations": "%(here)s/versions",
    "path_separator": "newline",
    "prepend_sys_path": ".",
    "revision_environment": "true",
}
LOGGING = (ROOT / "alembic.ini").read_text().partition("[loggers]")

# Everything in the database by the server's own account of it.
_CATALOGUE = """
    SELECT concat_ws(' ', c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                     a.attidentity, pg_get_expr(d.adbin, d.adrelid))
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid AND c.relkind = 'r' AND a.attnum > 0
    JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'public'
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum WHERE NOT a.attisdropped
    UNION ALL SELECT concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(oid))
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
"""


def run(
    *arguments: str, cwd: Path, url: str | None = None, module: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run alembic as its script does, without the current folder on the module path; or `python -m module`."""
    return run_command(*arguments, cwd=cwd, environment=environment(url), module=module)


def succeed(*arguments: str, cwd: Path, url: str | None = None) -> str:
    """Run alembic, and return what it printed."""
    done = run(*arguments, cwd=cwd, url=url)
    assert done.returncode == 0, f"alembic {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def fail(*arguments: str, cwd: Path, url: str | None = None) -> str:
    """Run alembic, make sure that it ends in one line, and return that.

    Alembic itself prints the line on standard output, not on standard error.
    """
    done = run(*arguments, cwd=cwd, url=url)
    said = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("INFO  [alembic")]
    assert done.returncode != 0, said
    assert len(said) == 1, "\n".join(said)
    assert said[0].startswith("FAILED: ")
    return said[0].removeprefix("FAILED: ")


def copy_repository(folder: Path) -> Path:
    """Copy what alembic reads of this repository, so that app.db and new revisions do not land in it."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src", folder / "src", symlinks=True, ignore=ignored)
    shutil.copytree(ROOT / "migrations", folder / "migrations", ignore=ignored)
    for name in ("alembic.ini", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    for revision in (folder / "migrations" / "versions").iterdir():
        if not revision.name.startswith("cqrs_"):
            revision.unlink()
    return folder


def execute(database: Database, *statements: str) -> None:
    """Run statements on the database, each committed."""
    if database.kind == "sqlite":
        with closing(sqlite3.connect(database.path, isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)
        return

    async def run_all() -> None:
        connection = await asyncpg.connect(database.dsn)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run_all())


def column(database: Database, query: str) -> list:
    """Return the first column of the query's rows."""
    if database.kind == "sqlite":
        with closing(sqlite3.connect(database.path)) as connection:
            return [row[0] for row in connection.execute(query)]

    async def fetch() -> list:
        connection = await asyncpg.connect(database.dsn)
        try:
            return [row[0] for row in await connection.fetch(query)]
        finally:
            await connection.close()

    return asyncio.run(fetch())


def tables(database: Database) -> set[str]:
    """Return the names of the database's tables."""
    if database.kind == "sqlite":
        names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
    else:
        names = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    return set(column(database, names))


def schema(database: Database) -> list[str]:
    """Return everything that the database says of its schema, white space aside."""
    texts = column(database, "SELECT sql FROM sqlite_master" if database.kind == "sqlite" else _CATALOGUE)
    return sorted(" ".join(text.split()) for text in texts if text)


def run_script(script: str, database: Database, server) -> None:
    """Feed a script to the database's own client, which stops at the first error."""
    if database.kind == "sqlite":
        with closing(sqlite3.connect(database.path)) as connection:
            connection.executescript(script)
        return
    psql = server.tool("psql")
    assert psql is not None, "these tests need psql"
    command = [psql, "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", database.dsn]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def write_ini(folder: Path, **settings: str | None) -> None:
    """Write the application's alembic.ini; None leaves a setting out."""
    lines = [f"{name} = {value}" for name, value in (SETTINGS | settings).items() if value is not None]
    (folder / "alembic.ini").write_text("\n".join(["[alembic]", *lines, "", *LOGGING[1:]]))


def make_application(folder: Path, *schemas: ProjectionSchema, **settings: str | None) -> Path:
    """Make an application whose module read_models registers the schemas, without revisions yet."""
    folder.mkdir(exist_ok=True)
    write_ini(folder, projections="read_models", **settings)
    (folder / "versions").mkdir()
    declare(folder, *schemas)
    return folder


def declare(application: Path, *schemas: ProjectionSchema) -> None:
    """Write the module that registers the schemas."""
    lines = [f"{each.collection} = ProjectionSchema.from_dict({each.to_dict()!r})" for each in schemas]
    text = "\n".join(["from cqrs_ddd_advanced_core.projections import ProjectionSchema", *lines, ""])
    (application / "read_models.py").write_text(text)


def generate(application: Path, database: Database, message: str, *schemas: ProjectionSchema) -> list[Path]:
    """Register the schemas, let Alembic write the revisions, and return the new files in their order."""
    declare(application, *schemas)
    before = set((application / "versions").glob("*.py"))
    succeed("revision", "--autogenerate", "-m", message, cwd=application, url=database.url)
    return in_order([path for path in (application / "versions").glob("*.py") if path not in before])


def in_order(revisions: list[Path]) -> list[Path]:
    """Sort files of revisions, each after the one that it revises."""
    texts = {path: path.read_text() for path in revisions}
    by_parent = {re.search(r"^down_revision = (.*)$", text, re.MULTILINE)[1]: path for path, text in texts.items()}
    ordered: list[Path] = []
    names = {re.search(r"^revision = (.*)$", text, re.MULTILINE)[1] for text in texts.values()}
    parent = next(iter(by_parent.keys() - names), None)
    while parent in by_parent:
        ordered.append(by_parent[parent])
        parent = re.search(r"^revision = (.*)$", texts[by_parent[parent]], re.MULTILINE)[1]
    return ordered
