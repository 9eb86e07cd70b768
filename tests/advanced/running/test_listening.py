"""News of events on PostgreSQL: faster than polling, and no replacement for it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork, configure_engine
from cqrs_ddd_persistence_sqlalchemy.advanced.running import listening
from cqrs_ddd_persistence_sqlalchemy.core.channels import EVENTS_CHANNEL
from tests.advanced.running.conftest import LONG, PATIENCE_SECONDS, accounts, count, paid, running, soon
from tests.support.engines import check_no_leaks
from tests.support.waiting import until

LISTENING = "FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"


@pytest.fixture
async def postgresql_engine(postgresql):
    """Around the proxy, where this run has one: LISTEN needs a session of its own (tests/proxy shows it without)."""
    made = configure_engine(create_async_engine(postgresql.direct_url))
    yield made
    await check_no_leaks(made)


@pytest.fixture
def bank(postgresql_bank):
    """A bank on PostgreSQL alone, whose events are announced."""
    postgresql_bank.events = SQLAlchemyEventStore(postgresql_bank.session_factory, notify=True)
    return postgresql_bank


async def is_listening(bank):
    await until(lambda: bank.value(sa.text(f"SELECT count(*) {LISTENING}")))


async def has_reached(bank, position):
    await bank.positions.wait_for("accounts", position, timeout=PATIENCE_SECONDS)


async def idle(bank, runner):
    """Wait until the runner has seen everything, and waits for news."""
    await is_listening(bank)
    await has_reached(bank, (await bank.append(paid("first")))[0])
    await until(lambda: _waits(runner))


async def _waits(runner):
    # Behind the curtain: the one who waits for news is seen nowhere else.
    return bool(runner._news._waiters)


@asynccontextmanager
async def heard(postgresql):
    """The notifications that somebody else's connection hears, and a way to be sure that no more are under way."""
    notes = []
    connection = await asyncpg.connect(postgresql.dsn)
    barrier = asyncio.Event()
    await connection.add_listener(EVENTS_CHANNEL, lambda *_: notes.append("events"))
    await connection.add_listener("barrier", lambda *_: barrier.set())

    async def all_of_them():
        barrier.clear()
        await connection.execute("NOTIFY barrier")
        await soon(barrier.wait())
        return len(notes)

    try:
        yield all_of_them
    finally:
        await connection.close()


async def test_an_append_wakes_a_runner(bank):
    """A runner that looks once an hour applies events at once."""
    runner = bank.runner(poll_interval=LONG)
    async with running(runner):
        await idle(bank, runner)
        for n in range(1, 4):
            (position,) = await bank.append(paid("a"))
            await has_reached(bank, position)
            assert (await bank.totals())["a"] == (n, n)
            await until(lambda: _waits(runner))


async def test_without_notify_nobody_is_woken(bank):
    """An event store without notify=True leaves runners to their polling."""
    runner = bank.runner(poll_interval=LONG)
    async with running(runner):
        await idle(bank, runner)
        await SQLAlchemyEventStore(bank.session_factory).append([paid("a")])
        (position,) = await bank.append(paid("b"))
        await has_reached(bank, position)
    assert await bank.totals() == {"first": (1, 1), "a": (1, 1), "b": (1, 1)}


async def test_news_during_a_batch_is_not_lost(bank):
    """What is announced while a handler works is applied after its batch, without waiting for the next look."""
    reached, let_go = asyncio.Event(), asyncio.Event()

    async def handler(event, view):
        await count(event, view)
        if event.aggregate_id == "slow":
            reached.set()
            await let_go.wait()

    runner = bank.runner(accounts(handler), poll_interval=LONG)
    async with running(runner):
        await idle(bank, runner)
        await bank.append(paid("slow"))
        await soon(reached.wait())
        runner._news.clear()  # what woke it for this batch
        (position,) = await bank.append(paid("a"))
        await soon(runner._news.wait())
        let_go.set()
        await has_reached(bank, position)
    assert (await bank.totals())["a"] == (1, 1)


async def test_a_lost_connection_does_not_stop_polling(bank):
    """Without the connection that listens, events are applied by polling."""
    async with running(bank.runner()):
        await is_listening(bank)
        await bank.execute(f"SELECT pg_terminate_backend(pid) {LISTENING}")
        for _ in range(3):
            (position,) = await bank.append(paid("a"))
            await has_reached(bank, position)
    assert await bank.totals() == {"a": (3, 3)}


async def test_a_lost_connection_is_opened_again(bank, monkeypatch):
    """After the connection that listens is lost another one does, and wakes the runner."""
    monkeypatch.setattr(listening, "_TRY_AGAIN_SECONDS", 0.05)
    runner = bank.runner(poll_interval=LONG)
    async with running(runner):
        await idle(bank, runner)
        pid = await bank.value(sa.text(f"SELECT pid {LISTENING}"))
        await bank.execute("SELECT pg_terminate_backend(:pid)", pid=pid)
        await until(lambda: bank.value(sa.text(f"SELECT count(*) {LISTENING} AND pid <> {pid}")))
        (position,) = await bank.append(paid("a"))
        await has_reached(bank, position)


async def test_nobody_listens_after_the_end(bank):
    """stop() and cancellation both close the connection that listens."""
    async with running(bank.runner()):
        await is_listening(bank)
    await until(lambda: _nobody_listens(bank))
    task = asyncio.create_task(bank.runner().run())
    await is_listening(bank)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(task)
    await until(lambda: _nobody_listens(bank))


async def _nobody_listens(bank):
    return await bank.value(sa.text(f"SELECT count(*) = 0 {LISTENING}"))


async def test_a_unit_of_work_announces_after_its_commit(bank, postgresql):
    """Inside an open unit of work nothing goes out until it has committed."""
    async with heard(postgresql) as notes, SQLAlchemyUnitOfWork(bank.session_factory) as uow:
        await bank.events.append([paid("a")], uow=uow)
        await bank.events.append([paid("b")], uow=uow)
        assert await notes() == 0
        await uow.commit()
        assert await notes() >= 1


async def test_a_rolled_back_unit_of_work_announces_nothing(bank, postgresql):
    """What was not committed is no news, even when the unit of work commits something else later."""
    async with heard(postgresql) as notes:
        async with SQLAlchemyUnitOfWork(bank.session_factory) as uow:
            await bank.events.append([paid("a")], uow=uow)
            await uow.rollback()
            await bank.positions.save_position("other", 1, uow=uow)
            await uow.commit()
        with pytest.raises(ZeroDivisionError):
            await _append_and_fail(bank)
        assert await notes() == 0
        await bank.append(paid("a"))
        assert await notes() == 1


async def _append_and_fail(bank):
    async with SQLAlchemyUnitOfWork(bank.session_factory) as uow:
        await bank.events.append([paid("a")], uow=uow)
        raise ZeroDivisionError


async def test_a_refused_append_announces_nothing(bank, postgresql):
    """An empty append and one that ends in a conflict are no news."""
    await bank.append(paid("a"))
    async with heard(postgresql) as notes:
        assert await bank.events.append([]) == []
        with pytest.raises(Exception, match="expected version 0, found 1"):
            await bank.events.append([paid("a")], expected_version=0)
        assert await notes() == 0


async def test_behind_a_proxy_that_pools_nobody_listens(bank, postgresql_engine):
    """On an engine that is configured so a runner polls, and no session that others may get is left listening."""
    configure_engine(postgresql_engine, transaction_pooling=True)
    statements = []
    sent = sa.event.listens_for(postgresql_engine.sync_engine, "before_cursor_execute")
    sent(lambda _connection, _cursor, statement, *_: statements.append(statement))
    async with running(bank.runner()):
        for n in range(1, 3):
            (position,) = await bank.append(paid("a"))
            await has_reached(bank, position)
            assert (await bank.totals())["a"] == (n, n)
        assert await _nobody_listens(bank)
    assert any("pg_notify" in statement for statement in statements)


async def test_sqlite_has_no_notifications(sqlite_bank):
    """With notify=True SQLite appends as ever, inside and outside of units of work, and runners poll."""
    bank = sqlite_bank
    bank.events = SQLAlchemyEventStore(bank.session_factory, notify=True)
    async with running(bank.runner()):
        await bank.append(paid("a"))
        async with bank.uow() as uow:
            (event,) = await bank.events.append([paid("a")], uow=uow)
        await has_reached(bank, event.position)
    assert await bank.totals() == {"a": (2, 2)}
