"""When an append is refused, what the error tells, and what it leaves behind."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import pytest

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError
from tests.core.bystander import so_many_wait
from tests.support.events import an_event, everything, places
from tests.support.waiting import until


class TestExpectedVersion:
    async def test_zero_is_for_a_new_stream(self, store):
        """expected_version=0 appends to a stream that has no events, once."""
        await store.append([an_event(aggregate_type="Order")], expected_version=0)
        with pytest.raises(OptimisticConcurrencyError) as caught:
            await store.append([an_event(aggregate_type="Order")], expected_version=0)
        assert str(caught.value) == "Order 'order-1': expected version 0, found 1; reload it and try again"
        assert (caught.value.entity_type, caught.value.entity_id) == ("Order", "order-1")
        assert (caught.value.expected, caught.value.actual) == (0, 1)

    @pytest.mark.parametrize("count", [1, 2])
    @pytest.mark.parametrize(("expected", "refused"), [(0, True), (1, True), (2, False), (3, True), (2**63 - 1, True)])
    async def test_must_be_the_streams_own(self, store, expected, refused, count):
        """A version too low or too high is refused, whatever the size of the batch, and nothing of it is written."""
        await store.append([an_event(), an_event()])
        batch = [an_event() for _ in range(count)]
        if refused:
            with pytest.raises(
                OptimisticConcurrencyError, match=f"stream 'order-1': expected version {expected}, found 2"
            ) as caught:
                await store.append(batch, expected_version=expected)
            assert (caught.value.expected, caught.value.actual) == (expected, 2)
            assert len(await store.get_events("order-1")) == 2
        else:
            assert [event.version for event in await store.append(batch, expected_version=2)] == [3, 4][:count]

    async def test_is_of_one_stream(self, store):
        """expected_version together with several streams is a mistake that is named."""
        with pytest.raises(ValueError, match=r"expected_version is of one stream, the events are of 2: \['a', 'b'\]"):
            await store.append([an_event("a"), an_event("b")], expected_version=0)

    @pytest.mark.parametrize("value", [-1, True, 1.0, "1", 2**63])
    async def test_is_a_whole_number(self, store, value):
        """What is no whole number of BIGINT's range is refused by name."""
        with pytest.raises(ValueError, match="expected_version must be a whole number from 0"):
            await store.append([an_event()], expected_version=value)

    async def test_the_loser_is_told_of_the_stream_that_is_behind(self, store):
        """Of a batch over several streams the error names the one that is in the way."""
        await store.append([an_event("a"), an_event("b"), an_event("b")])
        with pytest.raises(OptimisticConcurrencyError, match="stream 'b': expected version 1, found 2"):
            await store.append([an_event("a", version=2), an_event("b", version=2)])
        assert await store.last_position() == 3


class TestClaimedVersions:
    async def test_the_next_ones_are_accepted(self, store):
        """Explicit versions that continue the stream are stored as they are."""
        await store.append([an_event(version=1), an_event(version=2), an_event("b", version=1)])
        assert places(await store.append([an_event(version=3)])) == [("order-1", 3, 4)]

    async def test_one_claim_speaks_for_the_batch(self, store):
        """An event without a version among ones with gets the version in between."""
        stored = await store.append([an_event(), an_event(version=2), an_event()])
        assert [event.version for event in stored] == [1, 2, 3]

    @pytest.mark.parametrize("version", [1, 2, 4, 2**63 - 1])
    async def test_others_are_refused(self, store, version):
        """An explicit version that is not the stream's next is a conflict, like a second append of the same version."""
        await store.append([an_event(), an_event()])
        with pytest.raises(
            OptimisticConcurrencyError, match=f"stream 'order-1': expected version {version - 1}, found 2"
        ):
            await store.append([an_event(version=version)])
        assert len(await store.get_events("order-1")) == 2

    @pytest.mark.parametrize("versions", [(1, 3), (2, 1), (1, 1), (None, 1), (1, None, 2)])
    async def test_must_fit_each_other(self, store, versions):
        """Versions of one stream that leave a gap or repeat each other within the batch are a conflict."""
        with pytest.raises(OptimisticConcurrencyError, match="stream 'order-1'"):
            await store.append([an_event(version=version) for version in versions])
        assert await store.last_position() == 0

    async def test_must_fit_expected_version(self, store):
        """A version that contradicts expected_version is a conflict."""
        await store.append([an_event(), an_event()])
        with pytest.raises(OptimisticConcurrencyError, match="expected version 3, found 2"):
            await store.append([an_event(version=4)], expected_version=2)
        with pytest.raises(OptimisticConcurrencyError, match="stream 'order-1'"):
            await store.append([an_event(version=3)], expected_version=1)
        assert [event.version for event in await store.append([an_event(version=3)], expected_version=2)] == [3]


class TestClaimedPositions:
    async def test_the_next_ones_are_accepted(self, store):
        """Explicit positions that turn out to be the ones assigned are accepted."""
        await store.append([an_event(position=1)])
        stored = await store.append([an_event("b", position=2), an_event("c"), an_event("b", position=4)])
        assert [event.position for event in stored] == [2, 3, 4]

    @pytest.mark.parametrize("position", [1, 3, 2**63 - 1])
    async def test_others_are_refused(self, store, position):
        """A position that is taken, or further on, is a conflict, and nothing is written."""
        await store.append([an_event()])
        with pytest.raises(
            OptimisticConcurrencyError, match=rf"claims position {position}, the next is \d+; leave it None"
        ) as caught:
            await store.append([an_event(position=position)])
        assert caught.value.expected == position
        assert len(await store.get_events("order-1")) == 1

    async def test_one_wrong_claim_refuses_the_batch(self, store):
        """One event at another position than it claims takes the whole batch back."""
        with pytest.raises(OptimisticConcurrencyError, match="claims position 3"):
            await store.append([an_event("a", position=1), an_event("b", position=3), an_event("c")])
        assert await store.last_position() == 0
        assert await everything(store) == []

    async def test_a_wrong_version_is_told_before_a_wrong_position(self, store):
        """Where both claims are wrong the error is of the version, which the caller can do something about."""
        await store.append([an_event()])
        with pytest.raises(OptimisticConcurrencyError, match="expected version 4, found 1"):
            await store.append([an_event(version=5, position=9)])


class TestEventIds:
    async def test_once_in_a_batch(self, store):
        """An event_id twice in one batch is a conflict that names it."""
        with pytest.raises(
            OptimisticConcurrencyError, match="^event 'e-1': the batch has this event_id twice"
        ) as caught:
            await store.append([an_event("a", event_id="e-1"), an_event("b", event_id="e-1")])
        assert (caught.value.entity_type, caught.value.entity_id) == ("event", "e-1")
        assert await store.last_position() == 0

    @pytest.mark.parametrize("count", [1, 3])
    async def test_once_in_the_store(self, store, count):
        """An event_id that is stored already, in whichever stream, is a conflict that names it."""
        await store.append([an_event("a", event_id="e-1")])
        batch = [*(an_event("b") for _ in range(count - 1)), an_event("b", event_id="e-1")]
        with pytest.raises(OptimisticConcurrencyError, match="^event 'e-1': an event with this event_id is stored"):
            await store.append(batch)
        assert await store.get_events("b") == []

    async def test_a_batch_sent_again_is_refused_whole(self, store):
        """A retry of a batch that was stored changes nothing."""
        batch = [an_event(), an_event(), an_event("b")]
        await store.append(batch)
        with pytest.raises(OptimisticConcurrencyError, match="is stored already"):
            await store.append(batch)
        assert len(await everything(store)) == 3

    async def test_in_a_batch_of_thousands(self, store):
        """The one repeated event_id among thousands is found and named."""
        await store.append([an_event("a", event_id="e-1")])
        with pytest.raises(OptimisticConcurrencyError, match="^event 'e-1'"):
            await store.append([*(an_event("b") for _ in range(2500)), an_event("b", event_id="e-1")])
        assert await store.last_position() == 1

    async def test_another_writers_event_id_decides_when_it_commits(self, store, session_factory, engine, database):
        """An event_id that another transaction is about to store is waited for, and refused once it is stored."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await store.append([an_event("a", event_id="e-1")], uow=uow)
            task = asyncio.create_task(store.append([an_event("b", event_id="e-1")]))
            if database.kind == "postgresql":
                await until(lambda: so_many_wait(engine, 1))
        with pytest.raises(OptimisticConcurrencyError, match="^event 'e-1'"):
            await task
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await store.append([an_event("a", event_id="e-2")], uow=uow)
            task = asyncio.create_task(store.append([an_event("b", event_id="e-2")]))
            if database.kind == "postgresql":
                await until(lambda: so_many_wait(engine, 1))
            await uow.rollback()
        assert len(await task) == 1


class TestRefusals:
    """What a refused append leaves behind: nothing, in a transaction that goes on."""

    REFUSED: ClassVar = {
        "expected_version": ([an_event(), an_event()], {"expected_version": 9}),
        "expected_version of one": ([an_event()], {"expected_version": 9}),
        "version": ([an_event("new"), an_event(version=9)], {}),
        "position": ([an_event("new"), an_event(position=99)], {}),
        "event_id": ([an_event("new"), an_event(event_id="stored")], {}),
        "event_id of one": ([an_event(event_id="stored")], {}),
        "event_id twice": ([an_event("new", event_id="new"), an_event(event_id="new")], {}),
    }

    @pytest.mark.parametrize("case", REFUSED)
    async def test_leave_the_callers_transaction_usable(self, store, session_factory, case):
        """After any refusal the unit of work reads, writes and commits, and has nothing of the refused batch."""
        batch, options = self.REFUSED[case]
        await store.append([an_event(event_id="stored")])
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await store.append([an_event("before")], uow=uow)
            with pytest.raises(OptimisticConcurrencyError):
                await store.append(batch, uow=uow, **options)
            assert await store.get_events("new", uow=uow) == []
            await store.append([an_event("after")], uow=uow)
            await uow.commit()
        assert [event.aggregate_id for event in await everything(store)] == ["order-1", "before", "after"]

    @pytest.mark.parametrize("case", REFUSED)
    async def test_leave_nothing_in_a_transaction_of_their_own(self, store, case):
        """A refused append without a unit of work writes nothing, and the next one goes through."""
        batch, options = self.REFUSED[case]
        await store.append([an_event(event_id="stored")])
        with pytest.raises(OptimisticConcurrencyError):
            await store.append(batch, **options)
        await store.append([an_event("after")])
        assert [event.aggregate_id for event in await everything(store)] == ["order-1", "after"]

    async def test_leave_the_callers_savepoint_usable(self, store, session_factory):
        """A refusal inside the caller's savepoint concerns nothing but itself."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            async with uow.session.begin_nested():
                await store.append([an_event("a")], uow=uow)
                with pytest.raises(OptimisticConcurrencyError):
                    await store.append([an_event("b"), an_event("b")], expected_version=4, uow=uow)
                await store.append([an_event("c")], uow=uow)
            await uow.commit()
        assert [event.aggregate_id for event in await everything(store)] == ["a", "c"]
