"""Events that their handler cannot take: tried again, then the projection pauses at them."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import registry

from cqrs_ddd_advanced_core.projections.projection import Fold
from cqrs_ddd_persistence_sqlalchemy.advanced.running.turn import Policy
from cqrs_ddd_persistence_sqlalchemy.exceptions import ProjectionPausedError
from tests.advanced.running.conftest import (
    ACCOUNTS,
    LONG,
    PATIENCE_SECONDS,
    Failing,
    accounts,
    add,
    count,
    paid,
    running,
)
from tests.support.waiting import until

POISON = 99


@pytest.mark.parametrize("attempts", [1, 2, 5])
async def test_an_event_that_succeeds_in_the_end_is_applied_once(bank, attempts):
    """After all but the last attempt have failed the event is applied once, and the failures are forgotten."""
    failing = Failing({POISON: attempts - 1})
    await bank.append(paid("a", POISON))
    assert await bank.runner(accounts(failing), max_attempts=attempts).catch_up() == 1
    assert failing.seen == [1] * attempts
    assert await bank.totals() == {"a": (POISON, 1)}
    status = await bank.status()
    assert (status.state, status.error, status.error_position, status.failures) == ("stopped", None, None, 0)


@pytest.mark.parametrize(("failures", "longest"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (5000, 60)])
def test_each_attempt_waits_twice_as_long(failures, longest):
    """The wait doubles up to a limit and varies by a fifth, so that it is never none and never the same for all."""
    policy = Policy("pause", 5, timedelta(seconds=1), timedelta(seconds=60))
    waits = [policy.wait_seconds(failures) for _ in range(200)]
    assert longest * 0.8 <= min(waits)
    assert max(waits) <= longest
    assert len(set(waits)) > 100


async def test_the_next_attempt_waits(bank):
    """A failed event is not tried again before its time, however often the runner looks for events."""
    failing = Failing({POISON: 9})
    await bank.append(paid("a", POISON))
    async with running(bank.runner(accounts(failing), backoff=LONG)):
        await until(lambda: _failures(bank))
        await bank.append(paid("b"))
        looked = await bank.now()
        await until(lambda: _later(bank, looked + timedelta(milliseconds=200)))
    assert failing.seen == [1]


async def _failures(bank):
    return [status.failures for status in await bank.control.status() if status.failures]


async def _later(bank, moment):
    return await bank.now() > moment


@pytest.mark.parametrize("batch_size", [1, 3, 500])
async def test_after_the_last_attempt_the_projection_pauses(bank, batch_size):
    """All events before the failing one are applied and none after it; the status says where and why."""
    failing = Failing({POISON: 1000})
    await bank.append(paid("a"), paid("b"), paid("a", POISON), paid("b"), paid("c"))
    with pytest.raises(ProjectionPausedError, match=r"paused at position 3: ValueError: no such currency"):
        await bank.runner(accounts(failing), batch_size=batch_size, max_attempts=3).catch_up()
    assert await bank.totals() == {"a": (1, 1), "b": (1, 1)}
    status = await bank.status()
    assert (status.state, status.position, status.owner) == ("paused", 2, None)
    assert (status.error, status.error_position, status.failures) == ("ValueError: no such currency", 3, 3)
    assert failing.seen.count(3) >= 3
    assert not {4, 5} & set(failing.seen)
    with pytest.raises(ProjectionPausedError):
        await bank.runner().catch_up()


async def test_resume_goes_on_once_the_handler_is_mended(bank):
    """A resumed projection goes on at the event, in the runner that has been waiting all the time."""
    failing = Failing({POISON: 1000})
    await bank.append(paid("a"), paid("a", POISON), paid("a"))
    async with running(bank.runner(accounts(failing), max_attempts=2)):
        with pytest.raises(ProjectionPausedError):
            await bank.positions.wait_for("accounts", 3, timeout=PATIENCE_SECONDS)
        failing.left.clear()
        await bank.control.resume("accounts")
        await bank.positions.wait_for("accounts", 3, timeout=PATIENCE_SECONDS)
    assert await bank.totals() == {"a": (POISON + 2, 3)}
    status = await bank.status()
    assert (status.error, status.error_position, status.failures) == (None, None, 0)


async def test_a_resumed_event_has_all_its_attempts(bank):
    """After a resume the event is tried max_attempts times again."""
    failing = Failing({POISON: 1000})
    await bank.append(paid("a", POISON))
    for tries in (3, 6):
        with pytest.raises(ProjectionPausedError):
            await bank.runner(accounts(failing), max_attempts=3).catch_up()
        assert len(failing.seen) == tries
        await bank.control.resume("accounts")


async def test_attempts_count_across_owners(bank):
    """An owner who stops between attempts hands their number on."""
    failing = Failing({POISON: 1000})
    await bank.append(paid("a", POISON))
    for failures in (1, 2):
        async with running(bank.runner(accounts(failing), max_attempts=3, backoff=LONG)):
            await until(lambda: _has_failures(bank, failures))  # noqa: B023  (awaited here)
    with pytest.raises(ProjectionPausedError):
        await bank.runner(accounts(failing), max_attempts=3).catch_up()
    assert len(failing.seen) == 3


async def _has_failures(bank, failures):
    return await _failures(bank) == [failures]


async def test_each_event_has_its_own_attempts(bank):
    """Failures of one event do not count for the next one."""
    failing = Failing({POISON: 2, POISON + 1: 2})
    await bank.append(paid("a", POISON), paid("a", POISON + 1))
    assert await bank.runner(accounts(failing), batch_size=1, max_attempts=3).catch_up() == 2
    assert failing.seen == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(("kind", "at"), [("fold", 350), ("handler", 499)])
async def test_a_poison_event_among_five_hundred_is_found(bank, kind, at):
    """Of a batch of 500 everything but the poison event is applied, exactly once."""
    seen = []

    def refuse(row, event):
        if event.payload["amount"] == POISON:
            raise ValueError("no such currency")
        return add(row, event)

    async def handler(event, view):
        seen.append(event.position)
        await view.upsert(event.aggregate_id, refuse(await view.find_one(event.aggregate_id), event))

    await bank.append(*(paid(f"{n % 7}", POISON if n == at else 1) for n in range(1, 502)))
    runner = bank.runner(
        accounts(Fold(refuse) if kind == "fold" else handler), batch_size=500, max_attempts=2, on_failure="park"
    )
    assert await runner.catch_up() == 501
    assert [letter.event_position for letter in await bank.letters.parked("accounts", limit=1)] == [at]
    expected = dict.fromkeys(map(str, range(7)), 0)
    for n in range(1, 502):
        if n < at or n % 7 != at % 7:
            expected[str(n % 7)] += 1
    assert await bank.totals() == {key: (number, number) for key, number in expected.items() if number}


@pytest.mark.parametrize("kind", ["fold", "handler"])
@pytest.mark.parametrize("note", ["x" * 11, 5, ["list"], "a\0b"], ids=["long", "number", "list", "nul"])
async def test_a_value_that_the_column_refuses_stops_at_its_event(bank, kind, note):
    """A value that cannot be written is narrowed down to the event that it comes from."""

    def fold(row, event):
        return {**add(row, event), "note": note if event.payload["amount"] == POISON else "fine"}

    async def handler(event, view):
        await view.upsert(event.aggregate_id, fold(await view.find_one(event.aggregate_id), event))

    await bank.append(*(paid(f"{n}", POISON if n == 6 else 1) for n in range(1, 11)))
    with pytest.raises(ProjectionPausedError, match="note") as raised:
        await bank.runner(accounts(Fold(fold) if kind == "fold" else handler), max_attempts=2).catch_up()
    assert raised.value.position == 6
    assert sorted(await bank.totals(), key=int) == ["1", "2", "3", "4", "5"]
    assert (await bank.status()).failures == 2


ACCOUNT = sa.Table(
    ACCOUNTS.collection,
    sa.MetaData(),
    sa.Column("id", sa.String(50), primary_key=True),
    sa.Column("total", sa.Integer, nullable=False),
    sa.Column("changes", sa.Integer, nullable=False),
)


class Account:
    """A row of the accounts as an object."""

    def __init__(self, **values):
        for name, value in values.items():
            setattr(self, name, value)


registry().map_imperatively(Account, ACCOUNT)


@pytest.mark.parametrize(
    "values",
    [
        {"id": "1", "total": 1, "changes": 1},
        {"id": "new", "total": None, "changes": 1},
        {"id": "new", "total": "no number", "changes": None},
        {"id": "new", "total": 2**80, "changes": 1},
    ],
    ids=["not unique", "null", "no number", "too large"],
)
async def test_a_statement_that_the_database_refuses_counts_as_a_failure(bank, values):
    """A handler with statements of its own fails like any other, whichever layer has refused what it gave."""

    async def handler(event, view):
        if event.payload["amount"] == POISON:
            await view.uow.session.execute(sa.insert(ACCOUNT).values(values))
        await count(event, view)

    await bank.append(paid("1"), paid("2"), paid("3", POISON), paid("4"))
    with pytest.raises(ProjectionPausedError) as raised:
        await bank.runner(accounts(handler), max_attempts=2).catch_up()
    assert raised.value.position == 3
    assert await bank.totals() == {"1": (1, 1), "2": (1, 1)}


async def test_what_is_written_with_the_commit_counts_as_a_failure(bank):
    """An object that a handler added to the session, and that the database refuses at the commit, fails its event."""

    async def handler(event, view):
        await count(event, view)
        if event.payload["amount"] == POISON:
            view.uow.session.add(Account(id="1", total=1, changes=1))

    await bank.append(paid("1"), paid("2"), paid("3", POISON), paid("4"))
    with pytest.raises(ProjectionPausedError) as raised:
        await bank.runner(accounts(handler), max_attempts=2).catch_up()
    assert raised.value.position == 3
    assert await bank.totals() == {"1": (1, 1), "2": (1, 1)}


@pytest.mark.parametrize("batch_size", [1, 2, 500])
async def test_a_swallowed_database_error_is_a_failure(bank, batch_size):
    """A handler that catches a database error is told so in words, at its own event, on both databases."""

    async def handler(event, view):
        if event.payload["amount"] == POISON:
            try:
                await view.uow.session.execute(sa.text("INSERT INTO accounts (id) VALUES ('incomplete')"))
            except sa.exc.IntegrityError:
                return
        await count(event, view)

    await bank.append(paid("a"), paid("b"), paid("c", POISON), paid("d"))
    with pytest.raises(ProjectionPausedError, match=r"a handler has caught a database error, after which") as raised:
        await bank.runner(accounts(handler), batch_size=batch_size, max_attempts=2).catch_up()
    assert raised.value.position == 3
    assert await bank.totals() == {"a": (1, 1), "b": (1, 1)}


async def test_a_database_error_in_a_savepoint_is_the_handlers_own(bank):
    """What the message recommends works: an error inside begin_nested() may be caught."""

    async def handler(event, view):
        await count(event, view)
        try:
            async with view.uow.session.begin_nested():
                await view.uow.session.execute(sa.text("INSERT INTO accounts (id) VALUES ('incomplete')"))
        except sa.exc.IntegrityError:
            return

    await bank.append(paid("a"), paid("a"))
    assert await bank.runner(accounts(handler)).catch_up() == 2
    assert await bank.totals() == {"a": (2, 2)}
