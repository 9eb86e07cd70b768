"""Waiting until a projection has come as far as what one has written oneself."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta

import pytest

from cqrs_ddd_persistence_sqlalchemy.exceptions import (
    PersistenceError,
    ProjectionPausedError,
    ProjectionWaitError,
)
from tests.advanced.running.conftest import (
    LONG,
    PATIENCE_SECONDS,
    Failing,
    accounts,
    paid,
    running,
    soon,
)


async def test_a_position_that_is_reached_is_returned_at_once(bank):
    """Without any time to wait the position is returned that the projection has, if it is as far."""
    await bank.append(paid("a"), paid("a"))
    await bank.runner().catch_up()
    for wanted in (0, 1, 2):
        assert await bank.positions.wait_for("accounts", wanted, timeout=0) == 2


async def test_everything_is_at_the_beginning(bank):
    """Position 0 is reached by a projection that nobody has ever run."""
    assert await bank.positions.wait_for("accounts", 0, timeout=0) == 0


@pytest.mark.parametrize("patience", [PATIENCE_SECONDS, timedelta(seconds=PATIENCE_SECONDS)])
async def test_it_waits_for_a_runner(bank, patience):
    """What was just appended is in the rows when wait_for() returns."""
    async with running(bank.runner()):
        for n in range(1, 6):
            (position,) = await bank.append(paid("a"))
            assert await bank.positions.wait_for("accounts", position, timeout=patience) == position
            assert await bank.totals() == {"a": (n, n)}


async def test_a_runner_waits_too(bank):
    """The runner's wait_for() is that of its positions, for any projection."""
    await bank.positions.save_position("others", 7)
    runner = bank.runner()
    assert await runner.wait_for("others", 7, timeout=timedelta(0)) == 7
    with pytest.raises(ProjectionWaitError):
        await runner.wait_for("others", 8, timeout=0)


@pytest.mark.parametrize("patience", [0, 0.05, timedelta(milliseconds=50)])
async def test_a_projection_that_nobody_runs(bank, patience):
    """In the end the error says that nobody runs it, and where it is."""
    await bank.append(paid("a"), paid("a"))
    await bank.runner().catch_up()
    (position,) = await bank.append(paid("a"))
    with pytest.raises(ProjectionWaitError, match=r"'accounts' is at 2, not yet at 3; nobody runs it") as raised:
        await bank.positions.wait_for("accounts", position, timeout=patience)
    error = raised.value
    assert (error.projection_name, error.position, error.reached, error.state) == ("accounts", 3, 2, "not running")
    assert isinstance(error, TimeoutError)
    assert isinstance(error, PersistenceError)


async def test_a_projection_that_nobody_knows(bank):
    """A name without position or lease is not running, and at 0."""
    with pytest.raises(ProjectionWaitError) as raised:
        await bank.positions.wait_for("typo", 1, timeout=0)
    assert (raised.value.reached, raised.value.state) == (0, "not running")


async def test_a_projection_that_is_behind(bank):
    """While somebody holds the lease the error says that it takes longer."""
    await bank.leases("busy", LONG).acquire()
    with pytest.raises(ProjectionWaitError, match=r"is at 0, not yet at 1; it is behind: wait longer") as raised:
        await bank.positions.wait_for("accounts", 1, timeout=0.05)
    assert raised.value.state == "behind"


async def test_a_lease_that_is_over_is_nobodys(bank):
    """An owner who died counts as nobody once the lease is over."""
    await bank.leases("dead", LONG).acquire()
    await bank.expire()
    with pytest.raises(ProjectionWaitError) as raised:
        await bank.positions.wait_for("accounts", 1, timeout=0)
    assert raised.value.state == "not running"


async def test_a_paused_projection_is_not_waited_for(bank):
    """Before the event that it is paused at, the error comes at once, with position and cause."""
    await bank.append(paid("a"), paid("a", 99), paid("a"))
    with pytest.raises(ProjectionPausedError):
        await bank.runner(accounts(Failing({99: 9})), max_attempts=2).catch_up()
    assert await bank.positions.wait_for("accounts", 1, timeout=0) == 1
    for wanted in (2, 3):
        with pytest.raises(ProjectionPausedError, match=r"paused at position 2: ValueError: no such cur") as raised:
            await soon(bank.positions.wait_for("accounts", wanted, timeout=LONG))
        error = raised.value
        assert (error.projection_name, error.position) == ("accounts", 2)
        assert error.error == "ValueError: no such currency"


async def test_a_pause_by_hand_has_no_position(bank):
    """Somebody who paused the projection is no event: the error says paused and nothing of a position."""
    await bank.append(paid("a"))
    await bank.runner().catch_up()
    await bank.control.pause("accounts")
    assert await bank.positions.wait_for("accounts", 1, timeout=0) == 1
    with pytest.raises(ProjectionPausedError, match=r"'accounts' is paused; when that is mended") as raised:
        await soon(bank.positions.wait_for("accounts", 2, timeout=LONG))
    assert (raised.value.position, raised.value.error) == (None, None)


async def test_a_pause_ends_the_waiting(bank):
    """Who waits when the projection is paused is told then."""
    await bank.leases("busy", LONG).acquire()
    task = asyncio.create_task(bank.positions.wait_for("accounts", 1, timeout=LONG))
    await bank.control.pause("accounts")
    with pytest.raises(ProjectionPausedError):
        await soon(task)


@pytest.mark.parametrize("patience", [-1, timedelta(seconds=-1), math.inf, math.nan, "soon", None])
async def test_a_timeout_that_is_none_is_refused(bank, patience):
    """A timeout is a timedelta or a number of seconds, from 0 on."""
    with pytest.raises(ValueError, match=r"timeout is .*: give a timedelta, or seconds"):
        await bank.positions.wait_for("accounts", 1, timeout=patience)


@pytest.mark.parametrize("position", [-1, 1.5, True, "1", None, 2**63])
async def test_what_is_no_position_is_refused(bank, position):
    """Positions are whole numbers."""
    with pytest.raises(ValueError, match="position must be a whole number"):
        await bank.positions.wait_for("accounts", position, timeout=0)


@pytest.mark.parametrize("name", ["", "x" * 256, None])
async def test_what_is_no_name_is_refused(bank, name):
    """Names are text of 1 to 255 characters."""
    with pytest.raises(ValueError, match="projection_name"):
        await bank.positions.wait_for(name, 1, timeout=0)
