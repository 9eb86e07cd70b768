"""An event that is appended by itself: one statement, without a transaction around it, and as safe as one."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError
from tests.core.bystander import locks, scalar
from tests.support.events import an_event, everything
from tests.support.kinds import ONLY_POSTGRESQL
from tests.support.waiting import until

SLOW_COMMIT = (
    """
    CREATE FUNCTION wait_in_commit() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NULL; END $$
    """,
    """
    CREATE CONSTRAINT TRIGGER waits_in_commit AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.event_type = 'Slow') EXECUTE FUNCTION wait_in_commit()
    """,
)


@ONLY_POSTGRESQL
async def test_readers_do_not_pass_one_that_is_being_committed(store, engine):
    """An event that has its position and is not committed yet holds readers, though nobody has sent a BEGIN for it."""
    async with engine.begin() as connection:
        for statement in SLOW_COMMIT:
            await connection.execute(sa.text(statement))
    async with engine.connect() as gate:
        await gate.execute(sa.text("SELECT pg_advisory_lock(4711)"))
        slow = asyncio.create_task(store.append([an_event("slow", event_type="Slow")]))
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted"
        await until(lambda: scalar(engine, waits))
        query = await scalar(engine, "SELECT query FROM pg_stat_activity WHERE wait_event = 'advisory'")
        assert query.startswith("WITH known")  # the statement that inserts, and no COMMIT of its own
        [fast] = await store.append([an_event("fast")])
        assert await store.get_events_after(0) == []
        assert await store.last_position() == 0
        await gate.execute(sa.text("SELECT pg_advisory_unlock(4711)"))
        [late] = await slow
    assert late.position < fast.position
    assert await everything(store) == [late, fast]
    assert await locks(engine) == 0


async def test_it_is_refused_by_name(store):
    """A version or an event id in the way is told, and nothing is written."""
    [known] = await store.append([an_event("a")], expected_version=0)
    with pytest.raises(OptimisticConcurrencyError, match="expected version 0, found 1"):
        await store.append([an_event("a")], expected_version=0)
    with pytest.raises(OptimisticConcurrencyError, match="stored already"):
        await store.append([an_event("b", event_id=known.event_id)])
    assert await everything(store) == [known]


async def test_writers_of_one_stream_all_get_in(store):
    """Each event that says nothing of versions finds its place, also where many come at once."""
    await asyncio.gather(*(store.append([an_event("a")]) for _ in range(30)))
    assert [event.version for event in await store.get_events("a")] == list(range(1, 31))
