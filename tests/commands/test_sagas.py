"""python -m cqrs_ddd_persistence_sqlalchemy.sagas, as the person on call uses it."""

from __future__ import annotations

import asyncio
import json

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from cqrs_ddd_advanced_core.sagas import SagaState, saga_step
from cqrs_ddd_persistence_sqlalchemy.advanced import SagaRunner, SQLAlchemySagaRepository
from cqrs_ddd_persistence_sqlalchemy.sagas.__main__ import main


class Trip(SagaState):
    refused: bool = False

    @saga_step()
    async def book(self):
        if self.refused:
            raise ConnectionError("no room")


@pytest.fixture
def command(database, capsys, monkeypatch, tmp_path):
    """Call the command on a database with two sagas; return its exit code and output."""

    async def run():
        engine = create_async_engine(database.url)
        trips = SQLAlchemySagaRepository(Trip, session_factory=async_sessionmaker(engine, expire_on_commit=False))
        await trips.add(Trip(id="good", correlation_id="c1"))
        await trips.add(Trip(id="bad", refused=True))
        await SagaRunner(trips).run_due()
        await trips.add(Trip(id="new"))
        await engine.dispose()

    asyncio.run(run())
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = main(["--url", database.url, *arguments])
        return code, capsys.readouterr().out

    return call


def test_sagas_are_listed_shown_and_counted(command):
    """With their last step and what has gone wrong, for people and for scripts."""
    code, text = command("list")
    assert (code, len(text.splitlines())) == (0, 4)
    assert "book: FAILED" in text
    assert [each["id"] for each in json.loads(command("list", "--json", "--status", "COMPLETED")[1])] == ["good"]
    assert command("list", "--type", "Journey") == (0, "none\n")
    (bad,) = json.loads(command("show", "bad", "--json")[1])
    assert (bad["status"], bad["error"], bad["state"]["refused"]) == ("CANCELLED", "ConnectionError: no room", True)
    assert [each["name"] for each in bad["history"]] == ["book"]
    assert "step 'book' failed: ConnectionError: no room" in command("show", "bad")[1]
    assert command("show", "missing") == (1, "missing: there is no such saga\n")
    (counts,) = json.loads(command("stats", "--json")[1])
    assert (counts["pending"], counts["completed"], counts["cancelled"], counts["failed"]) == (1, 1, 1, 0)
    assert "Trip" in command("stats")[1]


def test_a_database_without_the_table_is_named(empty_database, capsys, monkeypatch, tmp_path):
    """With the command that makes it."""
    monkeypatch.chdir(tmp_path)
    assert main(["--url", empty_database.url, "list"]) == 2
    assert "table 'sagas' is not in the database; run: alembic upgrade head" in capsys.readouterr().err
