"""What a runner promises: rows and position in one transaction, over one connection, until it is stopped."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_advanced_core.projections.projection import Projection
from cqrs_ddd_persistence_sqlalchemy import configure_engine
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionPositionStore
from cqrs_ddd_persistence_sqlalchemy.advanced.models import projection_runs
from cqrs_ddd_persistence_sqlalchemy.exceptions import ProjectionPausedError
from tests.advanced.running.conftest import (
    ACCOUNTS,
    LONG,
    PATIENCE_SECONDS,
    Bank,
    Failing,
    Gate,
    accounts,
    count,
    other,
    paid,
    running,
    soon,
)
from tests.support.engines import check_no_leaks, create_async_engine
from tests.support.waiting import until


async def test_without_events_there_is_nothing_to_do(bank):
    """catch_up() of an empty store is at 0 and saves nothing."""
    assert await bank.runner().catch_up() == 0
    assert await bank.position() is None


async def test_an_event_is_applied_once(bank):
    """A second catch_up() applies what came since, and nothing twice."""
    await bank.append(paid("a"))
    runner = bank.runner()
    assert await runner.catch_up() == 1
    assert await runner.catch_up() == 1
    await bank.append(paid("a"))
    assert await bank.runner().catch_up() == 2
    assert await bank.totals() == {"a": (2, 2)}


async def test_catch_up_tells_of_its_progress(bank):
    """At the beginning and after each batch it calls back with the position reached and the one to reach."""
    await bank.append(*(paid("a") for _ in range(5)))
    told = []
    assert await bank.runner(batch_size=2).catch_up(lambda *at: told.append(at)) == 5
    assert told == [(0, 5), (2, 5), (4, 5), (5, 5)]


async def test_catch_up_goes_as_far_as_there_were_events_when_it_began(bank):
    """Events that come while it works do not keep it from its end."""

    async def pay_again(event, view):
        await count(event, view)
        if event.position < 20:
            await bank.events.append([paid("a")], uow=view.uow)

    await bank.append(paid("a"))
    assert await bank.runner(accounts(pay_again), batch_size=1).catch_up() == 1
    assert await bank.totals() == {"a": (1, 1)}


@pytest.mark.parametrize("batch_size", [1, 3, 500])
async def test_events_of_other_types_move_the_position(bank, batch_size):
    """The position goes past what the projection has no handlers for, before, between and after its own events."""
    await bank.append(other(), other(), paid("a"), other(), paid("a"), other(), other(), other())
    assert await soon(bank.runner(batch_size=batch_size).catch_up()) == 8
    assert await bank.position() == 8
    assert await bank.totals() == {"a": (2, 2)}


async def test_rows_and_position_commit_together(bank):
    """In each transaction of the projection's, the position is that of the events in the rows."""
    gates = [Gate(writes_first=True) for _ in range(3)]

    async def handler(event, view):
        await gates[event.position - 1](event, view)

    await bank.append(*(paid("a") for _ in gates))
    task = asyncio.create_task(bank.runner(accounts(handler), batch_size=1).catch_up())
    for done, gate in enumerate(gates):
        await soon(gate.reached.wait())
        assert (await bank.totals()).get("a", (0, 0)) == (done, done)
        assert (await bank.position() or 0) == done
        gate.open.set()
    assert await soon(task) == 3


async def test_without_its_position_a_batch_leaves_no_rows(bank):
    """Rows whose position cannot be saved are rolled back, and applied once by the next runner."""

    class Broken(SQLAlchemyProjectionPositionStore):
        async def save_position(self, *_, **__):
            raise ZeroDivisionError

    await bank.append(paid("a"))
    with pytest.raises(ZeroDivisionError):
        await bank.runner(positions=Broken(bank.session_factory)).catch_up()
    assert await bank.totals() == {}
    assert await bank.runner().catch_up() == 1
    assert await bank.totals() == {"a": (1, 1)}


async def test_a_batch_that_fails_leaves_neither_rows_nor_position(bank):
    """Of the batch with the failing event nothing is left; what is before it comes in a batch of its own."""
    await bank.append(paid("a", 1), paid("a", 99))
    with pytest.raises(ProjectionPausedError, match="ValueError: no such currency"):
        await bank.runner(accounts(Failing({99: 9})), max_attempts=1).catch_up()
    assert await bank.totals() == {"a": (1, 1)}
    assert await bank.position() == 1


async def test_another_store_joins_the_batch(bank):
    """What a handler writes with view.uow commits with the batch, and rolls back with it."""
    names = SQLAlchemyProjectionPositionStore()
    failing = Failing({99: 9})

    async def handler(event, view):
        await names.save_position("audit", event.position, uow=view.uow)
        await bank.events.append([other("log")], uow=view.uow)
        await failing(event, view)

    await bank.append(paid("a", 1), paid("a", 99))
    with pytest.raises(ProjectionPausedError):
        await bank.runner(accounts(handler), max_attempts=1).catch_up()
    assert await bank.positions.all_positions() == {"accounts": 1, "audit": 1}
    assert len(await bank.events.get_events("log")) == 1
    failing.left.clear()
    await bank.control.resume("accounts")
    await bank.runner(accounts(handler)).catch_up()
    assert (await bank.positions.all_positions())["audit"] == 2
    assert len(await bank.events.get_events("log")) == 2


async def test_run_keeps_up_and_stop_ends_it(bank):
    """run() applies events as they come, until stop()."""
    async with running(bank.runner()) as (task,):
        for amount in (1, 2, 4):
            (position,) = await bank.append(paid("a", amount))
            await bank.positions.wait_for("accounts", position, timeout=PATIENCE_SECONDS)
        assert not task.done()
    assert await bank.totals() == {"a": (7, 3)}
    assert (await bank.status()).state == "stopped"


async def test_a_stopped_runner_runs_again(bank):
    """After stop() the same runner can be started again."""
    runner = bank.runner()
    for _ in range(2):
        (position,) = await bank.append(paid("a"))
        async with running(runner):
            await bank.positions.wait_for("accounts", position, timeout=PATIENCE_SECONDS)
    assert await bank.totals() == {"a": (2, 2)}


async def test_stop_before_run_has_begun_is_not_lost(bank):
    """A runner that is stopped before its task had a chance to begin returns all the same."""
    runner = bank.runner()
    task = asyncio.create_task(runner.run())
    runner.stop()
    done, _ = await asyncio.wait([task], timeout=1)
    runner.stop()
    await soon(task)
    assert done == {task}


async def test_stop_lets_the_batch_end(bank):
    """The batch under way commits whole, the next one is not begun, and the lease is free."""
    gate = Gate()
    runner = bank.runner(accounts(gate), batch_size=2)
    await bank.append(paid("a"), paid("a"), paid("a"))
    async with running(runner) as (task,):
        await soon(gate.reached.wait())
        runner.stop()
        gate.open.set()
        await soon(task)
    assert await bank.totals() == {"a": (2, 2)}
    assert await bank.position() == 2
    assert (await bank.status()).owner is None


async def test_stop_wakes_a_runner_that_waits(bank):
    """stop() does not wait for the next look for events, nor for the next attempt."""
    idle = bank.runner(poll_interval=LONG)
    await bank.append(paid("a"))
    async with running(idle) as (task,):
        await bank.positions.wait_for("accounts", 1, timeout=PATIENCE_SECONDS)
        idle.stop()
        await soon(task)
    failing = bank.runner(accounts(Failing({1: 9})), backoff=LONG)
    await bank.append(paid("a"))
    async with running(failing):
        await until(lambda: bank.value(sa.select(projection_runs.c.failures)))


@pytest.mark.parametrize("writes_first", [False, True])
@pytest.mark.parametrize("method", ["run", "catch_up"])
async def test_a_cancelled_batch_leaves_nothing(bank, method, writes_first):
    """A task that is cancelled in a handler leaves no row and no position, and gives the lease back."""
    gate = Gate(writes_first=writes_first)
    await bank.append(paid("a"))
    task = asyncio.create_task(getattr(bank.runner(accounts(gate), lease=LONG), method)())
    await soon(gate.reached.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(task)
    assert await bank.totals() == {}
    assert await bank.position() is None
    assert (await bank.status()).owner is None
    assert await bank.runner().catch_up() == 1
    assert await bank.totals() == {"a": (1, 1)}


async def test_one_connection_is_enough(database):
    """With a pool of one connection neither catch_up() nor run() waits for a second one."""
    options = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 5}
    engine = configure_engine(create_async_engine(database.url, **options))
    bank = Bank(async_sessionmaker(engine, expire_on_commit=False))
    await bank.make(ACCOUNTS)
    await bank.append(paid("a"), paid("b"), other())
    assert await soon(bank.runner(accounts(count), batch_size=1).catch_up()) == 3
    (position,) = await bank.append(paid("a"))
    async with running(bank.runner(lease=timedelta(milliseconds=300))):
        await bank.positions.wait_for("accounts", position, timeout=PATIENCE_SECONDS)
        since = await bank.lease_until()
        await until(lambda: _later_than(bank, since))
    assert await bank.totals() == {"a": (2, 2), "b": (1, 1)}
    await check_no_leaks(engine)


async def _later_than(bank, since):
    return await bank.lease_until() > since


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, r"batch_size is 0: it is at least 1"),
        ({"batch_size": -1}, r"batch_size must be a whole number"),
        ({"batch_size": 1.5}, r"batch_size must be a whole number"),
        ({"batch_size": True}, r"batch_size must be a whole number"),
        ({"max_attempts": 0}, r"max_attempts is 0: it is at least 1"),
        ({"max_attempts": None}, r"max_attempts must be a whole number"),
        ({"lease": timedelta(0)}, r"lease is a timedelta above 0"),
        ({"lease": 30}, r"lease is a timedelta above 0, not 30"),
        ({"poll_interval": timedelta(seconds=-1)}, r"poll_interval is a timedelta above 0"),
        ({"poll_interval": 0.5}, r"poll_interval is a timedelta above 0, not 0.5"),
        ({"backoff": timedelta(0)}, r"backoff is a timedelta above 0"),
        ({"on_failure": "skip"}, r"on_failure is 'pause' or 'park', not 'skip'"),
        ({"schema": "x; DROP TABLE y"}, r"Invalid SQL schema name: 'x; DROP TABLE y'"),
        ({"owner": "x" * 256}, r"owner has 256 characters"),
        ({"owner": "a\0b"}, r"owner"),
        ({"projection": Projection("accounts", ACCOUNTS)}, r"projection 'accounts' has no handlers"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(f"{key}={each!r:.20}" for key, each in value.items()),
)
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    """The constructor names the argument and what it takes."""
    with pytest.raises(ValueError, match=message):
        Bank(None).runner(**arguments)
