"""One owner's turn at a projection: page by page, each applied in one unit of work that also saves the position."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from sqlalchemy.exc import DBAPIError

from cqrs_ddd_advanced_core.error_text import described
from cqrs_ddd_persistence_sqlalchemy.advanced.running.applying import EventFailedError
from cqrs_ddd_persistence_sqlalchemy.advanced.running.patience import backoff_seconds, is_passing
from cqrs_ddd_persistence_sqlalchemy.core.meanwhile import meanwhile
from cqrs_ddd_persistence_sqlalchemy.exceptions import ProjectionPausedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from cqrs_ddd_advanced_core.events import StoredEvent
    from cqrs_ddd_advanced_core.ports import IEventStore
    from cqrs_ddd_persistence_sqlalchemy.advanced.positions import SQLAlchemyProjectionPositionStore
    from cqrs_ddd_persistence_sqlalchemy.advanced.running.applying import Applier
    from cqrs_ddd_persistence_sqlalchemy.advanced.running.dead_letters import DeadLetter, SQLAlchemyDeadLetterStore
    from cqrs_ddd_persistence_sqlalchemy.advanced.running.leases import Lease, Leases
    from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork

logger = logging.getLogger(__name__)

OnFailure = Literal["pause", "park"]


@dataclass(frozen=True)
class Policy:
    """What happens to an event whose handler fails.

    Attributes:
        on_failure: after the last attempt: "pause" the projection, or "park" the event and go on.
        max_attempts: in all, across owners.
        backoff: before the second attempt; doubled before each further one, up to `max_backoff`.
    """

    on_failure: OnFailure
    max_attempts: int
    backoff: timedelta
    max_backoff: timedelta

    def wait_seconds(self, failures: int) -> float:
        """Return how long to wait after so many failures, with jitter: up to a fifth less."""
        return backoff_seconds(failures, self.backoff, self.max_backoff)


@dataclass(frozen=True)
class Parts:
    """What a turn works with; all of it belongs to one projection."""

    name: str
    event_types: tuple[str, ...] | None
    aggregate_types: tuple[str, ...] | None
    events: IEventStore
    positions: SQLAlchemyProjectionPositionStore
    letters: SQLAlchemyDeadLetterStore
    leases: Leases
    applier: Applier
    uow_factory: Callable[[], SQLAlchemyUnitOfWork]
    policy: Policy
    batch_size: int


class _Ahead(NamedTuple):
    """A page read before its time: so many events after a position."""

    after: int
    size: int
    page: list[StoredEvent]


class Turn:
    """From the lease taken to the lease lost or given back.

    Attributes:
        position: saved last.
        is_lost: whether the lease was found to be lost between the batches.
        has_replayed: whether the last step was about parked events.
        reads_ahead: whether the next page is read while one is applied.
    """

    def __init__(self, parts: Parts, lease: Lease, position: int, *, has_letters: bool) -> None:
        self.position = position
        self.lease = lease
        self.is_lost = False
        self.has_replayed = False
        self.reads_ahead = False
        self._parts = parts
        self._ahead: _Ahead | None = None
        self._readable = position
        self._size = parts.batch_size
        self._has_letters = has_letters
        self._has_failed = lease.has_failed

    @classmethod
    async def begin(cls, parts: Parts) -> Turn | None:
        """Take the lease, and begin where the last owner has ended; None while another one holds it."""
        lease = await parts.leases.acquire()
        if lease is None:
            return None
        try:
            position = await parts.positions.get_position(parts.name) or 0
            return cls(parts, lease, position, has_letters=await parts.letters.has_any(parts.name))
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to tell; the lease ends by itself
                await asyncio.shield(asyncio.ensure_future(parts.leases.release(lease)))
            raise

    async def step(self) -> float | None:
        """Handle what there is, up to a batch.

        Returns:
            The seconds after which there is more to do: 0 for at once, more after a failure; None when there is
            nothing to do until somebody appends.

        Raises:
            LeaseLostError: and nothing of the batch has happened.
            OptimisticConcurrencyError: the same, as somebody else has moved the position.
            ProjectionPausedError: an event has failed for the last time.
        """
        self.has_replayed = self._has_letters and await self._replay()
        if self.has_replayed:
            return 0.0
        parts = self._parts
        if self.position >= self._readable:
            self._readable = await parts.events.last_position()
        if self.position >= self._readable:
            return None
        size = self._size
        page = await self._page(size)
        # Other types' events are passed by too. A page that is not full has all there was when _readable was asked.
        last = page[-1].position or 0 if page else 0
        end = last if len(page) == size else max(self._readable, last)
        try:
            if self.reads_ahead and end < self._readable:
                await self._advance_and_read(page, end)
            else:
                await self._advance(page, end)
        except EventFailedError as error:
            if not page or is_passing(error.cause, of_handler=True):
                raise error.cause from None
            return await self._failed(page, error)
        self._size = self._next_size
        return 0.0

    @property
    def _next_size(self) -> int:
        """How many events the next page has if this one succeeds: twice as many, after failures have made it small."""
        return min(self._parts.batch_size, self._size * 2)

    async def _page(self, size: int) -> list[StoredEvent]:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and (ahead.after, ahead.size) == (self.position, size):
            return ahead.page
        return await self._read(self.position, size)

    async def _read(self, after: int, size: int) -> list[StoredEvent]:
        parts = self._parts
        return await parts.events.get_events_after(
            after, limit=size, event_types=parts.event_types, aggregate_types=parts.aggregate_types
        )

    async def _advance_and_read(self, page: list[StoredEvent], end: int) -> None:
        """Apply a page while the next one is being read, on a connection of its own."""
        async with meanwhile(self._read(end, self._next_size)) as reading:
            try:
                await self._advance(page, end)
            finally:
                await asyncio.wait([reading])  # cancelled on its way, a statement costs the pool its connection
            if reading.exception() is None:  # else the next step finds out
                self._ahead = _Ahead(end, self._next_size, reading.result())

    async def _advance(self, page: list[StoredEvent], end: int) -> None:
        parts = self._parts
        async with parts.uow_factory() as uow:
            # On SQLite the transaction has the write lock from here on: nobody takes over while a handler is slow.
            await uow.session.connection()
            if self._has_letters and page:
                page = await self._without_blocked(page, uow)
            await parts.applier.apply(page, uow)
            await self._finish(end, uow)
            await _commit(uow)
        self.position = end
        self._has_failed = False

    async def _finish(self, end: int, uow: SQLAlchemyUnitOfWork) -> None:
        """Fence and save the position, last of all before the commit."""
        parts = self._parts
        await parts.leases.renew(self.lease, uow=uow, forget=self._has_failed)
        await parts.positions.save_position(parts.name, end, expected=self.position, uow=uow)

    async def _without_blocked(self, page: list[StoredEvent], uow: SQLAlchemyUnitOfWork) -> list[StoredEvent]:
        """Park the events whose streams have parked ones, which they must not overtake; return the others."""
        parts = self._parts
        blocked = await parts.letters.streams(parts.name, (event.aggregate_id for event in page), uow=uow)
        behind = [event for event in page if event.aggregate_id in blocked]
        await parts.letters.park(parts.name, behind, uow=uow)
        return [event for event in page if event.aggregate_id not in blocked]

    async def _failed(self, page: list[StoredEvent], error: EventFailedError) -> float:
        """Narrow a failed page down to the event; then count, wait, and in the end pause or park."""
        parts, event = self._parts, page[0]
        if len(page) > 1:
            # The handlers before the failed one have succeeded: that many again; the failed one is first then.
            at = error.position
            before = len(page) // 2 if at is None else sum((each.position or 0) < at for each in page)
            self._size = max(1, before)
            return 0.0
        text = described(error.cause)
        position = event.position or 0
        failures = await parts.leases.note_failure(self.lease, position, text)
        self._has_failed = True
        logger.warning(
            "projection %r: attempt %d of %d at event %d (%s) failed: %s",
            *(parts.name, failures, parts.policy.max_attempts, position, event.event_type, text),
            exc_info=error.cause if failures == 1 else None,  # the others look the same
        )
        if failures < parts.policy.max_attempts:
            return parts.policy.wait_seconds(failures)
        if parts.policy.on_failure == "pause":
            await parts.leases.pause(self.lease)
            raise ProjectionPausedError(parts.name, position, text)
        async with parts.uow_factory() as uow:
            await parts.letters.park(parts.name, [event], uow=uow, error=text, failures=failures)
            await self._finish(position, uow)
            await uow.commit()
        logger.error("projection %r: event %d is parked", parts.name, position)
        self.position, self._has_failed, self._has_letters = position, False, True
        return 0.0

    async def _replay(self) -> bool:
        """Try some of the parked events again that somebody has asked for; False when there were none."""
        requested = await self._parts.letters.parked(self._parts.name, requested=True)
        if requested:
            await self._replay_some(requested)
            self._has_letters = await self._parts.letters.has_any(self._parts.name)
        return bool(requested)

    async def _replay_some(self, requested: list[DeadLetter]) -> None:
        parts = self._parts
        waiting: set[str] = set()
        for letter in requested:
            if letter.aggregate_id in waiting:
                continue
            try:
                await self._replay_one(letter)
            except EventFailedError as error:
                if is_passing(error.cause, of_handler=True):
                    raise error.cause from None
                waiting.add(letter.aggregate_id)
                async with parts.uow_factory() as uow:
                    await parts.letters.keep(parts.name, letter, described(error.cause), uow=uow)
                    await parts.leases.renew(self.lease, uow=uow)
                    await uow.commit()

    async def _replay_one(self, letter: DeadLetter) -> None:
        parts = self._parts
        events = await parts.events.get_events_after(letter.event_position - 1, limit=1)
        async with parts.uow_factory() as uow:
            found = [event for event in events if event.position == letter.event_position]
            if not found:
                logger.warning("projection %r: event %d is gone, and so forgotten", parts.name, letter.event_position)
            await parts.applier.apply(found, uow)
            await parts.letters.discard(parts.name, [letter.event_position], uow=uow)
            await parts.leases.renew(self.lease, uow=uow)
            await _commit(uow)


async def _commit(uow: SQLAlchemyUnitOfWork) -> None:
    """Commit what handlers have done, which a constraint may refuse only now.

    An explicit commit, as a conflict that a handler has caught is its own affair.
    """
    try:
        await uow.commit()
    except DBAPIError as error:
        raise EventFailedError from error
