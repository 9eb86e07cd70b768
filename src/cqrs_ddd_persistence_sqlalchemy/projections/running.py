"""Runners in a process of their own."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from cqrs_ddd_persistence_sqlalchemy.advanced import ProjectionRunner
from cqrs_ddd_persistence_sqlalchemy.advanced.running.signals import forget_signals, stop_at_signals
from cqrs_ddd_persistence_sqlalchemy.core import SQLAlchemyEventStore, SQLAlchemyUnitOfWork

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from cqrs_ddd_advanced_core.projections.projection import Projection
    from cqrs_ddd_persistence_sqlalchemy.advanced.running.turn import OnFailure
    from cqrs_ddd_persistence_sqlalchemy.core.joining import SessionFactory

logger = logging.getLogger(__name__)


async def run_until_told(
    projections: Sequence[Projection],
    session_factory: SessionFactory,
    *,
    batch_size: int,
    lease: timedelta,
    on_failure: OnFailure,
    schema: str | None,
) -> None:
    """Run projections until SIGTERM or SIGINT; then let the batches under way end and give the leases back."""
    events = SQLAlchemyEventStore(session_factory, schema=schema)
    runners = [
        ProjectionRunner(
            events,
            projection,
            lambda: SQLAlchemyUnitOfWork(session_factory),
            batch_size=batch_size,
            lease=lease,
            on_failure=on_failure,
            schema=schema,
        )
        for projection in projections
    ]
    for runner in runners:
        stop_at_signals(runner)
    logger.info("running %s", ", ".join(projection.name for projection in projections))
    try:
        async with asyncio.TaskGroup() as group:
            for runner in runners:
                group.create_task(runner.run())
    except* Exception as failures:  # noqa: BLE001  (one is passed on as it is)
        raise failures.exceptions[0] from None
    finally:
        for runner in runners:
            forget_signals(runner)
