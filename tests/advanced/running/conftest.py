"""A bank whose accounts are projected: events, handlers, runners, and what tests ask about them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_advanced_core.events import StoredEvent
from cqrs_ddd_advanced_core.projections.projection import Fold, Projection
from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import (
    ProjectionRunner,
    SQLAlchemyDeadLetterStore,
    SQLAlchemyProjectionControl,
    SQLAlchemyProjectionPositionStore,
    SQLAlchemyProjectionStore,
)
from cqrs_ddd_persistence_sqlalchemy.advanced.models import projection_runs
from cqrs_ddd_persistence_sqlalchemy.advanced.running.leases import Leases
from cqrs_ddd_persistence_sqlalchemy.core.dialect import READ_ONLY, UTCDateTime, dialect_named
from tests.support.engines import configured_engine

ACCOUNTS = ProjectionSchema(
    "accounts",
    [
        ("id", "VARCHAR(50) PRIMARY KEY"),
        ("total", "INTEGER NOT NULL"),
        ("changes", "INTEGER NOT NULL"),
        ("note", "VARCHAR(10)"),
    ],
)

SHORT = timedelta(milliseconds=20)
LONG = timedelta(hours=1)
PATIENCE_SECONDS = 10


def paid(account, amount=1, **payload):
    """An event of an account."""
    return StoredEvent(aggregate_id=account, event_type="Paid", payload={"amount": amount, **payload})


def other(account="a"):
    """An event that no projection of these tests has a handler for."""
    return StoredEvent(aggregate_id=account, event_type="Audited", payload={})


def add(row, event):
    """Fold a payment into its account."""
    old = row or {"total": 0, "changes": 0}
    return {**old, "total": old["total"] + event.payload["amount"], "changes": old["changes"] + 1}


async def count(event, view):
    """Do what `add` does, as a handler."""
    row = await view.find_one(event.aggregate_id)
    await view.upsert(event.aggregate_id, add(row, event))


class Gate:
    """A handler that waits until the test lets it go on, before or after it has written."""

    def __init__(self, *, writes_first=False):
        self.reached = asyncio.Event()
        self.open = asyncio.Event()
        self._writes_first = writes_first

    async def __call__(self, event, view):
        if self._writes_first:
            await count(event, view)
        self.reached.set()
        await self.open.wait()
        if not self._writes_first:
            await count(event, view)


class Failing:
    """A handler that fails at payments of some amounts, so many times each, after it has written."""

    def __init__(self, times, error="no such currency"):
        self.left = dict(times)
        self.error = error
        self.seen = []

    async def __call__(self, event, view):
        self.seen.append(event.position)
        await count(event, view)
        amount = event.payload["amount"]
        if self.left.get(amount, 0) > 0:
            self.left[amount] -= 1
            raise ValueError(self.error)


def accounts(handler=None, **handlers):
    """The projection, with `add` for payments unless another handler is given."""
    return Projection("accounts", ACCOUNTS, {"Paid": handler or Fold(add), **handlers})


class Bank:
    """Everything around one database."""

    def __init__(self, session_factory):
        self.session_factory = session_factory
        self.events = SQLAlchemyEventStore(session_factory)
        self.positions = SQLAlchemyProjectionPositionStore(session_factory)
        self.store = SQLAlchemyProjectionStore(session_factory, allow_auto_ddl=True)
        self.letters = SQLAlchemyDeadLetterStore(session_factory)
        self.control = SQLAlchemyProjectionControl(session_factory)

    @property
    def kind(self):
        return self.session_factory.kw["bind"].dialect.name

    def uow(self):
        return SQLAlchemyUnitOfWork(self.session_factory)

    def runner(self, projection=None, **settings):
        settings = {"poll_interval": SHORT, "backoff": SHORT / 10} | settings
        events = settings.pop("events", self.events)
        return ProjectionRunner(events, projection or accounts(), self.uow, **settings)

    def leases(self, owner, lease):
        return Leases("accounts", owner, lease, self.uow, None)

    async def append(self, *events):
        return [event.position for event in await self.events.append(events)]

    async def make(self, *schemas):
        for schema in schemas:
            await self.store.ensure_collection(schema.collection, schema=schema)

    async def totals(self):
        """Each account's total and how many payments made it."""
        rows = await self.store.find("accounts", limit=1000)
        return {row["id"]: (row["total"], row["changes"]) for row in rows}

    async def position(self):
        return await self.positions.get_position("accounts")

    async def status(self):
        (only,) = await self.control.status()
        return only

    async def execute(self, statement, **values):
        async with self.session_factory() as session:
            await session.execute(sa.text(statement) if isinstance(statement, str) else statement, values)
            await session.commit()

    async def value(self, statement):
        async with self.session_factory() as session:
            connection = await session.connection(execution_options=READ_ONLY)
            return await connection.scalar(statement)

    async def now(self):
        """The database's clock."""
        return await self.value(sa.select(sa.type_coerce(dialect_named(self.kind).now, UTCDateTime())))

    async def lease_until(self):
        return await self.value(sa.select(projection_runs.c.lease_until))

    async def expire(self):
        """Let the lease be over, as if its owner had been silent for long."""
        await self.execute(sa.update(projection_runs).values(lease_until=datetime(2020, 1, 1, tzinfo=UTC)))


async def soon(awaitable):
    """Await what must not take long."""
    return await asyncio.wait_for(awaitable, PATIENCE_SECONDS)


@asynccontextmanager
async def running(*runners):
    """Run them inside the block; in the end stop them and see them return."""
    tasks = [asyncio.create_task(runner.run()) for runner in runners]
    await asyncio.sleep(0)  # they begin
    try:
        yield tasks
    finally:
        for runner in runners:
            runner.stop()
        await soon(asyncio.gather(*tasks))


async def bank_on(engine):
    """Return a bank on an engine, with the table of the accounts."""
    made = Bank(async_sessionmaker(engine, expire_on_commit=False))
    await made.make(ACCOUNTS)
    return made


@pytest.fixture
async def bank(engine):
    """A bank on each database."""
    return await bank_on(engine)


@pytest.fixture
async def postgresql_engine(postgresql):
    """A configured engine on PostgreSQL alone."""
    async with configured_engine(postgresql.url) as made:
        yield made


@pytest.fixture
async def postgresql_bank(postgresql_engine):
    """A bank on PostgreSQL alone."""
    return await bank_on(postgresql_engine)


@pytest.fixture
async def sqlite_engine(sqlite):
    """A configured engine on SQLite alone."""
    async with configured_engine(sqlite.url) as made:
        yield made


@pytest.fixture
async def sqlite_bank(sqlite_engine):
    """A bank on SQLite alone."""
    return await bank_on(sqlite_engine)
