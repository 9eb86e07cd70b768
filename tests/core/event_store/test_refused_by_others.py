"""Batches that something of the application's is in the way of: a trigger, a check, an index."""

from __future__ import annotations

from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.core import event_store
from cqrs_ddd_persistence_sqlalchemy.exceptions import PersistenceError
from tests.support.events import an_event, everything

SIZES = [2, 12, 120]


@pytest.fixture
async def no_odd_ones(engine, database):
    """A rule of the application's: no event of the type 'Odd'."""
    rules = {
        "postgresql": "ALTER TABLE events ADD CONSTRAINT no_odd_ones CHECK (event_type <> 'Odd')",
        "sqlite": """
            CREATE TRIGGER no_odd_ones BEFORE INSERT ON events WHEN NEW.event_type = 'Odd'
            BEGIN SELECT RAISE(ABORT, 'no odd ones'); END
        """,
    }
    async with engine.begin() as connection:
        await connection.execute(sa.text(rules[database.kind]))


@pytest.mark.parametrize("size", SIZES)
async def test_nothing_of_the_batch_is_kept(store, session_factory, no_odd_ones, size):
    """The error is the caller's; what else the unit of work has done is kept, and the batch is not, in any part."""
    batch = [*(an_event("b", event_type="Fine") for _ in range(size - 1)), an_event("b", event_type="Odd")]
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await store.append([an_event("a")], uow=uow)
        with pytest.raises(DBAPIError, match="odd"):
            await store.append(batch, uow=uow)
        await store.append([an_event("a")], uow=uow)
    assert [event.aggregate_id for event in await everything(store)] == ["a", "a"]


@pytest.mark.parametrize("size", SIZES)
async def test_nothing_is_kept_of_a_batch_by_itself(store, no_odd_ones, size):
    """The same in a transaction of its own."""
    batch = [*(an_event("b", event_type="Fine") for _ in range(size - 1)), an_event("b", event_type="Odd")]
    with pytest.raises(DBAPIError, match="odd"):
        await store.append(batch)
    assert await everything(store) == []


@pytest.mark.parametrize("size", [1, *SIZES])
async def test_an_index_of_the_applications_is_told_of_in_the_end(store, engine, monkeypatch, size):
    """What no version and no event id explains is an error, and not tried again for ever."""
    monkeypatch.setattr(event_store, "_TRIES", 3)
    async with engine.begin() as connection:
        await connection.execute(sa.text("CREATE UNIQUE INDEX own ON events (correlation_id)"))
    await store.append([an_event("a", correlation_id="c")])
    batch = [*(an_event("b") for _ in range(size - 1)), an_event("b", correlation_id="c")]
    with pytest.raises(PersistenceError, match="look for a unique index or a trigger of your own"):
        await store.append(batch)
    assert len(await everything(store)) == 1


BAD = [
    ("correlation_id", "a\0b"),
    ("causation_id", "\ud800"),
    ("correlation_id", UUID(int=5)),
    ("aggregate_type", 5),
    ("aggregate_type", "a\0b"),
    ("correlation_id", "x" * 256),
    ("schema_version", "2"),
    ("schema_version", True),
    ("schema_version", 2**31),
]


@pytest.mark.parametrize(("name", "value"), BAD)
@pytest.mark.parametrize("size", [1, *SIZES])
async def test_values_past_the_model_are_refused_in_batches_of_any_size(store, name, value, size):
    """`model_copy(update=...)` checks nothing, so append does, however it is going to send them."""
    events = [an_event("a") for _ in range(size)]
    events[-1] = events[-1].model_copy(update={name: value})
    with pytest.raises(ValueError, match=name):
        await store.append(events)
    assert await everything(store) == []
