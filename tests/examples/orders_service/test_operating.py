"""Starting and stopping the service, its health, processes of its workers, its settings and its revisions."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import pytest
import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy.exceptions import SchemaOutOfDateError
from orders_service.settings import Settings
from tests.examples.orders_service.service import EXAMPLE, PATIENCE_SECONDS, ended, eventually, place, started
from tests.support.command_line import column, environment, run, succeed


async def test_the_service_does_not_start_on_an_empty_database(empty_database):
    """It says which command to run, and leaves no connection behind."""
    with pytest.raises(SchemaOutOfDateError, match="run: alembic upgrade head"):
        async with started(empty_database):
            pytest.fail("it has started")


async def test_the_service_does_not_start_without_its_own_table(database):
    """The library's tables are not enough."""
    with pytest.raises(SchemaOutOfDateError, match="'orders' is not in the database; run: alembic upgrade head"):
        async with started(database):
            pytest.fail("it has started")


async def test_readiness_follows_the_database_and_liveness_does_not(web, migrated):
    """Once its table is gone the service is not ready, and says what to run; it is alive all the same."""
    client, _ = web
    assert (await client.get("/ready")).json() == {"status": "ready"}
    await asyncio.to_thread(run, "downgrade", "base", cwd=EXAMPLE, url=migrated.url)
    answer = await client.get("/ready")
    assert answer.status_code == 503
    assert "run: alembic upgrade head" in answer.json()["detail"]
    assert (await client.get("/health")).status_code == 200
    await asyncio.to_thread(succeed, "upgrade", "head", cwd=EXAMPLE, url=migrated.url)
    assert (await client.get("/ready")).status_code == 200


async def test_a_database_that_does_not_answer_is_not_ready(web, databases, migrated):
    """No connection is a 503 that shows no address and no password."""
    client, parts = web
    await parts.engine.dispose()
    if migrated.kind == "sqlite":
        migrated.path.rename(migrated.path.with_suffix(".away"))
        migrated.path.mkdir()
    else:
        name = sa.make_url(migrated.url).database
        await asyncio.to_thread(databases.admin, f"ALTER DATABASE {name} RENAME TO {name}_away")
    try:
        answer = await client.get("/ready")
    finally:
        if migrated.kind == "sqlite":
            migrated.path.rmdir()
            migrated.path.with_suffix(".away").rename(migrated.path)
        else:
            await asyncio.to_thread(databases.admin, f"ALTER DATABASE {name}_away RENAME TO {name}")
    assert (answer.status_code, answer.json()) == (503, {"detail": "the database cannot be reached"})


async def test_a_worker_that_has_died_ends_the_liveness(migrated, monkeypatch, caplog):
    """A bug in the background is logged, and turns /health into a 503 that names what has ended."""

    async def die(_runner):
        raise RuntimeError("a bug")

    monkeypatch.setattr("orders_service.workers.SagaRunner.run", die)
    async with started(migrated) as (client, _):

        async def unhealthy():
            return (await client.get("/health")).status_code == 503

        await eventually(unhealthy)
        assert "sagas" in (await client.get("/health")).json()["detail"]
        assert "a bug" in caplog.text


async def test_a_stop_leaves_nothing_to_wait_for(migrated, outside, monkeypatch):
    """A mail under way is sent to its end, and the projection's lease is given back."""
    sending, may_end = asyncio.Event(), asyncio.Event()

    async def send_slowly(*_, **__):
        sending.set()
        await may_end.wait()

    monkeypatch.setattr(outside.mailer, "send", send_slowly)
    async with started(migrated, outside) as (client, app):
        await client.get((await place(client)).headers["Location"])
        await asyncio.wait_for(sending.wait(), PATIENCE_SECONDS)
        asyncio.get_running_loop().call_later(0.2, may_end.set)
    assert app.state.parts.engine.sync_engine.pool.checkedout() == 0
    owners = await asyncio.to_thread(column, migrated, "SELECT owner FROM projection_runs")
    assert owners == [None]
    running = await asyncio.to_thread(column, migrated, "SELECT count(*) FROM jobs WHERE status = 'RUNNING'")
    assert running == [0]


WORKER = [sys.executable, "-m", "orders_service.worker"]


async def test_web_and_workers_may_be_processes_of_their_own(web, migrated):
    """A worker's process fulfils what the web process has taken, and ends in order at SIGTERM."""
    client, _ = web
    order_id = (await place(client)).json()["order_id"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(WORKER, cwd=EXAMPLE, env=environment(migrated.url), **pipes) as process:  # noqa: ASYNC220
        try:
            await ended(client, order_id, "shipped")
            process.send_signal(signal.SIGTERM)
            _, errors = await asyncio.to_thread(process.communicate, timeout=PATIENCE_SECONDS)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    assert "mail to ann@example.org: We have your order." in errors


def test_the_worker_does_not_start_on_an_empty_database(empty_database):
    """One line says which command to run, and the exit code is 2."""
    options = {"cwd": EXAMPLE, "env": environment(empty_database.url), "timeout": PATIENCE_SECONDS}
    done = subprocess.run(WORKER, capture_output=True, text=True, check=False, **options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("orders_service.worker: the database is behind this code")
    assert "run: alembic upgrade head" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ("sqlite:///orders.db", True)),
        ({"DATABASE_URL": "postgresql://u:p@h/n", "WITH_WORKERS": "no"}, ("postgresql://u:p@h/n", False)),
    ],
)
def test_settings_come_from_the_environment(variables, expected):
    """What is not said has a default: an SQLite file, and the work done in the web process."""
    settings = Settings.from_environment(variables)
    assert (settings.database_url, settings.with_workers) == expected


def test_a_setting_that_makes_no_sense_is_refused():
    """A typing error does not quietly mean no."""
    with pytest.raises(ValueError, match="WITH_WORKERS is 'true': say yes or no"):
        Settings.from_environment({"WITH_WORKERS": "true"})


def test_the_revisions_are_what_the_schema_says(migrated):
    """Right after the upgrade `alembic check` and `schema check` find nothing to do, and the way down works."""
    assert "No new upgrade operations" in succeed("check", cwd=EXAMPLE, url=migrated.url)
    command = [sys.executable, "-m", "cqrs_ddd_persistence_sqlalchemy.schema", "check"]
    done = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    succeed("downgrade", "base", cwd=EXAMPLE, url=migrated.url)
