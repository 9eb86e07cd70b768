"""One owner at a time: leases are given, renewed, lost and given back, by the database's clock."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy.exceptions import LeaseLostError
from tests.advanced.running.conftest import (
    LONG,
    PATIENCE_SECONDS,
    Gate,
    accounts,
    count,
    paid,
    running,
    soon,
)
from tests.support.waiting import until


async def is_taken(bank):
    """Ask for the lease, in vain."""
    return await bank.leases("another", LONG).acquire() is None


async def owner_is(bank, owner):
    await until(lambda: _is_owner(bank, owner))


async def _is_owner(bank, owner):
    return [status.owner for status in await bank.control.status()] == [owner]


async def _over(bank, moment):
    return await bank.now() > moment


async def test_one_works_and_the_other_takes_over_after_its_stop(bank):
    """Of two runners one applies events; the other goes on where that one has stopped."""
    first, second = bank.runner(owner="first"), bank.runner(owner="second")
    async with running(second):
        await owner_is(bank, "second")
        async with running(first):
            (position,) = await bank.append(paid("a"))
            await bank.positions.wait_for("accounts", position, timeout=PATIENCE_SECONDS)
            assert (await bank.status()).owner == "second"
            second.stop()
            await owner_is(bank, "first")
            (position,) = await bank.append(paid("a"))
            await bank.positions.wait_for("accounts", position, timeout=PATIENCE_SECONDS)
    assert await bank.totals() == {"a": (2, 2)}


async def test_many_runners_apply_each_event_once(bank):
    """However many runners there are and however they come and go, each event is applied once."""
    runners = [bank.runner(accounts(count), batch_size=2) for _ in range(4)]
    async with running(*runners):
        for n, runner in enumerate(runners, start=1):
            positions = await bank.append(*(paid("a") for _ in range(5)))
            await bank.positions.wait_for("accounts", positions[-1], timeout=PATIENCE_SECONDS)
            if n < len(runners):
                runner.stop()
    assert await bank.totals() == {"a": (20, 20)}


async def test_the_lease_of_a_dead_owner_runs_out(bank):
    """A runner that died without a word is succeeded when its lease is over, and not before."""
    await bank.append(paid("a"))
    dead = await bank.leases("dead", timedelta(seconds=0.5)).acquire()
    over = await bank.lease_until()
    assert await is_taken(bank)
    taken_at = []

    async def handler(event, view):
        taken_at.append(await bank.now())
        await count(event, view)

    async with running(bank.runner(accounts(handler), owner="heir")):
        await bank.positions.wait_for("accounts", 1, timeout=PATIENCE_SECONDS)
        assert (await bank.status()).owner == "heir"
    assert taken_at[0] >= over
    with pytest.raises(LeaseLostError, match="the lease of projection 'accounts' is lost"):
        await bank.leases("dead", LONG).renew(dead)


async def test_tokens_only_grow(bank):
    """Each owner has a higher token than the one before, also after a release."""
    tokens = []
    for owner in ("a", "b", "a"):
        leases = bank.leases(owner, LONG)
        lease = await leases.acquire()
        tokens.append(lease.token)
        await leases.release(lease)
    assert tokens == [1, 2, 3]


async def test_a_lost_lease_cannot_be_given_back(bank):
    """What a former owner releases, notes or pauses late leaves the new owner's lease alone."""
    old, new = bank.leases("old", LONG), bank.leases("new", LONG)
    lost = await old.acquire()
    await bank.expire()
    await new.acquire()
    await old.release(lost)
    for late in (old.renew(lost), old.note_failure(lost, 1, "late"), old.pause(lost)):
        with pytest.raises(LeaseLostError):
            await late
    status = await bank.status()
    assert (status.state, status.owner, status.error, status.failures) == ("running", "new", None, 0)


async def test_an_owner_gets_its_own_lease_again(bank):
    """An owner whose release the database did not hear need not wait for itself."""
    first = await bank.leases("me", LONG).acquire()
    again = await bank.leases("me", LONG).acquire()
    assert (first.token, again.token) == (1, 2)
    assert await bank.leases("you", LONG).acquire() is None


async def test_of_many_that_ask_one_gets_the_lease(bank):
    """Ten that ask at once for the first lease, or for one that is over, find exactly one winner."""
    for _ in range(2):
        asked = [bank.leases(f"owner {n}", LONG).acquire() for n in range(10)]
        leases = await asyncio.gather(*asked)
        assert sum(lease is not None for lease in leases) == 1
        await bank.expire()


class _Slow:
    """An event store whose reader waits with what it has read."""

    def __init__(self, bank):
        self._events = bank.events
        self.reached, self.open = asyncio.Event(), asyncio.Event()

    async def last_position(self):
        return await self._events.last_position()

    async def get_events_after(self, position, **options):
        page = await self._events.get_events_after(position, **options)
        self.reached.set()
        await self.open.wait()
        return page


async def _taken_over(bank, old, waiting, method, caplog):
    """Let somebody else take over and end while one waits in its batch, which is then lost."""
    caplog.set_level(logging.WARNING)
    await bank.append(paid("a", 1), paid("b", 2))
    task = asyncio.create_task(getattr(old, method)())
    await soon(waiting.reached.wait())
    await bank.expire()
    assert await soon(bank.runner(accounts(count)).catch_up()) == 2
    waiting.open.set()
    if method == "catch_up":
        assert await soon(task) == 2
        assert await bank.totals() == {"a": (1, 1), "b": (2, 1)}
        return
    (position,) = await bank.append(paid("a", 4))
    await bank.positions.wait_for("accounts", position, timeout=PATIENCE_SECONDS)
    assert "the lease of projection 'accounts' is lost" in caplog.text
    old.stop()
    await soon(task)
    assert await bank.totals() == {"a": (5, 2), "b": (2, 1)}


@pytest.mark.parametrize("method", ["run", "catch_up"])
async def test_a_batch_whose_lease_is_lost_is_rolled_back(bank, method, caplog):
    """Somebody takes over between the reading of a page and its batch: the new owner's work stands, once."""
    slow = _Slow(bank)
    old = bank.runner(accounts(count), events=slow)
    await _taken_over(bank, old, slow, method, caplog)


@pytest.mark.parametrize("method", ["run", "catch_up"])
async def test_a_lease_that_is_lost_in_the_middle_of_a_batch(postgresql_bank, method, caplog):
    """The same while a handler waits; on PostgreSQL only, as SQLite's batch keeps everybody out from its beginning."""
    gate = Gate()
    await _taken_over(postgresql_bank, postgresql_bank.runner(accounts(gate)), gate, method, caplog)


async def test_a_batch_that_has_written_loses_to_the_new_owner(postgresql_bank):
    """PostgreSQL only, as SQLite lets nobody in: the new owner waits for the old one's rows and finds none of them."""
    bank, gate = postgresql_bank, Gate(writes_first=True)
    await bank.append(paid("a", 1), paid("b", 2))
    old = asyncio.create_task(bank.runner(accounts(gate), owner="old").catch_up())
    await soon(gate.reached.wait())
    await bank.expire()
    new = asyncio.create_task(bank.runner(accounts(count), owner="new").catch_up())
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    await until(lambda: bank.value(sa.text(waiting)))
    gate.open.set()
    assert await soon(old) == 2
    assert await soon(new) == 2
    assert await bank.totals() == {"a": (1, 1), "b": (2, 1)}


async def test_on_sqlite_nobody_takes_over_from_a_batch_that_has_written(sqlite_bank, sqlite_engine):
    """SQLite only: the write lock keeps the lease beyond its end, and the batch that commits has renewed it."""
    bank, gate = sqlite_bank, Gate(writes_first=True)
    await bank.append(paid("a", 1))
    old = asyncio.create_task(bank.runner(accounts(gate), lease=timedelta(seconds=0.5)).catch_up())
    await soon(gate.reached.wait())
    over = await bank.lease_until()
    await until(lambda: _over(bank, over))
    begun = []
    sa.event.listen(sqlite_engine.sync_engine, "before_cursor_execute", lambda *args: begun.append(args[2]))
    new = asyncio.create_task(bank.runner(accounts(count)).catch_up())
    while "BEGIN IMMEDIATE" not in begun:  # noqa: ASYNC110  (another thread waits for the lock)
        await asyncio.sleep(0.005)
    gate.open.set()
    assert await soon(old) == 1
    assert await soon(new) == 1
    assert await bank.totals() == {"a": (1, 1)}


@pytest.mark.parametrize("writes_first", [False, True], ids=["waits first", "writes first"])
async def test_a_batch_may_take_longer_than_the_lease(bank, writes_first):
    """The lease is renewed beside a long batch, so that nobody takes over from an owner who lives."""
    gate = Gate(writes_first=writes_first)
    await bank.append(paid("a"))
    task = asyncio.create_task(bank.runner(accounts(gate), lease=timedelta(seconds=0.6), owner="slow").catch_up())
    await soon(gate.reached.wait())
    over = await bank.lease_until()
    await until(lambda: _over(bank, over + timedelta(seconds=0.3)))
    try:
        if bank.kind == "postgresql":  # SQLite's write lock is held: whoever asks has to wait for the batch
            assert await is_taken(bank)
    finally:
        gate.open.set()
        await asyncio.wait([task])
    assert task.result() == 1
    assert await bank.totals() == {"a": (1, 1)}


async def test_an_idle_runner_keeps_its_lease(bank):
    """Without any event the lease is renewed all the same."""
    async with running(bank.runner(lease=timedelta(seconds=0.3), poll_interval=LONG, owner="idle")):
        await owner_is(bank, "idle")
        first = await bank.lease_until()
        await until(lambda: _over(bank, first + timedelta(seconds=0.3)))
        assert (await bank.status()).state == "running"
        assert await is_taken(bank)


async def test_release_frees_the_lease_at_once(bank):
    """After an orderly end the next owner need not wait for the lease to run out."""
    await bank.append(paid("a"))
    await bank.runner(lease=LONG).catch_up()
    assert await bank.lease_until() is None
    assert await bank.runner(lease=LONG, owner="next").catch_up() == 1


async def test_the_machines_clock_plays_no_part(bank, engine):
    """Leases begin and end by the database's clock: no statement about them carries a time of this process."""
    sent = []
    sa.event.listen(engine.sync_engine, "before_cursor_execute", lambda *args: sent.append((args[2], args[3])))
    before = await bank.now()
    leases = bank.leases("me", timedelta(seconds=100))
    lease = await leases.acquire()
    assert before + timedelta(seconds=99.9) <= await bank.lease_until() <= await bank.now() + timedelta(seconds=100.1)
    between = await bank.now()
    await leases.renew(lease)
    assert between + timedelta(seconds=99.9) <= await bank.lease_until()
    await leases.note_failure(lease, 1, "x")
    await leases.pause(lease)
    about = [parameters for statement, parameters in sent if "projection_runs" in statement]
    assert len(about) >= 6
    times = [value for each in about for value in each if isinstance(value, datetime) or str(value).startswith("20")]
    assert times == []
