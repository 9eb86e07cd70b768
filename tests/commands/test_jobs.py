"""python -m cqrs_ddd_persistence_sqlalchemy.jobs, as the person on call uses it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from cqrs_ddd_advanced_core.background_jobs.entity import BaseBackgroundJob
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyBackgroundJobRepository
from cqrs_ddd_persistence_sqlalchemy.jobs.__main__ import main


class Import(BaseBackgroundJob):
    path: str = "a.csv"


class Report(BaseBackgroundJob):
    pass


@pytest.fixture
def with_jobs(database):
    """Run something with the repositories of both classes, on an engine of its own."""

    def run(act):
        async def do():
            engine = create_async_engine(database.url)
            sessions = async_sessionmaker(engine, expire_on_commit=False)
            imports, reports = (
                SQLAlchemyBackgroundJobRepository(each, session_factory=sessions) for each in (Import, Report)
            )
            try:
                return await act(imports, reports)
            finally:
                await engine.dispose()

        return asyncio.run(do())

    return run


@pytest.fixture
def command(database, capsys, monkeypatch, tmp_path):
    """Call the command on the test's database, without any configuration in reach; return its exit code and output."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = main(["--url", database.url, *arguments])
        return code, capsys.readouterr().out

    return call


async def some_jobs(imports, reports):
    await imports.enqueue_many([Import(id="waits", queue="slow"), Import(id="runs", priority=9, total_items=4)])
    (claim,) = await imports.claim(worker_id="host:1", lease=timedelta(minutes=1), queues=["default"])
    claim.job.processed_items = 1
    await imports.heartbeat(claim, timedelta(minutes=1))
    await reports.add(Report(id="failed", max_retries=0))
    (failed,) = await reports.claim(worker_id="host:1", lease=timedelta(minutes=1))
    await reports.fail(failed, ValueError("no paper"))


def test_jobs_are_listed_shown_and_counted(with_jobs, command):
    """Of all classes; with progress and errors, for people and for scripts."""
    with_jobs(some_jobs)
    code, text = command("list")
    assert code == 0
    assert [line.split()[0] for line in text.splitlines()[1:]] == ["failed", "runs", "waits"]
    assert "[##........] 1 of 4" in text
    assert "ValueError: no paper" in text
    assert "waits" not in command("list", "--status", "FAILED")[1]
    assert command("list", "--type", "Report", "--queue", "none")[1] == "none\n"
    listed = json.loads(command("list", "--json", "--limit", "2")[1])
    assert [each["id"] for each in listed] == ["failed", "runs"]
    code, text = command("show", "waits")
    assert (code, "a.csv" in text, "job type" in text) == (0, True, True)
    assert json.loads(command("show", "waits", "--json")[1])[0]["state"]["path"] == "a.csv"
    counted = json.loads(command("stats", "--json")[1])
    assert [(each["job_type"], each["queue"]) for each in counted] == [
        ("Import", "default"),
        ("Import", "slow"),
        ("Report", "default"),
    ]
    assert [(each["pending"], each["running"], each["failed"]) for each in counted] == [(0, 1, 0), (1, 0, 0), (0, 0, 1)]


def test_failed_jobs_run_again_and_others_are_cancelled(with_jobs, command):
    """What cannot be done is said by id, and by the exit code."""
    with_jobs(some_jobs)
    assert command("retry", "failed") == (0, "failed waits to be run again\n")
    code, text = command("retry", "waits", "missing")
    assert code == 1
    assert text.splitlines() == [
        f"{name}: there is no such job that is FAILED or CANCELLED" for name in ("waits", "missing")
    ]
    assert command("cancel", "waits", "runs")[0] == 0
    assert command("show", "missing") == (1, "missing: there is no such job\n")

    async def look(imports, reports):
        return [await imports.get("waits"), await imports.get("runs"), await reports.get("failed")]

    waits, runs, failed = with_jobs(look)
    assert (waits.status, runs.status, failed.status) == ("CANCELLED", "RUNNING", "PENDING")
    assert runs.cancellation_requested_at is not None
    assert failed.retry_count == 0


def test_a_retry_that_meets_its_unique_key_says_so(with_jobs, database, capsys):
    """Nothing is changed."""

    async def act(imports, _):
        await imports.add(Import(id="old", unique_key="k"))
        old = await imports.get("old")
        old.cancel()
        await imports.add(old)
        await imports.add(Import(id="new", unique_key="k"))

    with_jobs(act)
    assert main(["--url", database.url, "retry", "old", "missing"]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first == "job 'old': another one that waits or runs has its unique key"
    assert second.startswith("missing: there is no such job")


def test_running_jobs_are_watched(with_jobs, command):
    """As often as asked for."""
    with_jobs(some_jobs)
    code, text = command("watch", "--times", "2", "--seconds", "0.01")
    assert code == 0
    assert text.count("1 of 4") == 2
    assert "waits" not in text


def test_a_database_without_the_table_is_named(empty_database, capsys, monkeypatch, tmp_path):
    """With the command that makes it; nothing is made."""
    monkeypatch.chdir(tmp_path)
    assert main(["--url", empty_database.url, "list"]) == 2
    assert "table 'jobs' is not in the database; run: alembic upgrade head" in capsys.readouterr().err


def test_it_is_a_module(database):
    """Run as the docs say, with DATABASE_URL."""
    done = subprocess.run(
        [sys.executable, "-m", "cqrs_ddd_persistence_sqlalchemy.jobs", "stats"],
        env={**os.environ, "DATABASE_URL": database.url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "none\n"), done.stderr
