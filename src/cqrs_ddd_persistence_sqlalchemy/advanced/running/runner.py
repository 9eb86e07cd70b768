"""ProjectionRunner: keeps a read model up to date with the event store."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from cqrs_ddd_advanced_core.error_text import described
from cqrs_ddd_persistence_sqlalchemy.advanced.positions import SQLAlchemyProjectionPositionStore
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.store import SQLAlchemyProjectionStore
from cqrs_ddd_persistence_sqlalchemy.advanced.running.applying import Applier
from cqrs_ddd_persistence_sqlalchemy.advanced.running.dead_letters import SQLAlchemyDeadLetterStore
from cqrs_ddd_persistence_sqlalchemy.advanced.running.leases import Leases
from cqrs_ddd_persistence_sqlalchemy.advanced.running.listening import Listener
from cqrs_ddd_persistence_sqlalchemy.advanced.running.patience import Outage, is_passing, wait_until
from cqrs_ddd_persistence_sqlalchemy.advanced.running.settings import check_counts, check_durations, this_process
from cqrs_ddd_persistence_sqlalchemy.advanced.running.turn import OnFailure, Parts, Policy, Turn
from cqrs_ddd_persistence_sqlalchemy.core.channels import EVENTS_CHANNEL
from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_of
from cqrs_ddd_persistence_sqlalchemy.core.scope import SessionScope
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_id, check_schema
from cqrs_ddd_persistence_sqlalchemy.exceptions import (
    LeaseLostError,
    OptimisticConcurrencyError,
    ProjectionPausedError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from cqrs_ddd_advanced_core.ports import IEventStore
    from cqrs_ddd_advanced_core.projections.projection import Projection
    from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork

logger = logging.getLogger(__name__)

REBUILD_SUFFIX = " (rebuild)"
_MOST_AT_ONCE = 10_000


class ProjectionRunner:
    """Reads events by position, applies them to a projection and saves the position with them, each batch at once.

    However many processes start a runner of one projection, one works and the others wait for its lease to end. An
    event is applied once: rows and position commit together or not at all. Events of other types than the projection
    has handlers for are passed over.

    An event whose handler fails is tried again after a while, on its own; after `max_attempts` the projection pauses,
    or parks the event with the later ones of its stream and goes on. What is no event's fault, such as a lost
    connection or a missing table, is waited for as long as it takes.

    Args:
        event_store: to read from.
        projection: with its handlers.
        uow_factory: makes units of work that are not open yet; each batch has one.
        positions: where the position is kept; `projection_positions` unless given.
        schema: the database schema of the projection and the library's tables; the connection's default when omitted.
        batch_size: events a transaction, at most; up to 10,000.
        lease: how long others wait for a runner that has died. It is renewed at a third of that.
        poll_interval: between looks for new events. On PostgreSQL, an event store with `notify=True` wakes the runner
            at once, where its connection can LISTEN.
        on_failure: what happens after the last attempt: "pause" or "park".
        max_attempts: at an event by itself, in all.
        backoff: before the second attempt; doubled before each further one, up to a minute.
        owner: shown by `status`; host, process and a random part unless given. No two runners share one.
        replay: what `event.replay` says; a rebuild sets it.

    Raises:
        ValueError: naming an argument that makes no sense.
    """

    def __init__(  # noqa: PLR0913  (each is a setting that a deploy may want to change)
        self,
        event_store: IEventStore,
        projection: Projection,
        uow_factory: Callable[[], SQLAlchemyUnitOfWork],
        *,
        positions: SQLAlchemyProjectionPositionStore | None = None,
        schema: str | None = None,
        batch_size: int = 500,
        lease: timedelta = timedelta(seconds=30),
        poll_interval: timedelta = timedelta(seconds=0.5),
        on_failure: OnFailure = "pause",
        max_attempts: int = 5,
        backoff: timedelta = timedelta(seconds=1),
        owner: str | None = None,
        replay: bool = False,
    ) -> None:
        check_counts(batch_size=batch_size, max_attempts=max_attempts)
        check_durations(lease=lease, poll_interval=poll_interval, backoff=backoff)
        if on_failure not in {"pause", "park"}:
            raise ValueError(f"on_failure is 'pause' or 'park', not {on_failure!r}")
        if projection.event_types == ():
            raise ValueError(f"projection {projection.name!r} has no handlers: there is nothing to run")
        if projection.name.endswith(REBUILD_SUFFIX) and not replay:
            raise ValueError(
                f"projection {projection.name!r}: names that end in {REBUILD_SUFFIX!r} are those of rebuilds"
            )
        if batch_size > _MOST_AT_ONCE:
            raise ValueError(f"batch_size is {batch_size}: it is at most {_MOST_AT_ONCE}")
        owner = check_id("owner", this_process() if owner is None else owner)
        check_schema(schema)
        self.projection = projection
        self.positions = positions or SQLAlchemyProjectionPositionStore(uow_factory=uow_factory, schema=schema)
        self._poll_seconds = poll_interval.total_seconds()
        self._renew_seconds = lease.total_seconds() / 3
        self._scope = SessionScope(type(self).__name__, uow_factory=uow_factory)
        store = SQLAlchemyProjectionStore(uow_factory=uow_factory, schemas=[projection.schema], schema=schema)
        self._parts = Parts(
            name=projection.name,
            event_types=projection.event_types,
            aggregate_types=projection.aggregate_types,
            events=event_store,
            positions=self.positions,
            letters=SQLAlchemyDeadLetterStore(uow_factory=uow_factory, schema=schema),
            leases=Leases(projection.name, owner, lease, uow_factory, schema),
            applier=Applier(projection, store, replay=replay),
            uow_factory=uow_factory,
            policy=Policy(on_failure, max_attempts, backoff, max(backoff, timedelta(minutes=1))),
            batch_size=batch_size,
        )
        self._stopped = asyncio.Event()
        self._news = asyncio.Event()
        self._batch = asyncio.Lock()
        self._one_writer: bool | None = None
        self._outage = Outage()

    async def run(self) -> None:
        """Keep the projection up to date until `stop()`, or until the task is cancelled.

        Waits while another runner holds the lease, or while the projection is paused.
        """
        self._outage = Outage()
        async with self._until_stopped(), Listener(self._scope, EVENTS_CHANNEL, self._news.set):
            while not self._stopped.is_set():
                wait = min(self._poll_seconds, self._renew_seconds)  # others' leases end and pauses, too
                try:
                    await self._run_turn()
                except (LeaseLostError, OptimisticConcurrencyError, ProjectionPausedError) as error:
                    logger.warning("%s", error)
                except Exception as error:
                    if not is_passing(error):
                        raise
                    wait = self._outage.failed()
                    logger.warning("projection %r: trying again in %g s: %s", self.projection.name, wait, error)
                    await self._note_trouble(error)
                await wait_until(self._stopped, wait)

    async def catch_up(self, progress: Callable[[int, int], object] | None = None) -> int:
        """Apply all events that are there now, or wait until another runner has, and return the position reached.

        Args:
            progress: called with the position reached and the one to reach, at the beginning and after each batch.

        Raises:
            ProjectionPausedError: the projection is paused, or an event has failed for the last time.
        """
        target = await self._parts.events.last_position()
        position = 0
        async with self._until_stopped():
            while not self._stopped.is_set():
                turn = await Turn.begin(self._parts)
                if turn is not None:
                    with contextlib.suppress(LeaseLostError, OptimisticConcurrencyError):
                        async with self._held(turn):
                            await self._work(turn, target, progress)
                await self._refuse_paused()
                position = await self.positions.get_position(self.projection.name) or 0
                if position >= target:
                    break
                await wait_until(self._stopped, min(self._poll_seconds, self._renew_seconds))
        return position

    def stop(self) -> None:
        """Let the batch under way end, give the lease back, and return from `run()`."""
        self._stopped.set()
        self._news.set()

    async def wait_for(self, projection_name: str, position: int, *, timeout: timedelta | float) -> int:
        """Return when a projection has reached a position, as SQLAlchemyProjectionPositionStore.wait_for does."""
        return await self.positions.wait_for(projection_name, position, timeout=timeout)

    async def take_lease(self, uow: SQLAlchemyUnitOfWork) -> bool:
        """Take the lease in a transaction that does more than a runner does, such as a migration."""
        return await self._parts.leases.acquire(uow=uow) is not None

    async def _run_turn(self) -> None:
        """Work while the lease holds; return at once when it is not to be had."""
        turn = await Turn.begin(self._parts)
        if turn is None:
            return
        async with self._held(turn):
            while not self._stopped.is_set():
                self._news.clear()
                if turn.is_lost:
                    raise LeaseLostError("projection", (self.projection.name,))
                wait = await self._step(turn)
                self._outage.succeeded()
                if wait is None:
                    await wait_until(self._news, self._poll_seconds)
                elif wait:
                    await wait_until(self._stopped, wait)

    async def _work(self, turn: Turn, target: int, progress: Callable[[int, int], object] | None) -> None:
        show = progress or (lambda _done, _of: None)
        show(min(turn.position, target), target)
        wait: float | None = 0.0
        while wait is not None and not self._stopped.is_set():
            wait = await self._step(turn)
            show(min(turn.position, target), target)
            if wait:
                await wait_until(self._stopped, wait)
            elif turn.position >= target and not turn.has_replayed:
                return

    async def _step(self, turn: Turn) -> float | None:
        async with self._batch_lock():
            # Where one connection writes at a time, all of them share one file and one core: nothing would be gained.
            turn.reads_ahead = not self._one_writer
            return await turn.step()

    @contextlib.asynccontextmanager
    async def _until_stopped(self) -> AsyncIterator[None]:
        """Let stop() end what is run here, also one that comes before it has begun."""
        try:
            yield
        finally:
            self._stopped.clear()

    @contextlib.asynccontextmanager
    async def _held(self, turn: Turn) -> AsyncIterator[None]:
        """Renew the lease beside the batches, and give it back in the end."""
        renewal = asyncio.create_task(self._renew(turn))
        try:
            yield
        finally:
            renewal.cancel()
            await asyncio.wait([renewal])
            try:
                # A task that is cancelled here still gives the lease back.
                await asyncio.shield(asyncio.ensure_future(self._parts.leases.release(turn.lease)))
            except Exception as error:
                if not is_passing(error):
                    raise

    async def _renew(self, turn: Turn) -> None:
        while True:
            await asyncio.sleep(self._renew_seconds)
            try:
                async with self._batch_lock():
                    await self._parts.leases.renew(turn.lease)
            except LeaseLostError:
                turn.is_lost = True  # the batch under way will find out, and be rolled back
                self._news.set()
                return
            except Exception as error:  # noqa: BLE001  (whatever it is, the end of the batch will tell)
                logger.warning("projection %r: the lease could not be renewed: %s", self.projection.name, error)

    @contextlib.asynccontextmanager
    async def _batch_lock(self) -> AsyncIterator[None]:
        """Take turns where one writes at a time: a renewal would only wait for the batch's lock in the database."""
        if self._one_writer is None:
            async with self._scope.read(None) as connection:
                self._one_writer = dialect_of(connection).has_one_writer
        async with self._batch if self._one_writer else contextlib.nullcontext():
            yield

    async def _note_trouble(self, error: Exception) -> None:
        try:
            await self._parts.leases.note_trouble(described(error))
        except Exception as another:
            if not is_passing(another):
                raise

    async def _refuse_paused(self) -> None:
        error = await self._parts.leases.paused()
        if error is not None:
            raise error
