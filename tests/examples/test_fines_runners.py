"""Runners and rebuilds of the traffic fines, killed again and again: every event counts once."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork, configure_engine
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionPositionStore, SQLAlchemyProjectionStore
from tests.examples.fines import EXAMPLE, LOG, assert_equal_to_log, needs_log, run, write_log
from tests.support.command_line import column, environment, tables

PATIENCE_SECONDS = 120


@pytest.fixture(scope="module")
def own_log(tmp_path_factory):
    """Three events of a thousand cases."""
    return write_log(tmp_path_factory.mktemp("log") / "events.csv", cases=1000)


def projections(database, *arguments):
    """Start the command line in the example's folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "cqrs_ddd_persistence_sqlalchemy.projections", *arguments],
        cwd=EXAMPLE,
        env=environment(database.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(process):
    """Return what a command prints, once it has succeeded."""
    output, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, errors
    return output


async def forget(database):
    """Empty the read model and let its projection begin again."""
    engine = configure_engine(create_async_engine(database.url))
    sessions = async_sessionmaker(engine)
    async with SQLAlchemyUnitOfWork(sessions) as uow:
        await SQLAlchemyProjectionStore(sessions).truncate("fines", uow=uow)
        await SQLAlchemyProjectionPositionStore(sessions).reset_position("fines", uow=uow)
    await engine.dispose()


def position(database, name="fines"):
    """Return where a projection is."""
    found = column(database, f"SELECT position FROM projection_positions WHERE projection_name = '{name}'")
    return found[0] if found else 0


def owner(database):
    """Return the process id of the runner that holds the lease, None for nobody."""
    found = column(database, "SELECT owner FROM projection_runs WHERE projection_name = 'fines'")
    return int(found[0].split(":")[1]) if found and found[0] else None


def wait_until(condition):
    """Return the condition's value once it is true."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not (value := condition()):
        assert time.monotonic() < give_up, "that took too long"
        time.sleep(0.01)
    return value


def killed_again_and_again(database, log, *, batch_size, step):
    """Project the log by two runners at once, of which the one at work is killed after some events, each time."""
    run(database, "--events", str(log))
    asyncio.run(forget(database))
    last = column(database, "SELECT max(position) FROM events")[0]
    command = ("run", "fines", "--lease-seconds", "0.5", "--batch-size", str(batch_size))
    runners = {runner.pid: runner for runner in (projections(database, *command), projections(database, *command))}
    kills, killed_at = 0, 0
    try:
        while True:
            goal = min(last, killed_at + step)
            wait_until(lambda goal=goal: position(database) >= goal)
            if position(database) >= last:
                break
            victim = wait_until(lambda: runners.get(owner(database)))
            victim.kill()
            victim.communicate()
            del runners[victim.pid]
            kills += 1
            killed_at = position(database)
            replacement = projections(database, *command)
            runners[replacement.pid] = replacement
        for runner in runners.values():
            runner.send_signal(signal.SIGTERM)
            said(runner)
    finally:
        for runner in runners.values():
            runner.kill()
    assert_equal_to_log(database, log)
    return kills


def test_two_runners_killed_again_and_again_count_every_event_once(empty_database, own_log):
    """Sums that are not idempotent equal those of the log, case by case, and SIGTERM ends a runner in good order."""
    assert killed_again_and_again(empty_database, own_log, batch_size=3, step=600) >= 3


@needs_log
def test_the_real_log_survives_runners_that_are_killed(empty_database):
    """The same with the public log."""
    assert killed_again_and_again(empty_database, LOG, batch_size=50, step=6000) >= 3


def test_a_rebuild_that_is_killed_goes_on_where_it_was(empty_database, own_log):
    """A second run builds only what the first one has not, and the table is whole."""
    run(empty_database, "--events", str(own_log))
    rebuilding = projections(empty_database, "rebuild", "fines", "--batch-size", "10")
    wait_until(lambda: position(empty_database, "fines (rebuild)") >= 300)
    rebuilding.kill()
    rebuilding.communicate()
    reached = position(empty_database, "fines (rebuild)")
    assert 300 <= reached < 3000
    assert_equal_to_log(empty_database, own_log)
    checked = subprocess.run(
        [sys.executable, "-m", "alembic", "check"],
        cwd=EXAMPLE,
        env=environment(empty_database.dsn),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "No new upgrade operations detected" in checked.stdout, checked.stderr
    again = projections(empty_database, "rebuild", "fines")
    output, errors = again.communicate(timeout=PATIENCE_SECONDS)
    assert (again.returncode, output) == (0, "rebuilt from the events up to position 3000\n"), errors
    assert f"going on at position {reached}\n" in errors
    assert "fines__rebuild" not in tables(empty_database)
    assert_equal_to_log(empty_database, own_log)


def test_the_status_is_for_people_and_for_scripts(empty_database, own_log):
    """A table, JSON on request, and exit code 1 when something is paused."""
    run(empty_database, "--events", str(own_log))
    assert said(projections(empty_database, "status")).splitlines()[1].split()[:4] == ["fines", "stopped", "3000", "0"]
    fines = json.loads(said(projections(empty_database, "status", "--json")))[0]
    assert (fines["name"], fines["state"], fines["position"], fines["lag_events"]) == ("fines", "stopped", 3000, 0)
    assert said(projections(empty_database, "pause", "fines")) == "paused\n"
    paused = projections(empty_database, "status")
    assert "paused" in paused.communicate()[0]
    assert paused.returncode == 1
    assert said(projections(empty_database, "resume", "fines")) == "resumed\n"
    assert said(projections(empty_database, "parked", "fines")) == "none\n"
    assert (
        said(projections(empty_database, "replay", "fines"))
        == "0 events will be tried again by the projection's runner\n"
    )
    assert said(projections(empty_database, "discard", "fines")) == "0 events are forgotten\n"
    unknown = projections(empty_database, "rebuild", "nothing")
    assert "there is no projection 'nothing'; there are 'fines'" in unknown.communicate()[1]
    assert unknown.returncode == 2
