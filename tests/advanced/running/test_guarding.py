"""Work under a lease has ended when whoever waits for it goes on, whichever way it has ended."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from time import monotonic

import pytest

from cqrs_ddd_persistence_sqlalchemy.advanced.running.guarding import Guard
from cqrs_ddd_persistence_sqlalchemy.exceptions import LeaseLostError


def a_guard():
    return Guard("saga", "s1", timedelta(seconds=60), monotonic())


async def taken():
    """Renew what somebody else has."""
    raise LeaseLostError("saga", ("s1",))


async def renewed():
    """Renew."""


class Work:
    """Waits for ever, or until it was cancelled so many times, and then for as many turns of the loop."""

    def __init__(self, *, swallows: int = 0, turns: int = 0) -> None:
        self.begun = asyncio.Event()
        self.has_ended = False
        self._swallows = swallows
        self._turns = turns

    async def run(self):
        try:
            for _ in range(self._swallows):
                self.begun.set()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    for _ in range(self._turns):
                        await asyncio.sleep(0)
            if not self._swallows:
                self.begun.set()
                await asyncio.Event().wait()
        finally:
            self.has_ended = True


@pytest.mark.parametrize("swallows", [0, 1])
async def test_a_lost_lease_ends_the_work(swallows):
    """Whatever it makes of its cancellation; and whoever had it done is not cancelled, and goes on."""
    work = Work(swallows=swallows, turns=3)
    with pytest.raises(LeaseLostError):
        await a_guard().run(work.run(), taken, every_seconds=0.001)
    assert work.has_ended
    assert asyncio.current_task().cancelling() == 0
    await asyncio.sleep(0)


async def test_a_renewal_that_fails_for_good_ends_the_work():
    """With its error."""

    async def renew():
        raise LookupError("no such saga")

    work = Work()
    with pytest.raises(LookupError, match="no such saga"):
        await a_guard().run(work.run(), renew, every_seconds=0.001)
    assert work.has_ended
    assert asyncio.current_task().cancelling() == 0


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("swallows", [0, 1, 2])
async def test_a_task_that_is_cancelled_has_ended_its_work(times, swallows):
    """However often it is cancelled, and whatever the work makes of it; the task counts as cancelled."""
    work = Work(swallows=swallows, turns=1)
    task = asyncio.create_task(a_guard().run(work.run(), renewed, every_seconds=0.001))
    await work.begun.wait()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    if times >= swallows:
        await asyncio.wait([task])
        assert task.cancelled()
        assert work.has_ended
    else:  # it goes on until it is cancelled once more
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


async def test_cancelled_and_lost_at_once():
    """Who is cancelled is cancelled."""
    work, losing = Work(swallows=1, turns=20), asyncio.Event()

    async def renew():
        losing.set()
        raise LeaseLostError("saga", ("s1",))

    task = asyncio.create_task(a_guard().run(work.run(), renew, every_seconds=0.001))
    await losing.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert work.has_ended


async def test_work_that_cancels_itself():
    """It is an error of its own, and not somebody's wish."""

    async def work():
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="cancelled from inside"):
        await a_guard().run(work(), renewed)
    await asyncio.sleep(0)


async def test_what_the_work_raises_passes():
    """And nothing is renewed afterwards."""
    renewals = []

    async def renew():
        renewals.append(1)

    async def work():
        await asyncio.sleep(0.02)
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await a_guard().run(work(), renew, every_seconds=0.001)
    count = len(renewals)
    assert count > 0
    await asyncio.sleep(0.01)
    assert len(renewals) == count


class Stop(BaseException):
    pass


async def test_nothing_is_renewed_after_whatever_the_work_raises():
    """Be it no Exception."""
    renewals = []

    async def renew():
        renewals.append(1)

    async def work():
        await asyncio.sleep(0.02)
        raise Stop

    with pytest.raises(Stop):
        await a_guard().run(work(), renew, every_seconds=0.001)
    count = len(renewals)
    await asyncio.sleep(0.01)
    assert len(renewals) == count


async def test_work_that_is_left_has_its_lease_end():
    """Though it goes on."""
    work, guard, renewals = Work(swallows=2), a_guard(), []

    async def renew():
        renewals.append(1)

    task = asyncio.create_task(guard.run(work.run(), renew, every_seconds=0.001))
    await work.begun.wait()
    guard.leave()
    task.cancel()
    await asyncio.sleep(0.005)
    count = len(renewals)
    await asyncio.sleep(0.01)
    assert not task.done()
    assert len(renewals) == count
    task.cancel()
    await asyncio.wait([task])


async def test_renewals_that_fail_at_once_lose_the_lease():
    """As those that hang do."""
    guard = Guard("saga", "s1", timedelta(milliseconds=50), monotonic())

    async def renew():
        raise OSError("no network")

    with pytest.raises(LeaseLostError):
        await guard.run(Work().run(), renew, every_seconds=0.001)
