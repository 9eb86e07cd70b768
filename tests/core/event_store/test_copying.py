"""Batches that are large enough to be copied: the same behaviour as that of small ones, on both databases."""
# ruff: noqa: PT012  (what must fail is the end of a block)

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.core import event_store
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError
from tests.support.engines import configured_engine
from tests.support.events import an_event, everything
from tests.support.kinds import ONLY_POSTGRESQL, PAST_SQLALCHEMY

MANY = 120


def a_batch(*streams, count=MANY):
    """Make events of some streams in turn."""
    return [an_event(streams[n % len(streams)], payload={"n": n}) for n in range(count)]


@pytest.fixture
def copied(monkeypatch):
    """What came of each attempt to copy."""
    outcomes, copy = [], event_store.copied

    async def noted(*arguments):
        try:
            outcomes.append(await copy(*arguments))
        except Exception as error:
            outcomes.append(error)
            raise
        return outcomes[-1]

    monkeypatch.setattr(event_store, "copied", noted)
    return outcomes


@PAST_SQLALCHEMY
async def test_come_back_as_they_are_read(store, copied):
    """The events returned are those that are read: numbered in their streams and in the order given."""
    await store.append([an_event("a"), an_event("b"), an_event("a")])
    given = [
        an_event(
            "a",
            aggregate_type="Order",
            payload={"price": Decimal("9.50"), "at": datetime(2026, 1, 2, tzinfo=UTC), "large": 2**70, "tiny": 1e23},
            metadata={"ß": ["日", None, True, {"x": 1.5}]},
            correlation_id="c",
            causation_id="d",
            schema_version=3,
        ),
        *a_batch("a", "b", "c"),
    ]
    appended = await store.append(given)
    assert copied == [appended]
    assert await store.get_events_after(3) == appended
    assert [event.version for event in appended if event.aggregate_id == "a"] == list(range(3, 44))
    assert [event.version for event in appended if event.aggregate_id == "c"] == list(range(1, 41))
    assert [event.event_id for event in appended] == [event.event_id for event in given]
    assert appended[0].payload == {
        "price": "9.50", "at": "2026-01-02T00:00:00Z", "large": 2**70, "tiny": 1e23,
    }  # fmt: skip


async def test_small_batches_and_claimed_positions_are_not_copied(store, copied):
    """A few events go in one statement, and so do those that say which positions they want."""
    await store.append(a_batch("a", count=5))
    claiming = [an_event("a", position=6 + n) for n in range(MANY)]
    assert [event.position for event in await store.append(claiming)] == [event.position for event in claiming]
    assert copied == []


@pytest.mark.parametrize("joined", [False, True], ids=["own", "joined"])
async def test_a_stale_version_is_refused_by_name(store, session_factory, joined):
    """A batch for another version of its stream writes nothing, says which is stored, and leaves the rest usable."""
    await store.append([an_event("a"), an_event("b")])
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await uow.session.connection()
        with pytest.raises(OptimisticConcurrencyError, match="expected version 0, found 1") as refused:
            if joined:
                await store.append([an_event("c")], uow=uow)
                await store.append(a_batch("a"), expected_version=0, uow=uow)
            else:
                await uow.rollback()
                await store.append(a_batch("a"), expected_version=0)
        assert (refused.value.expected, refused.value.actual) == (0, 1)
        if joined:
            await store.append([an_event("c")], uow=uow)
            await uow.commit()  # in spite of the conflict
    assert [event.aggregate_id for event in await everything(store)] == ["a", "b", *("c" for _ in range(2 * joined))]


async def test_one_claimed_version_refuses_the_batch(store):
    """A version that one event claims is compared, and nothing of the batch is written."""
    await store.append([an_event("b")])
    with pytest.raises(OptimisticConcurrencyError, match="expected version 0, found 1"):
        await store.append([*a_batch("a"), an_event("b", version=1)])
    assert len(await everything(store)) == 1


@pytest.mark.parametrize("joined", [False, True], ids=["own", "joined"])
async def test_a_repeated_event_id_is_refused_by_name(store, session_factory, joined):
    """An event that is stored already refuses its batch, which names it, and leaves the transaction usable."""
    [known] = await store.append([an_event("a")])
    batch = [*a_batch("b"), an_event("c", event_id=known.event_id)]
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        if joined:
            await store.append(a_batch("d"), uow=uow)
        with pytest.raises(OptimisticConcurrencyError, match=f"{known.event_id}.*stored already"):
            await store.append(batch, **({"uow": uow} if joined else {}))
        if joined:
            await store.append([an_event("d")], uow=uow)
            await uow.commit()  # in spite of the conflict
    streams = {event.aggregate_id for event in await everything(store)}
    assert streams == ({"a", "d"} if joined else {"a"})


async def test_rolled_back_they_are_gone(store, session_factory):
    """What is copied goes with its transaction, and with its savepoint."""
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await store.append(a_batch("a"), uow=uow)
        savepoint = await uow.session.begin_nested()
        await store.append(a_batch("a"), uow=uow)
        await savepoint.rollback()
        again = await store.append(a_batch("a"), uow=uow)
        assert again[0].version == MANY + 1
    assert len(await everything(store)) == 2 * MANY
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await store.append(a_batch("b"), uow=uow)
        await uow.rollback()
    assert len(await everything(store)) == 2 * MANY


async def test_writers_of_the_same_streams_all_get_in(store):
    """Batches for the same streams, in both orders, are all stored, each stream without a gap."""
    batches = [a_batch("a", "b") if n % 2 else a_batch("b", "a") for n in range(6)]
    await asyncio.gather(*(store.append(batch) for batch in batches))
    stored = await everything(store)
    for stream in ("a", "b"):
        versions = [event.version for event in stored if event.aggregate_id == stream]
        assert sorted(versions) == list(range(1, 3 * MANY + 1))
    assert len(stored) == 6 * MANY


async def test_with_expected_version_one_wins(store):
    """Of several batches for one version of a stream one is stored, the others are told."""
    answers = await asyncio.gather(
        *(store.append(a_batch("a"), expected_version=0) for _ in range(4)), return_exceptions=True
    )
    assert sum(isinstance(answer, OptimisticConcurrencyError) for answer in answers) == 3
    assert len(await everything(store)) == MANY


@PAST_SQLALCHEMY
async def test_a_version_taken_while_the_batch_is_on_its_way_is_decided_by_the_table(store, monkeypatch, copied):
    """What was read of a stream is not trusted: where another writer was quicker, the batch goes behind it."""
    fits, others = event_store.AppendPlan.fits, [[an_event("a")]]

    def read_before(self, actual):
        return fits(self, {name: 0 if others else version for name, version in actual.items()})

    to_copy = event_store.AppendPlan.to_copy

    def with_old_versions(self, versions, drawn):
        old = dict.fromkeys(versions, 0) if others and others.pop() else versions
        return to_copy(self, old, drawn)

    await store.append([an_event("a")])
    monkeypatch.setattr(event_store.AppendPlan, "fits", read_before)
    monkeypatch.setattr(event_store.AppendPlan, "to_copy", with_old_versions)
    appended = await store.append(a_batch("a"))
    assert copied == [None, appended]
    assert [event.version for event in await store.get_events("a")] == list(range(1, MANY + 2))


@ONLY_POSTGRESQL
async def test_readers_do_not_pass_them(store, session_factory):
    """A reader by position stops before a batch that is not committed yet, also when later events are."""
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        late = await store.append(a_batch("late"), uow=uow)
        await store.append(a_batch("early"))
        assert await store.get_events_after(0) == []
    read = await everything(store)
    assert read[:MANY] == late
    assert len(read) == 2 * MANY


async def test_positions_are_not_used_again(store, session_factory):
    """The position of an event that was deleted goes to no other."""
    last = (await store.append(a_batch("a")))[-1].position
    async with SQLAlchemyUnitOfWork(session_factory) as uow, store.allow_changes(uow=uow):
        await uow.session.execute(sa.text("DELETE FROM events"))
    assert (await store.append(a_batch("b")))[0].position > last


async def test_positions_given_by_hand_are_passed(store, session_factory, database):
    """Rows that were moved in with positions of their own are in nobody's way."""
    moved = """
        INSERT INTO events SELECT position + 50, event_id || 'x', aggregate_id || 'x', aggregate_type, event_type,
            version, payload, metadata, occurred_at, recorded_at, correlation_id, causation_id, schema_version
        FROM events
    """
    await store.append(a_batch("a", count=3))
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await uow.session.execute(sa.text(moved))
        if database.kind == "sqlite":
            await uow.session.execute(sa.text("DELETE FROM sqlite_sequence"))
    appended = await store.append(a_batch("b"))
    positions = [event.position for event in appended]
    assert positions == sorted(positions)
    assert not {51, 52, 53} & set(positions)
    assert await store.get_events("b") == appended


async def test_where_statements_are_listened_to_they_are_inserted(store, engine, copied):
    """Somebody who listens to statements sees those of a large batch, too."""
    seen = []
    sa.event.listen(engine.sync_engine, "before_cursor_execute", lambda *arguments: seen.append(arguments[2]))
    appended = await store.append(a_batch("a"))
    assert copied == []
    assert any("INSERT INTO events" in statement for statement in seen)
    assert await everything(store) == appended


@ONLY_POSTGRESQL
class TestARoleThatMayNotCopy:
    """Where a user may insert but not copy, large batches are inserted."""

    @pytest.fixture
    async def restricted(self, database, engine):
        """Make an engine of a user with the rights that appending needs, and no more."""
        role = f"appender_{uuid4().hex[:8]}"
        grants = (
            f"CREATE ROLE {role} LOGIN",
            f"GRANT SELECT, INSERT ON events TO {role}",
            f"GRANT SELECT ON events_position_seq TO {role}",
        )
        async with engine.begin() as connection:
            for grant in grants:
                await connection.execute(sa.text(grant))
        url = make_url(database.url).set(username=role)
        async with configured_engine(url) as made:
            yield made, role
        async with engine.begin() as connection:
            await connection.execute(sa.text(f"DROP OWNED BY {role}"))
            await connection.execute(sa.text(f"DROP ROLE {role}"))

    async def appended_twice(self, engine):
        store = SQLAlchemyEventStore(async_sessionmaker(engine))
        first = await store.append(a_batch("a"))
        async with SQLAlchemyUnitOfWork(async_sessionmaker(engine)) as uow:
            second = await store.append(a_batch("b"), uow=uow)
        assert await everything(store) == first + second

    @PAST_SQLALCHEMY
    async def test_without_the_right_to_use_the_sequence(self, restricted, copied):
        """A user who may not draw positions by hand appends all the same, and is not asked again."""
        engine, _ = restricted
        await self.appended_twice(engine)
        assert [type(each).__name__ for each in copied] == ["CannotCopyError"]

    async def test_in_a_unit_of_work_first(self, restricted, session_factory):
        """The caller's transaction outlives the refusal."""
        engine, _ = restricted
        store = SQLAlchemyEventStore(async_sessionmaker(engine))
        async with SQLAlchemyUnitOfWork(async_sessionmaker(engine)) as uow:
            await store.append([an_event("a")], uow=uow)
            await store.append(a_batch("a"), uow=uow)
        assert len(await everything(SQLAlchemyEventStore(session_factory))) == MANY + 1

    @PAST_SQLALCHEMY
    async def test_with_row_level_security(self, restricted, engine, copied):
        """Policies, which COPY does not know, are asked for each row that is inserted."""
        owned, role = restricted
        async with engine.begin() as connection:
            for statement in (
                f"GRANT USAGE ON events_position_seq TO {role}",
                "ALTER TABLE events ENABLE ROW LEVEL SECURITY",
                f"CREATE POLICY everything ON events TO {role} USING (true) WITH CHECK (true)",
            ):
                await connection.execute(sa.text(statement))
        await self.appended_twice(owned)
        assert [type(each).__name__ for each in copied] == ["CannotCopyError"]
