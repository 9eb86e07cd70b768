"""Sixteen runners of one projection deliver the same events, each in an order of its own and some twice."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionStore
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError

RUNNERS = 16
EVENTS = [(position, f"account-{position * 7 % 10}") for position in range(1, 501)]
TWO_HUNDRED = EVENTS[:200]  # with fewer, runners meet too seldom to lose an update where nothing keeps them from it
BATCH = 50
all_of_them = pytest.mark.parametrize("events", [EVENTS[:150], pytest.param(EVENTS, marks=pytest.mark.slow)], ids=len)
fewer_of_them = pytest.mark.parametrize(
    "events", [EVENTS[:60], pytest.param(TWO_HUNDRED, marks=pytest.mark.slow)], ids=len
)

BALANCES = ProjectionSchema(
    collection="balances",
    fields=[
        ("account", "VARCHAR(50) PRIMARY KEY"),
        ("last", "INTEGER NOT NULL"),
        ("applied", "INTEGER DEFAULT 1"),
        ("_version", "INTEGER DEFAULT 1"),
        ("_last_event_id", "VARCHAR(100)"),
        ("_last_event_position", "BIGINT"),
    ],
)


@pytest.fixture
async def balances(session_factory):
    """The read model, empty."""
    store = SQLAlchemyProjectionStore(session_factory, allow_auto_ddl=True, schemas=[BALANCES])
    await store.ensure_collection("balances", schema=BALANCES)
    return store


def deliveries(runner, events):
    """Return a runner's batches: all events shuffled, some again at once and some again anywhere.

    Within a batch the accounts come in one order, as transactions that lock rows crosswise end in a deadlock.
    """
    rng = random.Random(runner)
    later, at_once = rng.sample(events, 10), rng.sample(events, 10)
    order = rng.sample([*events, *later], len(events) + len(later))
    order = [event for event in order for _ in range(2 if event in at_once else 1)]
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    return [sorted(batch, key=lambda event: event[1]) for batch in batches]


async def run_all(session_factory, events, apply):
    """Let all runners deliver at once, a unit of work a batch; return each event that was applied, once each time."""

    async def run(runner):
        applied = []
        for batch in deliveries(runner, events):
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                applied += [event for event in batch if await apply(event, uow)]
                await uow.commit()  # after a conflict that was dealt with, leaving the block would roll back
        return applied

    return [event for applied in await asyncio.gather(*map(run, range(RUNNERS))) for event in applied]


async def check(balances, events, applied):
    """Check that each account is at its newest event, and that what was applied counted once."""
    rows = await balances.find("balances")
    newest = {account: position for position, account in events}
    assert {row["account"]: row["last"] for row in rows} == newest
    assert {row["account"]: row["_last_event_position"] for row in rows} == newest
    assert [event for event, times in Counter(applied).items() if times > 1] == []
    assert {row["account"]: row["_version"] for row in rows} == Counter(account for _, account in applied)
    return rows


@all_of_them
async def test_positions_let_each_event_count_once(session_factory, balances, events):
    """With event_position a late or repeated event changes nothing."""

    async def apply(event, uow):
        position, account = event
        return await balances.upsert("balances", account, {"last": position}, event_position=position, uow=uow)

    await check(balances, events, await run_all(session_factory, events, apply))


@fewer_of_them
async def test_ids_and_positions_let_each_event_count_once(session_factory, balances, events):
    """With event_id as well a repeat at once is no news, and the newest event's id stands in the end."""

    async def apply(event, uow):
        position, account = event
        doc, event_id = {"last": position}, f"event-{position}"
        return await balances.upsert("balances", account, doc, event_id=event_id, event_position=position, uow=uow)

    rows = await check(balances, events, await run_all(session_factory, events, apply))
    assert {row["account"]: row["_last_event_id"] for row in rows} == {
        account: f"event-{position}" for position, account in events
    }


async def test_expected_versions_let_no_update_be_lost(session_factory, balances):
    """Reading, adding one and writing with expected_version, again after each conflict, adds one an event applied."""

    async def apply(event, uow):
        position, account = event
        while True:
            row = await balances.find_one("balances", account, uow=uow)
            if row is not None and row["_last_event_position"] >= position:
                return False
            version, count = (0, 0) if row is None else (row["_version"], row["applied"])
            doc = {"last": position, "applied": count + 1}
            try:
                return await balances.upsert(
                    "balances", account, doc, expected_version=version, event_position=position, uow=uow
                )
            except OptimisticConcurrencyError:
                continue

    rows = await check(balances, TWO_HUNDRED, await run_all(session_factory, TWO_HUNDRED, apply))
    assert all(row["applied"] == row["_version"] for row in rows)


async def test_of_many_deliveries_of_one_event_at_once_one_counts(session_factory, balances):
    """With event_id alone the runners deliver event after event, all at once and twice each: one of them is news."""

    async def deliver(event):
        position, account = event
        doc, event_id = {"last": position}, f"event-{position}"
        first = await balances.upsert("balances", account, doc, event_id=event_id)
        again = await balances.upsert("balances", account, doc, event_id=event_id)
        return first + again

    for event in EVENTS[:12]:
        answers = await asyncio.gather(*(deliver(event) for _ in range(RUNNERS)))
        assert sum(answers) == 1
    rows = await balances.find("balances")
    assert {row["account"]: row["_version"] for row in rows} == Counter(account for _, account in EVENTS[:12])
