"""What one process is made of: an engine, the stores on it, and the use cases. Nothing here is global."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from cqrs_ddd_persistence_sqlalchemy import (
    SQLAlchemyEventStore,
    SQLAlchemyUnitOfWork,
    async_url,
    configure_engine,
    schema,
)
from cqrs_ddd_persistence_sqlalchemy.advanced import (
    SQLAlchemyBackgroundJobRepository,
    SQLAlchemyProjectionPositionStore,
    SQLAlchemyProjectionStore,
    SQLAlchemySagaRepository,
)
from orders_service.jobs import ClearAway, OrderMail
from orders_service.orders import Orders
from orders_service.outside import Outside
from orders_service.read_models import orders
from orders_service.sagas import Fulfilment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from orders_service.settings import Settings


@dataclass(frozen=True)
class Parts:
    """The parts of a process, on one database.

    Attributes:
        engine: of the database.
        outside: other people's services.
        unit_of_work: makes units of work that are not open yet.
        events: all events.
        views: the read models.
        positions: how far the projections have come.
        mails: the jobs that send mails.
        clearings: the jobs that clear away.
        fulfilments: the sagas.
        orders: the use cases.
    """

    engine: AsyncEngine
    outside: Outside
    unit_of_work: Callable[[], SQLAlchemyUnitOfWork]
    events: SQLAlchemyEventStore
    views: SQLAlchemyProjectionStore
    positions: SQLAlchemyProjectionPositionStore
    mails: SQLAlchemyBackgroundJobRepository[OrderMail]
    clearings: SQLAlchemyBackgroundJobRepository[ClearAway]
    fulfilments: SQLAlchemySagaRepository[Fulfilment]
    orders: Orders

    async def verify(self) -> None:
        """Make sure that the database is migrated.

        Raises:
            SchemaOutOfDateError: with the command to run.
        """
        await schema.verify(self.engine, schemas=[orders])


@asynccontextmanager
async def open_parts(settings: Settings, outside: Outside | None = None) -> AsyncIterator[Parts]:
    """Build the parts on a database that is migrated, and give its connections back in the end.

    Raises:
        SchemaOutOfDateError: it is not; the message has the command to run.
    """
    engine = configure_engine(create_async_engine(async_url(settings.database_url)))
    try:
        parts = _build(engine, outside or Outside())
        await parts.verify()
        yield parts
    finally:
        await engine.dispose()


def _build(engine: AsyncEngine, outside: Outside) -> Parts:
    sessions = async_sessionmaker(engine)

    def unit_of_work() -> SQLAlchemyUnitOfWork:
        return SQLAlchemyUnitOfWork(sessions)

    # With notify, PostgreSQL wakes the runner and the worker at once; without, and on SQLite, they look twice a second.
    events = SQLAlchemyEventStore(sessions, notify=True)
    mails = SQLAlchemyBackgroundJobRepository(OrderMail, session_factory=sessions, notify=True)
    fulfilments = SQLAlchemySagaRepository(Fulfilment, unit_of_work)
    return Parts(
        engine=engine,
        outside=outside,
        unit_of_work=unit_of_work,
        events=events,
        views=SQLAlchemyProjectionStore(sessions, schemas=[orders]),
        positions=SQLAlchemyProjectionPositionStore(sessions),
        mails=mails,
        clearings=SQLAlchemyBackgroundJobRepository(ClearAway, session_factory=sessions),
        fulfilments=fulfilments,
        orders=Orders(unit_of_work, events, mails, fulfilments),
    )
