"""What folds and handlers make of events."""

from __future__ import annotations

import itertools

import pytest
import sqlalchemy as sa

from cqrs_ddd_advanced_core.events import StoredEvent
from cqrs_ddd_advanced_core.projections.projection import Fold, Projection
from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy.exceptions import ProjectionPausedError
from tests.advanced.running.conftest import accounts, add, count, paid

TRACED = ProjectionSchema(
    "traced",
    [
        ("id", "VARCHAR(50) PRIMARY KEY"),
        ("total", "INTEGER NOT NULL"),
        ("changes", "INTEGER NOT NULL"),
        ("_version", "INTEGER DEFAULT 1"),
        ("_last_event_id", "VARCHAR(100)"),
        ("_last_event_position", "BIGINT"),
    ],
)

DEFAULTS = ProjectionSchema(
    "defaults",
    [("id", "VARCHAR(50) PRIMARY KEY"), ("status", "VARCHAR(10) DEFAULT 'new'"), ("seen", "VARCHAR(10)")],
)

BALANCES = ProjectionSchema(
    "balances",
    [("account", "VARCHAR(50)"), ("currency", "CHAR(3)"), ("total", "INTEGER NOT NULL")],
    primary_key=["account", "currency"],
)


def closed(account):
    """An event after which an account is no more."""
    return StoredEvent(aggregate_id=account, event_type="Closed", payload={})


def noted(account, note):
    """An event that says something about an account."""
    return StoredEvent(aggregate_id=account, event_type="Noted", payload={"note": note})


@pytest.mark.parametrize("handler", [Fold(add), count], ids=["fold", "handler"])
@pytest.mark.parametrize("batch_size", [1, 2, 500])
async def test_events_become_rows(bank, handler, batch_size):
    """A fold and a handler of the same meaning give the same rows, whatever the size of batches."""
    await bank.append(paid("a", 1), paid("b", 2), paid("a", 3), paid("a", 5))
    assert await bank.runner(accounts(handler), batch_size=batch_size).catch_up() == 4
    assert await bank.totals() == {"a": (9, 3), "b": (2, 1)}


@pytest.mark.parametrize("batch_size", [1, 2, 500])
async def test_a_later_batch_goes_on_from_the_rows_of_earlier_ones(bank, batch_size):
    """What is in the table is what folds and handlers of later events start from."""
    for amount in (1, 2, 4):
        await bank.append(paid("a", amount))
        await bank.runner(batch_size=batch_size).catch_up()
    assert await bank.totals() == {"a": (7, 3)}


@pytest.mark.parametrize("order", list(itertools.permutations(["Paid", "Doubled", "Paid"])))
async def test_folds_and_handlers_keep_the_order_of_events(bank, order):
    """In one batch a handler sees what the folds before it made, and folds after it see what it wrote."""

    async def double(event, view):
        row = await view.find_one("a") or {"total": 100, "changes": 0}
        await view.upsert("a", {**row, "total": row["total"] * 2})

    total = None
    for event_type in order:
        total = (total or 0) + 1 if event_type == "Paid" else (100 if total is None else total) * 2
    await bank.append(
        *(StoredEvent(aggregate_id="a", event_type=each, payload={"amount": 1}) for each in order),
    )
    await bank.runner(accounts(Doubled=double)).catch_up()
    assert await bank.totals() == {"a": (total, 2)}


@pytest.mark.parametrize("batch_size", [1, 500])
async def test_a_fold_that_returns_none_deletes_the_row(bank, batch_size):
    """The row is gone, whether it was in the table or came up in the same batch."""
    await bank.append(paid("a"), paid("b"))
    projection = accounts(Closed=Fold(lambda _row, _event: None))
    await bank.runner(projection).catch_up()
    await bank.append(closed("a"), paid("c"), closed("c"), closed("d"))
    await bank.runner(projection, batch_size=batch_size).catch_up()
    assert await bank.totals() == {"b": (1, 1)}


@pytest.mark.parametrize("batch_size", [1, 500])
async def test_a_row_that_comes_again_after_its_deletion_is_a_new_one(bank, batch_size):
    """Nothing of the deleted row is in the new one, whether or not both events are in one batch."""
    projection = accounts(
        Closed=Fold(lambda _row, _event: None),
        Noted=Fold(lambda row, event: {**row, "note": event.payload["note"]}),
    )
    await bank.append(paid("a", 1), noted("a", "old"))
    await bank.runner(projection).catch_up()
    await bank.append(closed("a"), paid("a", 2))
    await bank.runner(projection, batch_size=batch_size).catch_up()
    assert await bank.store.find("accounts") == [{"id": "a", "total": 2, "changes": 1, "note": None}]


@pytest.mark.parametrize("batch_size", [1, 500])
async def test_columns_that_a_fold_leaves_out_keep_their_values(bank, batch_size):
    """A fold may return the columns that it changes, and nothing else."""
    projection = accounts(Noted=Fold(lambda _row, event: {"note": event.payload["note"]}))
    await bank.append(paid("a", 3), noted("a", "x"), paid("a", 4), noted("a", "y"))
    await bank.runner(projection, batch_size=batch_size).catch_up()
    assert await bank.store.find("accounts") == [{"id": "a", "total": 7, "changes": 2, "note": "y"}]


async def test_a_fold_cannot_change_rows_behind_the_runners_back(bank):
    """A fold that changes the row it was given, and returns none, has deleted it and nothing more."""

    def spoil(row, event):
        row["id"] = "z"

    await bank.append(paid("a"))
    await bank.runner().catch_up()
    await bank.append(closed("a"))
    await bank.runner(accounts(Closed=Fold(spoil))).catch_up()
    assert await bank.totals() == {}


@pytest.mark.parametrize("batch_size", [1, 2, 500])
async def test_folds_maintain_the_columns_of_versions_and_events(bank, batch_size):
    """_version counts the events of the row; the last event's id and position stand in its row."""
    await bank.make(TRACED)
    stored = await bank.events.append([paid("a"), paid("b"), paid("a"), paid("a")])
    projection = Projection("traced", TRACED, {"Paid": Fold(add)})
    await bank.runner(projection, batch_size=batch_size).catch_up()
    rows = {row["id"]: row for row in await bank.store.find("traced")}
    assert {
        key: (row["_version"], row["_last_event_position"], row["_last_event_id"]) for key, row in rows.items()
    } == {"a": (3, 4, stored[3].event_id), "b": (1, 2, stored[1].event_id)}


async def test_a_version_that_a_fold_sets_is_kept(bank):
    """A fold that gives _version itself is believed."""
    await bank.make(TRACED)
    await bank.append(paid("a"))
    projection = Projection("traced", TRACED, {"Paid": Fold(lambda row, event: {**add(row, event), "_version": 70})})
    await bank.runner(projection).catch_up()
    assert [row["_version"] for row in await bank.store.find("traced")] == [70]


@pytest.mark.parametrize("batch_size", [1, 500])
async def test_a_fold_sees_the_defaults_of_a_new_row(bank, batch_size):
    """The second event of a row finds the defaults that the first one left to the table, in one batch or in two."""
    await bank.make(DEFAULTS)
    projection = Projection(
        "defaults", DEFAULTS, {"Paid": Fold(lambda row, _event: {"seen": row.get("status") if row else "no row"})}
    )
    await bank.append(paid("a"), paid("a"))
    await bank.runner(projection, batch_size=batch_size).catch_up()
    assert await bank.store.find("defaults") == [{"id": "a", "status": "new", "seen": "new"}]


@pytest.mark.parametrize("batch_size", [1, 500])
async def test_a_composite_key_is_a_dict(bank, batch_size):
    """With key= an event finds its row by several columns."""
    await bank.make(BALANCES)
    projection = Projection("balances", BALANCES)

    @projection.fold("Paid", key=lambda event: {"account": event.aggregate_id, "currency": event.payload["currency"]})
    def paid_in(row, event):
        return {"total": (row["total"] if row else 0) + event.payload["amount"]}

    payments = [("a", 1, "EUR"), ("a", 2, "USD"), ("b", 4, "EUR"), ("a", 8, "EUR")]
    await bank.append(*(paid(account, amount, currency=currency) for account, amount, currency in payments))
    await bank.runner(projection, batch_size=batch_size).catch_up()
    rows = await bank.store.find("balances", sort=[("account", 1), ("currency", 1)])
    assert [(row["account"], row["currency"], row["total"]) for row in rows] == [
        ("a", "EUR", 9),
        ("a", "USD", 2),
        ("b", "EUR", 4),
    ]


async def test_a_row_that_contradicts_its_key_is_refused(bank):
    """A fold whose row has another key than the event writes nothing, and the error names both."""
    await bank.append(paid("a"), paid("b"))
    projection = accounts(Fold(lambda row, event: {**add(row, event), "id": "a"}))
    with pytest.raises(ProjectionPausedError, match=r"the row has id = 'a', and the event's key is 'b'") as raised:
        await bank.runner(projection, max_attempts=1).catch_up()
    assert raised.value.position == 2
    assert await bank.totals() == {"a": (1, 1)}


async def test_a_key_that_is_none_fails_its_event_alone(bank):
    """A key function that raises, or returns what no row can have, stops at its event."""
    await bank.append(paid("a"), paid("b"), paid("c", key=["x"]))
    projection = accounts(Fold(add, key=lambda event: event.payload.get("key", event.aggregate_id)))
    with pytest.raises(ProjectionPausedError) as raised:
        await bank.runner(projection, max_attempts=1).catch_up()
    assert raised.value.position == 3
    assert await bank.totals() == {"a": (1, 1), "b": (1, 1)}


async def test_handlers_are_told_of_a_replay(bank):
    """event.replay is what the runner was made with, for folds and handlers alike."""
    seen = []

    def fold(row, event):
        seen.append(event.replay)
        return add(row, event)

    async def handler(event, view):
        seen.append(event.replay)

    await bank.append(paid("a"), noted("a", "x"))
    await bank.runner(accounts(Fold(fold), Noted=handler), replay=True).catch_up()
    assert seen == [True, True]


async def test_one_statement_writes_the_rows_of_a_batch(bank, engine):
    """A batch of folds reads its rows with one statement and writes them with one."""
    await bank.append(*(paid(f"account {n}") for n in range(50)))
    sent = []
    sa.event.listen(engine.sync_engine, "before_cursor_execute", lambda *args: sent.append(args[2]))
    await bank.runner().catch_up()
    about = [statement for statement in sent if "accounts" in statement and "total" in statement]
    assert [statement.split()[0] for statement in about] == ["SELECT", "INSERT"]
