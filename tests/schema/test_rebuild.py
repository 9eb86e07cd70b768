"""Rebuilds beside a running application: nobody sees them but for the result, and they survive what may happen."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

import pytest
import sqlalchemy as sa

from cqrs_ddd_advanced_core import StoredEvent
from cqrs_ddd_advanced_core.projections import Fold, Projection, ProjectionIndex, ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import (
    ProjectionRunner,
    SQLAlchemyDeadLetterStore,
    SQLAlchemyProjectionControl,
    SQLAlchemyProjectionPositionStore,
    SQLAlchemyProjectionStore,
)
from cqrs_ddd_persistence_sqlalchemy.advanced.running.leases import Leases
from cqrs_ddd_persistence_sqlalchemy.core.dialect import READ_ONLY
from cqrs_ddd_persistence_sqlalchemy.exceptions import CollectionNotFoundError, ProjectionPausedError, RebuildError
from cqrs_ddd_persistence_sqlalchemy.schema import abandon_rebuild, rebuild, verify
from cqrs_ddd_persistence_sqlalchemy.schema.exclusive import NotYetError, Patience
from cqrs_ddd_persistence_sqlalchemy.schema.rebuilding import _Rebuild
from tests.support.command_line import schema as text_of_schema
from tests.support.command_line import tables
from tests.support.kinds import ONLY_POSTGRESQL

ACCOUNTS = ProjectionSchema(
    "accounts",
    [
        ("id", "TEXT PRIMARY KEY"),
        ("balance", "DECIMAL(10, 2) NOT NULL"),
        ("email", "TEXT UNIQUE"),
        ("_version", "INTEGER"),
    ],
    [ProjectionIndex("balance", descending=["balance"]), ProjectionIndex("email", unique=True, name="by_email")],
)
SHADOW = "accounts__rebuild"


def paid(row, event):
    """Add up: applied twice, an event would show."""
    return {"balance": (row["balance"] if row else 0) + event.payload["amount"]}


class Handler:
    """`paid`, which can be told to fail, and counts what it has seen."""

    def __init__(self):
        self.seen = []
        self.fails_at = None

    def __call__(self, row, event):
        if event.position == self.fails_at:
            raise ValueError("no such luck")
        self.seen.append((event.position, event.replay))
        return paid(row, event)

    @property
    def replayed(self):
        return [position for position, replay in self.seen if replay]


@pytest.fixture
def handler():
    return Handler()


@pytest.fixture
def projection(handler):
    return Projection("accounts", ACCOUNTS, {"Paid": Fold(handler)})


@pytest.fixture
def events(session_factory):
    return SQLAlchemyEventStore(session_factory)


@pytest.fixture
async def store(session_factory):
    """The projection's store, with its table as a revision makes it."""
    made = SQLAlchemyProjectionStore(session_factory, allow_auto_ddl=True, schemas=[ACCOUNTS])
    await made.ensure_collection("accounts", schema=ACCOUNTS)
    return made


@pytest.fixture
def runner(events, projection, session_factory):
    return ProjectionRunner(events, projection, lambda: SQLAlchemyUnitOfWork(session_factory), max_attempts=1)


async def pay(events, count, *, accounts=7):
    """Append payments of 1, spread over some accounts, and return the last position."""
    made = [
        StoredEvent(aggregate_id=f"a{n % accounts}", event_type="Paid", payload={"amount": 1}) for n in range(count)
    ]
    return (await events.append(made))[-1].position


async def total(store):
    return sum([row["balance"] for row in await store.find("accounts")])


async def test_nobody_sees_a_rebuild(session_factory, engine, store, events, runner, handler, projection):
    """While events come in and a runner works, a reader never sees an empty, half-built or older table."""
    await runner.catch_up()
    last = await pay(events, 3000)
    running = asyncio.create_task(runner.run())
    await runner.wait_for("accounts", last, timeout=30)
    done, readings = asyncio.Event(), []

    async def read():
        while not done.is_set():
            readings.append((await store.count("accounts"), await total(store)))
            await asyncio.sleep(0.005)

    async def write():
        while not done.is_set():
            await pay(events, 5)
            await asyncio.sleep(0.01)

    others = [asyncio.create_task(read()), asyncio.create_task(write())]
    reached = await rebuild(projection, session_factory, batch_size=250)
    assert reached >= last
    await runner.wait_for("accounts", reached + 5, timeout=30)
    done.set()
    await asyncio.gather(*others)
    last = await events.last_position()
    await runner.wait_for("accounts", last, timeout=30)
    runner.stop()
    await running
    assert readings == sorted(readings)
    assert readings[0] == (7, 3000)
    assert await total(store) == last
    assert handler.replayed == list(range(1, reached + 1))
    assert max(position for position, replay in handler.seen if not replay) == last
    await verify(engine, schemas=[ACCOUNTS])


async def test_the_table_is_the_same_as_before(database, session_factory, store, events, runner, projection):
    """Names of keys and indexes, defaults and order included; of the rebuild no trace is left."""
    await pay(events, 20)
    await runner.catch_up()
    before = await asyncio.to_thread(text_of_schema, database), await store.find("accounts")
    await rebuild(projection, session_factory)
    # SQLite keeps a renamed table's name in quotes.
    assert [text.replace('"', "") for text in await asyncio.to_thread(text_of_schema, database)] == [
        each.replace('"', "") for each in before[0]
    ]
    assert await store.find("accounts") == before[1]
    assert await SQLAlchemyProjectionPositionStore(session_factory).all_positions() == {"accounts": 20}
    assert [status.name for status in await SQLAlchemyProjectionControl(session_factory).status()] == ["accounts"]
    await rebuild(projection, session_factory)
    assert await store.find("accounts") == before[1]


async def test_a_table_in_disorder_is_right_afterwards(session_factory, store, events, runner, projection):
    """Rows that no event explains are gone, and lost ones are back."""
    await pay(events, 14)
    await runner.catch_up()
    await store.upsert("accounts", "a1", {"balance": 999})
    await store.upsert("accounts", "nobody", {"balance": 1})
    await store.delete("accounts", "a2")
    await rebuild(projection, session_factory)
    assert {row["id"]: row["balance"] for row in await store.find("accounts")} == {f"a{n}": 2 for n in range(7)}


async def interrupted(projection, session_factory, *, after):
    """Rebuild until some events are in the shadow, then cancel; return the position saved."""
    reached = asyncio.Event()

    def progress(position, _target):
        if position >= after:
            reached.set()

    task = asyncio.create_task(rebuild(projection, session_factory, batch_size=10, progress=progress))
    await reached.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return (await SQLAlchemyProjectionPositionStore(session_factory).all_positions())["accounts (rebuild)"]


async def test_an_interrupted_rebuild_goes_on(database, session_factory, store, events, runner, handler, projection):
    """What was built is not built again, the old table serves meanwhile, and the result is complete."""
    await pay(events, 500)
    await runner.catch_up()
    handler.seen.clear()
    position = await interrupted(projection, session_factory, after=100)
    assert 100 <= position < 500
    assert SHADOW in await asyncio.to_thread(tables, database)
    assert await total(store) == 500
    handler.seen.clear()
    assert await rebuild(projection, session_factory) == 500
    assert handler.replayed == list(range(position + 1, 501))
    assert await total(store) == 500
    assert SHADOW not in await asyncio.to_thread(tables, database)


async def test_a_rebuild_of_other_handlers_begins_anew(session_factory, store, events, runner, handler, projection):
    """Half of the old fold and half of the new one would be neither; so does one that is told to restart."""
    await pay(events, 200)
    await runner.catch_up()
    await interrupted(projection, session_factory, after=50)
    handler.seen.clear()
    await rebuild(projection, session_factory, restart=True)
    assert handler.replayed == list(range(1, 201))
    await interrupted(projection, session_factory, after=50)
    handler.seen.clear()
    others = Projection("accounts", ACCOUNTS, {"Paid": Fold(handler), "Closed": Fold(paid)})
    await rebuild(others, session_factory)
    assert handler.replayed == list(range(1, 201))


async def test_what_an_interrupted_rebuild_has_left_can_be_dropped(
    database, session_factory, store, events, runner, projection
):
    """Dropped at once, with its position; the projection stays as it is."""
    await pay(events, 200)
    await runner.catch_up()
    await interrupted(projection, session_factory, after=50)
    assert await abandon_rebuild(projection, session_factory)
    assert SHADOW not in await asyncio.to_thread(tables, database)
    assert await SQLAlchemyProjectionPositionStore(session_factory).all_positions() == {"accounts": 200}
    assert await total(store) == 200
    assert not await abandon_rebuild(projection, session_factory)


async def test_a_handler_that_fails_stops_the_rebuild_alone(
    session_factory, store, events, runner, handler, projection
):
    """The error names event and cause; the old table serves, and the mended handler goes on."""
    await pay(events, 50)
    await runner.catch_up()
    handler.fails_at = 33
    for _ in range(2):
        with pytest.raises(
            RebuildError, match=r"failed at event 33: ValueError: no such luck\. Readers have the table"
        ):
            await rebuild(projection, session_factory, batch_size=10)
    assert await total(store) == 50
    handler.fails_at = None
    assert await rebuild(projection, session_factory, batch_size=10) == 50
    assert await total(store) == 50


async def test_a_rebuild_gets_a_paused_projection_going(session_factory, store, events, runner, handler, projection):
    """The handlers that rebuilt it have passed the event at which it was paused, and those that were parked."""
    control, letters = SQLAlchemyProjectionControl(session_factory), SQLAlchemyDeadLetterStore(session_factory)
    handler.fails_at = 3
    await pay(events, 10)
    with pytest.raises(ProjectionPausedError):
        await runner.catch_up()
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        (event,) = await events.get_events_after(1, limit=1)
        await letters.park("accounts", [event], uow=uow)
    handler.fails_at = None
    await rebuild(projection, session_factory)
    (status,) = await control.status()
    assert (status.state, status.error, status.failures, status.parked) == ("stopped", None, 0, 0)
    await pay(events, 1)
    assert await runner.catch_up() == 11
    assert await total(store) == 11


async def test_of_two_rebuilds_one_goes_on(session_factory, store, events, runner, projection):
    """While another process has the lease, a rebuild is refused; when that one has died, it goes on."""
    await pay(events, 30)
    await runner.catch_up()
    other = Leases(
        "accounts (rebuild)", "other", timedelta(seconds=1), lambda: SQLAlchemyUnitOfWork(session_factory), None
    )
    assert await other.acquire()
    with pytest.raises(RebuildError, match="'accounts' is being rebuilt by another process; wait for it to end"):
        await rebuild(projection, session_factory, patience=Patience(rebuild_seconds=0.0))
    assert await rebuild(projection, session_factory) == 30
    assert await total(store) == 30


@ONLY_POSTGRESQL
async def test_events_that_come_in_the_middle_of_the_swap_count_once(
    session_factory, store, events, runner, projection, monkeypatch
):
    """On PostgreSQL others append while the swap reads; SQLite lets nobody write meanwhile."""
    await pay(events, 20)
    await runner.catch_up()
    read, came = SQLAlchemyEventStore.get_events_after, []

    async def read_late(self, position, **options):
        if options.get("uow") is not None and not came:
            came.append(await pay(events, 5))
        return await read(self, position, **options)

    swap = _Rebuild._swap  # the last page is read in it, which no public method tells

    async def behind(self, uow, connection):
        if not came:
            await pay(events, 1)
        return await swap(self, uow, connection)

    monkeypatch.setattr(SQLAlchemyEventStore, "get_events_after", read_late)
    monkeypatch.setattr(_Rebuild, "_swap", behind)
    assert await rebuild(projection, session_factory) == 26
    assert came == [26]
    assert await runner.catch_up() == 26
    assert await total(store) == 26


async def test_values_that_change_places_do_not_stop_the_swap(session_factory, store, events, monkeypatch):
    """What cannot be written all at once is left to the runner, which takes it apart."""
    moves = Projection("accounts", ACCOUNTS)

    @moves.fold("Moved", key=lambda event: event.payload["to"])
    def moved(row, event):
        return {"balance": 0, "email": event.payload["email"]}

    def move(name, email):
        return StoredEvent(aggregate_id=name, event_type="Moved", payload={"to": name, "email": email})

    await events.append([move("a", "x"), move("b", "y")])
    swap, late = _Rebuild._swap, [move("a", None), move("b", "x"), move("a", "y")]

    async def behind(self, uow, connection):
        if late:
            await events.append(late, uow=uow)
            await uow.commit()
            late.clear()
            raise NotYetError(9, "")
        return await swap(self, uow, connection)

    monkeypatch.setattr(_Rebuild, "_swap", behind)
    assert await rebuild(moves, session_factory) == 5
    assert [(row["id"], row["email"]) for row in await store.find("accounts")] == [("a", "y"), ("b", "x")]


async def test_a_long_reader_is_waited_for_in_short_turns(engine, session_factory, store, events, runner, projection):
    """On PostgreSQL others read between the tries; on SQLite a reader keeps what it sees and is in nobody's way."""
    await pay(events, 20)
    await runner.catch_up()
    patience = Patience(lock_seconds=0.1, lock_retries=2)
    async with engine.connect() as reader:
        await reader.execution_options(**READ_ONLY)
        await reader.execute(sa.text("SELECT count(*) FROM accounts"))
        if engine.dialect.name == "postgresql":
            with pytest.raises(RebuildError, match=r"in use for longer than 0\.1 seconds, at each of 3 tries"):
                await rebuild(projection, session_factory, patience=patience)
            assert await store.count("accounts") == 7
        else:
            assert await rebuild(projection, session_factory, patience=patience) == 20
        assert await reader.scalar(sa.text("SELECT count(*) FROM accounts")) == 7
    assert await rebuild(projection, session_factory, patience=patience) == 20


async def test_a_handler_that_misses_another_table_does_not_lose_the_rebuild(
    session_factory, store, events, runner, projection
):
    """The table is named as it is, and the rebuild goes on once it is there."""
    await pay(events, 10)
    await runner.catch_up()
    missing, other = ["elsewhere"], Projection("accounts", ACCOUNTS)

    @other.on("Paid")
    async def handler(event, view):
        if missing:
            raise CollectionNotFoundError(missing[0])
        await view.upsert(event.aggregate_id, paid(await view.find_one(event.aggregate_id), event))

    with pytest.raises(CollectionNotFoundError, match="collection 'elsewhere' is not in the database"):
        await rebuild(other, session_factory)
    missing.clear()
    assert await rebuild(other, session_factory) == 10
    assert await total(store) == 10
