"""What is no event's fault: it is said by catch_up(), and waited for by run()."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cqrs_ddd_advanced_core.projections.projection import Fold
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore
from cqrs_ddd_persistence_sqlalchemy.exceptions import (
    CollectionNotFoundError,
    SchemaOutOfDateError,
)
from tests.advanced.running.conftest import (
    LONG,
    PATIENCE_SECONDS,
    accounts,
    add,
    count,
    paid,
    running,
    soon,
)
from tests.support.waiting import until

TABLES = {
    "accounts": CollectionNotFoundError,
    "events": SchemaOutOfDateError,
    "projection_positions": SchemaOutOfDateError,
    "projection_runs": SchemaOutOfDateError,
    "projection_dead_letters": SchemaOutOfDateError,
}


@pytest.fixture(params=["fold", "handler"])
def handler(request):
    """A fold and a handler of the same meaning."""
    return {"fold": Fold(add), "handler": count}[request.param]


@pytest.mark.parametrize("table", list(TABLES))
async def test_catch_up_names_a_missing_table(bank, table, handler):
    """Without a table catch_up() raises what says which one, and blames no event."""
    await bank.append(paid("a"))
    await bank.execute(f"ALTER TABLE {table} RENAME TO away")
    with pytest.raises(TABLES[table], match=table):
        await bank.runner(accounts(handler), max_attempts=1).catch_up()


@pytest.mark.parametrize("table", list(TABLES))
async def test_a_failed_catch_up_gives_the_lease_back(bank, table):
    """Whatever table was missing, the next runner need not wait for a lease that nobody uses."""
    await bank.append(paid("a"))
    await bank.execute(f"ALTER TABLE {table} RENAME TO away")
    with pytest.raises(Exception):  # noqa: B017  (which one is another test's)
        await bank.runner(lease=LONG).catch_up()
    await bank.execute(f"ALTER TABLE away RENAME TO {table}")
    assert await bank.runner().catch_up() == 1


@pytest.mark.parametrize("table", list(TABLES))
async def test_run_waits_for_a_missing_table(bank, caplog, table, handler):
    """run() goes on once the table is there, and no attempt is counted."""
    await bank.append(paid("a"))
    await bank.execute(f"ALTER TABLE {table} RENAME TO away")
    async with running(bank.runner(accounts(handler), max_attempts=1)) as (task,):
        await until(_logged(caplog, "trying again in"))
        assert not task.done()
        await bank.execute(f"ALTER TABLE away RENAME TO {table}")
        await bank.positions.wait_for("accounts", 1, timeout=PATIENCE_SECONDS)
        status = await bank.status()
        assert (status.error, status.failures, status.parked) == (None, 0, 0)
    assert await bank.totals() == {"a": (1, 1)}


@pytest.mark.parametrize("table", list(TABLES))
async def test_the_log_says_what_is_waited_for(bank, caplog, table):
    """While run() waits for a table, its warning names that table."""
    await bank.append(paid("a"))
    await bank.execute(f"ALTER TABLE {table} RENAME TO away")
    async with running(bank.runner()):
        await until(_logged(caplog, "trying again in"))
    assert f"{table!r} is not in the database" in caplog.text


async def test_a_runner_that_seldom_polls_tries_again_soon(bank, caplog):
    """However seldom a runner looks for events, after an error it is back in a few seconds."""
    await bank.append(paid("a"))
    await bank.execute("ALTER TABLE accounts RENAME TO away")
    async with running(bank.runner(poll_interval=LONG)):
        await until(_logged(caplog, "trying again in 0.1 s"))
        await bank.execute("ALTER TABLE away RENAME TO accounts")
        await bank.positions.wait_for("accounts", 1, timeout=3)


async def test_a_missing_table_of_a_replay_is_waited_for(bank, caplog):
    """A parked event that is replayed while the table is away counts no failure, and is applied once it is there."""
    refusing = True

    async def handler(event, view):
        if refusing:
            raise ValueError("not yet")
        await count(event, view)

    await bank.append(paid("a"))
    await bank.runner(accounts(handler), max_attempts=1, on_failure="park").catch_up()
    refusing = False
    await bank.execute("ALTER TABLE accounts RENAME TO away")
    await bank.letters.request_replay("accounts")
    async with running(bank.runner(accounts(handler))):
        await until(_logged(caplog, "trying again in"))
        (letter,) = await bank.letters.parked("accounts")
        assert (letter.failures, letter.replay_requested) == (1, True)
        await bank.execute("ALTER TABLE away RENAME TO accounts")
        await until(_is_empty(bank))
    assert await bank.totals() == {"a": (1, 1)}


async def test_a_lost_connection_is_no_events_fault(postgresql_bank):
    """PostgreSQL only: a batch whose connection the server ends is tried again and counts no failure."""
    bank = postgresql_bank
    ended = []

    async def handler(event, view):
        if not ended:
            connection = await view.uow.session.connection()
            ended.append((await connection.exec_driver_sql("SELECT pg_backend_pid()")).scalar())
            await bank.execute("SELECT pg_terminate_backend(:pid)", pid=ended[0])
        await count(event, view)

    await bank.append(paid("a"))
    async with running(bank.runner(accounts(handler), max_attempts=1)):
        await bank.positions.wait_for("accounts", 1, timeout=PATIENCE_SECONDS)
    assert await bank.totals() == {"a": (1, 1)}
    assert len(ended) == 1


async def test_an_error_of_the_programs_ends_run(bank):
    """What is neither an event's fault nor passing, such as a broken event store, comes out of run() as it is."""

    class Broken(SQLAlchemyEventStore):
        async def last_position(self, **_):
            raise ZeroDivisionError

    await bank.append(paid("a"))
    with pytest.raises(ZeroDivisionError):
        await soon(bank.runner(events=Broken(bank.session_factory), lease=LONG).run())
    assert (await bank.status()).owner is None


async def test_catch_up_beside_a_runner_waits_for_it(bank):
    """It returns once the events are applied, whoever has applied them, and applies none of them again."""
    await bank.append(paid("a"), paid("a"))
    async with running(bank.runner(lease=timedelta(seconds=30))):
        assert await soon(bank.runner(batch_size=1).catch_up()) == 2
    assert await bank.totals() == {"a": (2, 2)}


def _logged(caplog, text):
    async def condition():
        return text in caplog.text

    return condition


def _is_empty(bank):
    async def condition():
        return not await bank.letters.parked("accounts")

    return condition
