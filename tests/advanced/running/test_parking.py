"""Events that a projection goes on without: parked with what comes behind them, replayed, discarded."""

from __future__ import annotations

import logging

import pytest

from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionPositionStore
from tests.advanced.running.conftest import (
    ACCOUNTS,
    PATIENCE_SECONDS,
    Failing,
    accounts,
    count,
    paid,
    running,
)
from tests.support.waiting import until

POISON = 99
BEHIND = "behind another parked event of its stream"


class Recording(Failing):
    """A handler that fails at some payments, and keeps the order of those that succeed."""

    def __init__(self, times):
        super().__init__(times)
        self.applied = []

    async def __call__(self, event, view):
        await super().__call__(event, view)
        view.uow.on_commit(lambda: self.applied.append(event.position))


async def parked(bank):
    return [(each.event_position, each.failures) for each in await bank.letters.parked("accounts")]


async def are_parked(bank, *letters):
    async def condition():
        return await parked(bank) == list(letters)

    await until(condition)


@pytest.fixture
async def handler(bank):
    """Two streams, one with poison in it, after a runner that parks has been over them."""
    made = Recording({POISON: 1000})
    await bank.append(paid("a", 1), paid("b", 1), paid("a", POISON), paid("b", 2), paid("a", 4), paid("b", 4))
    assert await bank.runner(accounts(made), max_attempts=2, on_failure="park").catch_up() == 6
    return made


async def test_the_stream_is_parked_and_others_go_on(bank, handler):
    """The failing event and those behind it in its stream are parked; what other streams have is applied."""
    assert await bank.totals() == {"a": (1, 1), "b": (7, 3)}
    first, second = await bank.letters.parked("accounts")
    (event,) = await bank.events.get_events_after(2, limit=1)
    assert (first.event_position, first.failures, first.error) == (3, 2, "ValueError: no such currency")
    assert (first.event_id, first.event_type, first.aggregate_id) == (event.event_id, "Paid", "a")
    assert (second.event_position, second.failures, second.error) == (5, 0, BEHIND)
    assert not first.replay_requested
    assert first.parked_at.utcoffset() is not None
    status = await bank.status()
    assert (status.state, status.position, status.parked) == ("stopped", 6, 2)
    assert (status.error, status.failures) == (None, 0)


@pytest.mark.parametrize("batch_size", [1, 2, 500])
async def test_a_later_runner_does_not_overtake_parked_events(bank, handler, batch_size):
    """What comes to a parked stream afterwards is parked behind it, also by the next owner."""
    await bank.append(paid("b", 8), paid("a", 8), paid("c", 8))
    await bank.runner(accounts(count), batch_size=batch_size).catch_up()
    assert await parked(bank) == [(3, 2), (5, 0), (8, 0)]
    assert await bank.totals() == {"a": (1, 1), "b": (15, 4), "c": (8, 1)}


async def test_a_replay_applies_the_stream_in_order(bank, handler):
    """Once the handler is mended a requested replay applies all parked events of the stream in their order, once."""
    handler.left.clear()
    assert await bank.letters.request_replay("accounts") == 2
    assert [letter.replay_requested for letter in await bank.letters.parked("accounts")] == [True, True]
    async with running(bank.runner(accounts(handler))):
        await are_parked(bank)
        (position,) = await bank.append(paid("a", 8))
        await bank.positions.wait_for("accounts", position, timeout=PATIENCE_SECONDS)
    assert sorted(handler.applied[:4]) == [1, 2, 4, 6]
    assert handler.applied[4:] == [3, 5, 7]
    assert await bank.totals() == {"a": (POISON + 13, 4), "b": (7, 3)}
    assert (await bank.status()).parked == 0


async def test_catch_up_replays_what_was_requested(bank, handler):
    """A replay that was asked for is done by catch_up() also where no event is new."""
    handler.left.clear()
    await bank.letters.request_replay("accounts")
    assert await bank.runner(accounts(handler)).catch_up() == 6
    assert await parked(bank) == []


async def test_what_nobody_asks_for_stays_parked(bank, handler):
    """Without a request nothing is replayed, though the handler would succeed."""
    handler.left.clear()
    async with running(bank.runner(accounts(handler))):
        (position,) = await bank.append(paid("b"))
        await bank.positions.wait_for("accounts", position, timeout=PATIENCE_SECONDS)
    assert await parked(bank) == [(3, 2), (5, 0)]


@pytest.mark.parametrize(
    ("positions", "requested", "left"),
    [([3], 1, [(5, 0)]), ([5], 2, []), ([4], 0, [(3, 2), (5, 0)]), ([], 0, [(3, 2), (5, 0)])],
)
async def test_some_can_be_replayed(bank, handler, positions, requested, left):
    """With positions those events are replayed with the ones before them in their streams."""
    handler.left.clear()
    assert await bank.letters.request_replay("accounts", positions) == requested
    async with running(bank.runner(accounts(handler))):
        (position,) = await bank.append(paid("c"))
        await bank.positions.wait_for("accounts", position, timeout=PATIENCE_SECONDS)
        await are_parked(bank, *left)


async def test_a_replay_that_fails_again_stays_parked(bank, handler):
    """A failed replay counts one more failure, leaves the whole stream parked, and is not tried by itself again."""
    seen = len(handler.seen)
    await bank.letters.request_replay("accounts")
    async with running(bank.runner(accounts(handler))) as (task,):
        await are_parked(bank, (3, 3), (5, 0))
        (position,) = await bank.append(paid("b"))
        await bank.positions.wait_for("accounts", position, timeout=PATIENCE_SECONDS)
        assert not task.done()
    assert handler.seen[seen:] == [3, 7]
    assert [letter.replay_requested for letter in await bank.letters.parked("accounts")] == [False, False]
    assert (await bank.totals())["a"] == (1, 1)
    assert (await bank.status()).state == "stopped"


async def test_a_failing_stream_does_not_keep_others_from_their_replay(bank):
    """Of two parked streams the one whose events succeed is replayed, while the other goes on waiting."""
    handler = Recording({POISON: 1000, POISON + 1: 1000})
    await bank.append(paid("a", POISON), paid("b", POISON + 1), paid("a"), paid("b"))
    await bank.runner(accounts(handler), max_attempts=1, on_failure="park").catch_up()
    assert await parked(bank) == [(1, 1), (2, 1), (3, 0), (4, 0)]
    del handler.left[POISON + 1]
    await bank.letters.request_replay("accounts")
    async with running(bank.runner(accounts(handler))):
        await are_parked(bank, (1, 2), (3, 0))
    assert handler.applied == [2, 4]
    assert await bank.totals() == {"b": (POISON + 2, 2)}


async def test_more_are_replayed_than_are_listed_at_once(bank):
    """A replay has no limit: however many events are parked, they are applied in their order."""
    handler = Recording({POISON: 1000})
    await bank.append(paid("a", POISON), *(paid("a") for _ in range(129)))
    await bank.runner(accounts(handler), max_attempts=1, on_failure="park").catch_up()
    assert (await bank.status()).parked == 130
    handler.left.clear()
    await bank.letters.request_replay("accounts")
    async with running(bank.runner(accounts(handler))):
        await are_parked(bank)
    assert handler.applied == list(range(1, 131))
    assert await bank.totals() == {"a": (POISON + 129, 130)}


async def test_discarded_events_are_gone_without(bank, handler):
    """discard() lets events go for good: those given, or all; the stream goes on when none is left."""
    assert await bank.letters.discard("accounts", [3, 4]) == 1
    assert await parked(bank) == [(5, 0)]
    assert await bank.letters.discard("other") == 0
    assert await bank.letters.discard("accounts") == 1
    await bank.append(paid("a", 8))
    await bank.runner(accounts(handler)).catch_up()
    assert await bank.totals() == {"a": (9, 2), "b": (7, 3)}


async def test_parked_events_are_listed_up_to_a_limit(bank, handler):
    """The list is by position, of one projection, and no longer than asked for."""
    assert [letter.event_position for letter in await bank.letters.parked("accounts", limit=1)] == [3]
    assert await bank.letters.parked("other") == []


async def test_requests_join_a_unit_of_work(bank, handler):
    """A replay or discard in a unit of work that is rolled back was not asked for."""
    async with bank.uow() as uow:
        assert await bank.letters.request_replay("accounts", uow=uow) == 2
        assert await bank.letters.discard("accounts", [3], uow=uow) == 1
        await uow.rollback()
    assert await parked(bank) == [(3, 2), (5, 0)]
    assert await bank.letters.parked("accounts", requested=True) == []


async def test_a_failed_replay_leaves_nothing_of_other_stores(bank):
    """What a handler wrote through view.uow before it failed is rolled back, in a replay as in a batch."""
    names, failing = SQLAlchemyProjectionPositionStore(), Failing({POISON: 1000})

    async def handler(event, view):
        await names.save_position(f"seen by {ACCOUNTS.collection}", event.position, uow=view.uow)
        await failing(event, view)

    await bank.append(paid("a", POISON))
    await bank.runner(accounts(handler), max_attempts=1, on_failure="park").catch_up()
    await bank.letters.request_replay("accounts")
    async with running(bank.runner(accounts(handler))):
        await are_parked(bank, (1, 2))
    assert await bank.positions.all_positions() == {"accounts": 1}


async def test_errors_of_any_text_are_kept(bank, monkeypatch):
    """What databases cannot store in an error's text, or not at that length, does not keep it from being shown."""
    # Pytest's parallel processes cannot tell each other of a log with a lone surrogate.
    monkeypatch.setattr(logging.getLogger("cqrs_ddd_persistence_sqlalchemy.advanced.running.turn"), "disabled", True)
    await bank.append(paid("a", POISON))
    failing = Failing({POISON: 9}, error="a\0b\ud800" + "x" * 9000)
    await bank.runner(accounts(failing), max_attempts=1, on_failure="park").catch_up()
    (letter,) = await bank.letters.parked("accounts")
    assert letter.error.startswith("ValueError: a\N{REPLACEMENT CHARACTER}b?xxx")
    assert letter.error.endswith("xxx...")
    assert len(letter.error) == 4003
