"""What the person on call sees, and can do."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyDeadLetterStore, SQLAlchemyProjectionControl
from cqrs_ddd_persistence_sqlalchemy.advanced.models import projection_runs
from cqrs_ddd_persistence_sqlalchemy.exceptions import (
    ProjectionPausedError,
    SchemaOutOfDateError,
)
from tests.advanced.running.conftest import (
    LONG,
    PATIENCE_SECONDS,
    Failing,
    Gate,
    accounts,
    other,
    paid,
    running,
    soon,
)
from tests.support.engines import check_no_leaks, create_async_engine
from tests.support.waiting import until


async def test_without_projections_there_is_nothing_to_show(bank):
    """The list is empty until something has a position or was run."""
    await bank.append(paid("a"))
    assert await bank.control.status() == []


async def test_a_projection_that_is_up_to_date(bank):
    """At the newest event nothing lags, and everything else is at rest."""
    await bank.append(paid("a"), other())
    before = await bank.now()
    await bank.runner().catch_up()
    status = await bank.status()
    assert before - timedelta(seconds=1) <= status.updated_at <= await bank.now()
    assert status.updated_at.utcoffset() == timedelta(0)
    assert (status.name, status.position, status.lag_events, status.lag_seconds) == ("accounts", 2, 0, 0.0)
    assert (status.state, status.owner, status.parked) == ("stopped", None, 0)
    assert (status.error, status.error_position, status.failures) == (None, None, 0)


async def test_a_projection_that_is_behind(bank):
    """The lag is how many positions it is behind, and how old the oldest event of those is."""
    await bank.append(paid("a"))
    await bank.runner().catch_up()
    await bank.append(paid("a"))
    (first,) = await bank.events.get_events_after(1)
    await bank.append(paid("a"), paid("a"))
    since = first.recorded_at + timedelta(milliseconds=200)
    await until(lambda: _later(bank, since))
    before = await bank.now()
    status = await bank.status()
    age = status.lag_seconds
    assert (status.position, status.lag_events) == (1, 3)
    assert 0.19 <= (before - first.recorded_at).total_seconds() - 0.01 <= age
    assert age <= (await bank.now() - first.recorded_at).total_seconds() + 0.01


async def _later(bank, moment):
    return await bank.now() > moment


async def test_the_states(bank):
    """Running is who has a lease that is not over; paused is paused; all else is stopped."""
    states = []
    lease = await bank.leases("me", LONG).acquire()
    states.append(await bank.status())
    await bank.leases("me", LONG).release(lease)
    states.append(await bank.status())
    await bank.leases("you", LONG).acquire()
    states.append(await bank.status())
    await bank.expire()
    states.append(await bank.status())
    await bank.control.pause("accounts")
    states.append(await bank.status())
    assert [status.state for status in states] == ["running", "stopped", "running", "stopped", "paused"]
    assert [states[n].owner for n in (0, 1, 2, 4)] == ["me", None, "you", None]
    assert [(status.position, status.updated_at) for status in states] == [(0, None)] * 5


async def test_who_has_let_the_lease_run_out_is_no_owner(bank):
    """`owner` is who holds the lease: when it is over, that is nobody."""
    await bank.leases("dead", LONG).acquire()
    await bank.expire()
    assert (await bank.status()).owner is None


async def test_a_failure_is_shown_until_it_is_overcome(bank):
    """Error, position and attempts are there while the event is tried again, and gone when it has succeeded."""
    failing = Failing({99: 3})
    await bank.append(paid("a"), paid("a", 99))
    async with running(bank.runner(accounts(failing), batch_size=1, max_attempts=9, backoff=LONG)):
        await until(lambda: bank.value(sa.select(projection_runs.c.failures)))
        status = await bank.status()
    assert (status.state, status.position, status.error_position, status.failures) == ("running", 1, 2, 1)
    assert status.error == "ValueError: no such currency"
    await bank.runner(accounts(failing), batch_size=1).catch_up()
    status = await bank.status()
    assert (status.position, status.error, status.error_position, status.failures) == (2, None, None, 0)


async def test_parked_events_are_counted(bank):
    """`parked` is how many events the projection went on without, those behind others included."""
    await bank.append(paid("a", 99), paid("a"), paid("b"))
    await bank.runner(accounts(Failing({99: 9})), max_attempts=1, on_failure="park").catch_up()
    await bank.positions.save_position("other", 1)
    assert [(status.name, status.parked) for status in await bank.control.status()] == [("accounts", 2), ("other", 0)]


async def test_projections_are_listed_by_name(bank):
    """Those with a position alone, those that were only run, and those with both, each once."""
    await bank.append(paid("a"), paid("a"))
    await bank.positions.save_position("b", 1)
    await bank.leases("me", LONG).acquire()
    await bank.positions.save_position("a", 2)
    await bank.positions.save_position("accounts", 1)
    await bank.positions.save_position("ahead", 9)
    found = [(status.name, status.position, status.lag_events, status.state) for status in await bank.control.status()]
    assert found == [
        ("a", 2, 0, "stopped"),
        ("accounts", 1, 1, "running"),
        ("ahead", 9, 0, "stopped"),
        ("b", 1, 1, "stopped"),
    ]


async def test_pause_stops_a_runner_and_resume_lets_it_go_on(bank):
    """A paused projection applies nothing until it is resumed; then the same runner goes on."""
    async with running(bank.runner()) as (task,):
        await bank.append(paid("a"))
        await bank.positions.wait_for("accounts", 1, timeout=PATIENCE_SECONDS)
        assert await bank.control.pause("accounts") is True
        assert await bank.control.pause("accounts") is False
        await bank.append(paid("a"))
        with pytest.raises(ProjectionPausedError):
            await bank.positions.wait_for("accounts", 2, timeout=PATIENCE_SECONDS)
        with pytest.raises(ProjectionPausedError, match=r"python -m .*projections resume accounts"):
            await bank.runner().catch_up()
        status = await bank.status()
        assert (status.state, status.owner, status.position, status.error) == ("paused", None, 1, None)
        assert not task.done()
        assert await bank.control.resume("accounts") is True
        assert await bank.control.resume("accounts") is False
        await bank.positions.wait_for("accounts", 2, timeout=PATIENCE_SECONDS)
    assert await bank.totals() == {"a": (2, 2)}


async def test_pause_rolls_the_batch_under_way_back(postgresql_bank):
    """On PostgreSQL, what has not committed when the projection is paused does not commit any more."""
    bank, gate = postgresql_bank, Gate()
    await bank.append(paid("a"))
    task = asyncio.create_task(bank.runner(accounts(gate)).catch_up())
    await soon(gate.reached.wait())
    await bank.control.pause("accounts")
    gate.open.set()
    with pytest.raises(ProjectionPausedError):
        await soon(task)
    assert await bank.totals() == {}
    assert await bank.position() is None
    assert (await bank.status()).state == "paused"


async def test_pause_waits_for_the_batch_on_sqlite(sqlite_bank):
    """On SQLite the batch has the write lock, so it commits first, and nothing after it does."""
    bank, gate = sqlite_bank, Gate()
    await bank.append(paid("a"), paid("a"))
    task = asyncio.create_task(bank.runner(accounts(gate), batch_size=1).catch_up())
    await soon(gate.reached.wait())
    pause = asyncio.create_task(bank.control.pause("accounts"))
    gate.open.set()
    assert await soon(pause)
    await asyncio.wait([task])
    position = await bank.position()
    assert await bank.totals() == {"a": (position, position)}
    assert (await bank.status()).state == "paused"


@pytest.mark.parametrize("method", ["pause", "resume"])
async def test_an_unknown_name_is_a_mistake(bank, method):
    """A name that no runner has run is refused, with those that are known."""
    change = getattr(bank.control, method)
    with pytest.raises(ValueError, match=r"no runner has run a projection 'acounts'; none was run yet"):
        await change("acounts")
    await bank.leases("me", LONG).acquire()
    with pytest.raises(ValueError, match=r"no runner has run a projection 'acounts'; known are 'accounts'"):
        await change("acounts")


async def test_control_joins_a_unit_of_work(bank):
    """A pause in a unit of work that is rolled back has not happened."""
    await bank.leases("me", LONG).acquire()
    async with bank.uow() as uow:
        assert await bank.control.pause("accounts", uow=uow) is True
        assert [status.state for status in await bank.control.status(uow=uow)] == ["paused"]
        await uow.rollback()
    assert (await bank.status()).state == "running"


@pytest.mark.parametrize("store", [SQLAlchemyProjectionControl, SQLAlchemyDeadLetterStore])
def test_a_schema_that_is_no_identifier_is_refused(store):
    """A name that could carry SQL is refused when the store is made."""
    with pytest.raises(ValueError, match=r"^Invalid SQL schema name: 'x; DROP TABLE y'$"):
        store(schema="x; DROP TABLE y")


async def test_an_unmigrated_database_is_named(empty_database):
    """A database without tables says what to run."""
    engine = create_async_engine(empty_database.url)
    with pytest.raises(SchemaOutOfDateError, match=r"alembic upgrade head"):
        await SQLAlchemyProjectionControl(async_sessionmaker(engine)).status()
    await check_no_leaks(engine)


async def test_an_event_of_the_future_does_not_make_the_lag_negative(bank):
    """An event recorded by a clock that was ahead lags 0.0 seconds, not less."""
    await bank.append(paid("a"))
    await bank.positions.save_position("accounts", 0)
    ahead = datetime.now(UTC) + timedelta(days=1)
    events = sa.table("events", sa.column("recorded_at", projection_runs.c.lease_until.type))
    async with bank.uow() as uow, bank.events.allow_changes(uow=uow):
        await uow.session.execute(sa.update(events).values(recorded_at=ahead))
    status = await bank.status()
    assert (status.lag_events, status.lag_seconds) == (1, 0.0)
