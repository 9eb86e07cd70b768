"""The traffic fines demo: complete, resumable wherever it is killed, equal to totals straight from the log."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.examples.fines import EXAMPLE, LOG, assert_equal_to_log, needs_log, run, start, write_log
from tests.support.databases import alembic

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def small_log(tmp_path_factory):
    """Two hundred cases."""
    return write_log(tmp_path_factory.mktemp("log") / "events.csv", cases=200)


def test_the_generated_stream_is_projected_and_a_second_run_has_nothing_to_do(empty_database):
    """Two runs print the same totals, the second one without an event of its own."""
    first, second = run(empty_database, "--cases", "100"), run(empty_database, "--cases", "100")
    assert "100 cases of" in first
    assert first.splitlines()[:-1] == second.splitlines()[:-1]
    assert "imported nothing new, projected nothing new" in second


def test_a_log_is_projected_case_by_case(empty_database, small_log):
    """Every row of the read model equals the totals taken straight from the log."""
    run(empty_database, "--events", str(small_log), "--batch-size", "7")
    assert_equal_to_log(empty_database, small_log)


def test_the_example_is_clean_for_alembic(empty_database, small_log):
    """In the example's folder `check`, `current` and `downgrade` answer for its own chain."""
    run(empty_database, "--events", str(small_log))
    assert "No new upgrade operations" in alembic("check", url=empty_database.url, cwd=EXAMPLE).stdout
    assert "(head)" in alembic("current", url=empty_database.url, cwd=EXAMPLE).stdout
    alembic("downgrade", "base", url=empty_database.url, cwd=EXAMPLE, x=("allow-data-loss=yes",))
    alembic("upgrade", "head", url=empty_database.url, cwd=EXAMPLE)


def test_the_committed_revision_is_what_the_command_writes(tmp_path):
    """The newest revision in the example is the command's output, untouched but for its date."""
    first, committed = sorted((EXAMPLE / "versions").glob("*.py"), reverse=True)
    shutil.copy(first, tmp_path)
    ini = (EXAMPLE / "alembic.ini").read_text().replace("%(here)s/versions", str(tmp_path))
    copy = tmp_path / "alembic.ini"
    copy.write_text(ini.replace("%(here)s", str(EXAMPLE)))
    url = f"sqlite:///{tmp_path}/example.db"
    alembic("-c", str(copy), "upgrade", "head", cwd=EXAMPLE, url=url)
    alembic(
        "-c", str(copy), "revision", "--autogenerate", "-m", "order fines by last event", "--rev-id", "5d0c7e1f92ab",
        cwd=EXAMPLE, url=url,
    )  # fmt: skip
    written = (tmp_path / committed.name).read_text()
    undated = [
        [line for line in text.splitlines() if "Create Date" not in line] for text in (written, committed.read_text())
    ]
    assert undated[0] == undated[1]


def test_every_schema_of_the_example_has_its_revision():
    """What the README tells to run in CI succeeds without a database."""
    command = [sys.executable, "-m", "cqrs_ddd_persistence_sqlalchemy.schema", "check"]
    done = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@needs_log
def test_the_real_log_survives_ten_kills(empty_database):
    """Killed at ten random moments and started again, the read model equals the log, case by case."""
    run_with_kills(empty_database, LOG, kills=10, seed=11)
    assert_equal_to_log(empty_database, LOG)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_a_log_survives_a_hundred_kills(empty_database, small_log, seed):
    """The same with our own log, for as long as it takes: one event a transaction, twenty kills a round."""
    run_with_kills(empty_database, small_log, "--batch-size", "1", kills=20, seed=seed)
    assert_equal_to_log(empty_database, small_log)


def run_with_kills(database, log: Path, *arguments: str, kills: int, seed: int) -> None:
    """Start the demo, kill it after a random while, and in the end let it finish."""
    rng = random.Random(seed)
    for _ in range(kills):
        process = start(database, "--events", str(log), *arguments)
        deadline = time.monotonic() + rng.uniform(0.3, 2.5)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        process.communicate()
    run(database, "--events", str(log), *arguments)


def test_two_runs_at_once_do_the_work_once(empty_database, small_log):
    """Two processes on one database both end well, and every event counts once."""
    processes = [start(empty_database, "--events", str(small_log), "--batch-size", "5") for _ in range(2)]
    outcomes = [(process.communicate(timeout=120), process.returncode) for process in processes]
    assert [code for _, code in outcomes] == [0, 0], outcomes
    assert_equal_to_log(empty_database, small_log)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--events", "nowhere.csv"], "nowhere.csv"),
        (["--events", os.devnull], "main.py: "),
        (["--url", "nonsense"], "the database URL cannot be used"),
        (["--url", "postgresql://nobody:secret@127.0.0.1:1/x"], "cannot connect to"),
    ],
)
def test_user_errors_are_one_line(tmp_path, arguments, message):
    """What a user can set right ends in a line on stderr and exit code 2, passwords not shown."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLE / "main.py"), *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr
