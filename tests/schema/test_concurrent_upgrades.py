"""Many processes migrate one database at once: one works, the others wait, all succeed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from cqrs_ddd_advanced_core.projections import ProjectionIndex, ProjectionSchema
from tests.support.command_line import (
    HEAD,
    REVISIONS,
    VERSION_TABLE,
    column,
    copy_repository,
    environment,
    execute,
    fail,
    generate,
    make_application,
    schema,
    succeed,
    tables,
    write_ini,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.databases import Database

PROCESSES = 8
WAITS = "Another migration is running; waiting for it to end"

# Processes that have imported everything and start at one moment, when the pipe they read is closed.
_TOGETHER = f"""
import json, os, sys
import aiosqlite, asyncpg
import cqrs_ddd_persistence_sqlalchemy.schema.environment
from alembic.config import main

start, hold = os.pipe()
children = []
for number in range({PROCESSES}):
    children.append(os.fork())
    if not children[-1]:
        os.close(hold)
        os.dup2(os.open(f"{{number}}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(1, 2)
        os.read(start, 1)
        main(["upgrade", "head"])
        sys.exit(0)
os.close(hold)
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]))
"""

# A revision that stops half-way until it reads a line.
_STOPS = f"""
import sys

from alembic import op

revision = "stops"
down_revision = {HEAD!r}
branch_labels = None
depends_on = None


def upgrade():
    op.execute("CREATE TABLE of_the_last_revision (id INTEGER)")
    print("stopped", flush=True)
    sys.stdin.readline()


def downgrade():
    op.execute("DROP TABLE of_the_last_revision")
"""

_INDEXES = _STOPS.replace(
    'op.execute("CREATE TABLE of_the_last_revision (id INTEGER)")', 'op.execute("LOCK TABLE projection_positions")'
).replace(
    "sys.stdin.readline()",
    """sys.stdin.readline()
    with op.get_context().autocommit_block():
        op.create_index("ix_events_event_type", "events", ["event_type"], postgresql_concurrently=True)""",
)

# Sessions of this database without an open transaction, beside the asking one and the one with the migration lock.
_IDLE = """
    SELECT count(*) FROM pg_stat_activity a
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'idle' AND xact_start IS NULL
    AND backend_type = 'client backend'
    AND NOT EXISTS (SELECT 1 FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'advisory' AND l.granted)
"""
_ADVISORY_LOCKS = """
    SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
    WHERE l.locktype = 'advisory' AND d.datname = current_database()
"""


@pytest.fixture
def repository(tmp_path):
    """A copy of the repository."""
    return copy_repository(tmp_path)


def add_revision(repository: Path, text: str) -> None:
    """Put a revision on the head of the chain."""
    (repository / "migrations" / "versions" / "stops.py").write_text(text)


@contextmanager
def started(*arguments: str, cwd: Path, database: Database, stdin: int) -> Iterator[subprocess.Popen[str]]:
    """Start alembic, and end it whatever happens."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "alembic", *arguments],
        cwd=cwd,
        env=environment(database.dsn),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def holder_and_waiter(
    repository: Path, database: Database
) -> Iterator[tuple[subprocess.Popen[str], subprocess.Popen[str]]]:
    """Start a migration that stops in its last revision, and another one that waits for it."""
    upgrade = {"cwd": repository, "database": database}
    with started("upgrade", "head", stdin=subprocess.PIPE, **upgrade) as holder:
        read_until(holder, "stopped")
        with started("upgrade", "head", stdin=subprocess.DEVNULL, **upgrade) as waiter:
            read_until(waiter, WAITS)
            yield holder, waiter


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Read what a process prints up to the line with the text; fail where it ends before."""
    said = ""
    for line in process.stdout or ():
        said += line
        if text in line:
            return said
    raise AssertionError(f"{text!r} is missing in:\n{said}")


def finish(process: subprocess.Popen[str], line: str | None = None) -> str:
    """Let a process go on to its end, make sure that it succeeds, and return the rest of what it prints."""
    said, _ = process.communicate(line, timeout=60)
    assert process.returncode == 0, said
    return said


def upgrades(log: str) -> Counter[str]:
    """Count the revisions that were run by the logs."""
    return Counter(re.findall(r"Running upgrade \w* -> (\w+)", log))


def locks_are_free(database: Database) -> bool:
    """Tell whether nobody holds the migration lock, where it outlives transactions."""
    return database.kind == "sqlite" or column(database, _ADVISORY_LOCKS) == [0]


@pytest.mark.parametrize("_round", range(3))
def test_processes_that_start_at_one_moment_all_succeed(repository, empty_database, reference, _round):
    """Each revision is run by one of eight processes, all of them succeed, and the lock is free afterwards."""
    command = [sys.executable, "-P", "-c", _TOGETHER]
    done = subprocess.run(
        command, cwd=repository, env=environment(empty_database.dsn), capture_output=True, text=True, check=False
    )
    log = "".join(path.read_text() for path in sorted(repository.glob("*.log")))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [0] * PROCESSES, log
    assert upgrades(log) == Counter(REVISIONS)
    assert schema(empty_database) == schema(reference)
    assert column(empty_database, f"SELECT version_num FROM {VERSION_TABLE}") == [HEAD]
    assert locks_are_free(empty_database)


def test_both_chains_of_an_application_run_once(tmp_path, empty_database):
    """Eight processes of an application run each revision of the library's and its own once, under one lock."""
    write_ini(tmp_path)
    (tmp_path / "versions").mkdir()
    own = _STOPS.replace(repr(HEAD), "None").replace("sys.stdin.readline()", "")
    (tmp_path / "versions" / "own.py").write_text(own.replace('print("stopped", flush=True)', ""))
    command = [sys.executable, "-P", "-c", _TOGETHER]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(empty_database.dsn), capture_output=True, text=True, check=False
    )
    log = "".join(path.read_text() for path in sorted(tmp_path.glob("*.log")))
    assert json.loads(done.stdout) == [0] * PROCESSES, log
    assert upgrades(log) == Counter([*REVISIONS, "stops"])
    assert column(empty_database, f"SELECT version_num FROM {VERSION_TABLE}") == [HEAD]
    assert column(empty_database, "SELECT version_num FROM alembic_version") == ["stops"]
    assert locks_are_free(empty_database)


def test_an_index_beside_a_running_application_is_built_once(tmp_path, database):
    """Of eight processes, one builds the index that PostgreSQL builds CONCURRENTLY, in a transaction of nobody's."""
    fields = [("id", "TEXT PRIMARY KEY"), ("number", "INTEGER")]
    plain = ProjectionSchema("orders", fields)
    app = make_application(tmp_path / "app", plain)
    generate(app, database, "create", plain)
    succeed("upgrade", "head", cwd=app, url=database.url)
    execute(database, "INSERT INTO orders (id, number) VALUES ('o-1', 1), ('o-2', 2)")
    indexed = ProjectionSchema("orders", fields, [ProjectionIndex("number", unique=True)])
    assert "postgresql_concurrently=True" in "".join(
        path.read_text() for path in generate(app, database, "index", indexed)
    )
    before = set(schema(database))
    done = subprocess.run(
        [sys.executable, "-P", "-c", _TOGETHER],
        cwd=app,
        env=environment(database.dsn),
        capture_output=True,
        text=True,
        check=False,
    )
    log = "".join(path.read_text() for path in sorted(app.glob("*.log")))
    assert json.loads(done.stdout) == [0] * PROCESSES, log
    assert set(upgrades(log).values()) == {1}, log
    assert [each for each in schema(database) if each not in before and "INDEX" in each] != []
    assert generate(app, database, "nothing", indexed) == []
    assert locks_are_free(database)


def test_a_killed_migration_keeps_nobody_waiting(repository, empty_database):
    """What a process had not finished when it was killed, the one that waited for it does instead."""
    add_revision(repository, _STOPS)
    with holder_and_waiter(repository, empty_database) as (holder, waiter):
        holder.kill()
        assert upgrades(finish(waiter))["stops"] == 1
    assert "of_the_last_revision" in tables(empty_database)
    assert column(empty_database, f"SELECT version_num FROM {VERSION_TABLE}") == ["stops"]
    assert locks_are_free(empty_database)


def test_waiting_has_a_limit(repository, empty_database):
    """After lock_wait_seconds a migration ends in one line that says so, and the one it waited for goes on."""
    add_revision(repository, _STOPS)
    ini = repository / "alembic.ini"
    ini.write_text(ini.read_text().replace("[alembic]", "[alembic]\nlock_wait_seconds = 0.5"))
    with started("upgrade", "head", cwd=repository, database=empty_database, stdin=subprocess.PIPE) as holder:
        read_until(holder, "stopped")
        message = fail("upgrade", "head", cwd=repository, url=empty_database.dsn)
        assert re.search(r"another migration has held this database for 0\.5 seconds.*lock_wait_seconds", message)
        finish(holder, "\n")
    assert succeed("current", cwd=repository, url=empty_database.dsn) == "stops (head)\n"


@pytest.mark.parametrize("limit", ["soon", "-1", "nan", "inf"])
def test_the_limit_is_a_number_of_seconds(repository, limit):
    """A limit that is none is refused with its name and value."""
    ini = repository / "alembic.ini"
    ini.write_text(ini.read_text().replace("[alembic]", f"[alembic]\nlock_wait_seconds = {limit}"))
    assert fail("upgrade", "head", cwd=repository) == f"lock_wait_seconds = {limit!r}: give a number of seconds"


def test_looking_waits_for_nobody(repository, empty_database):
    """While a migration is at work, `current` answers what was committed before."""
    succeed("upgrade", HEAD, cwd=repository, url=empty_database.dsn)
    add_revision(repository, _STOPS)
    with started("upgrade", "head", cwd=repository, database=empty_database, stdin=subprocess.PIPE) as holder:
        read_until(holder, "stopped")
        assert succeed("current", cwd=repository, url=empty_database.dsn) == f"{HEAD}\n"
        finish(holder, "\n")


def test_waiting_holds_no_transaction_open(repository, empty_postgresql):
    """A concurrent index, which waits for every transaction there is, is built while another migration waits."""
    add_revision(repository, _INDEXES)
    with holder_and_waiter(repository, empty_postgresql) as (holder, waiter):
        while column(empty_postgresql, _IDLE) != [1]:
            assert waiter.poll() is None
        finish(holder, "\n")
        assert upgrades(finish(waiter)) == Counter()
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_events_event_type'::regclass"
    assert column(empty_postgresql, valid) == [True]
    assert locks_are_free(empty_postgresql)


def test_a_failed_migration_frees_the_lock_for_the_next(repository, empty_postgresql):
    """The process that waited for a migration that fails takes its turn."""
    add_revision(repository, _STOPS.replace("sys.stdin.readline()", "assert sys.stdin.readline() == ''"))
    with holder_and_waiter(repository, empty_postgresql) as (holder, waiter):
        said, _ = holder.communicate("fail\n", timeout=60)
        assert holder.returncode == 1, said
        assert upgrades(finish(waiter))["stops"] == 1
