"""Operations of one statement, outside of a unit of work: no transaction around them, where nobody would miss it."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from asyncpg.transaction import Transaction
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from cqrs_ddd_advanced_core.projections import ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import (
    SQLAlchemyProjectionPositionStore,
    SQLAlchemyProjectionStore,
    SQLAlchemySnapshotStore,
)
from cqrs_ddd_persistence_sqlalchemy.core.alone import engine_without_sessions
from tests.support.engines import create_async_engine

ACCOUNTS = ProjectionSchema("accounts", [("id", "TEXT PRIMARY KEY"), ("email", "TEXT UNIQUE"), ("balance", "INTEGER")])


@pytest.fixture(params=["postgresql"])
def database(request, databases):
    """A migrated PostgreSQL database: on SQLite a transaction around a statement costs nothing."""
    with databases.fresh(request.param) as fresh:
        yield fresh


@pytest.fixture
def transactions(monkeypatch):
    """Counts the transactions that the driver begins."""
    begun = [0]
    start = Transaction.start

    async def counted(self) -> None:
        begun[0] += 1
        await start(self)

    monkeypatch.setattr(Transaction, "start", counted)
    return lambda: begun[0]


async def test_single_statements_begin_no_transaction(session_factory, transactions):
    """Saving a position, a document or a snapshot, and reads of all kinds, send no BEGIN and COMMIT."""
    positions = SQLAlchemyProjectionPositionStore(session_factory)
    documents = SQLAlchemyProjectionStore(session_factory, allow_auto_ddl=True, schemas=[ACCOUNTS])
    snapshots = SQLAlchemySnapshotStore(session_factory=session_factory)
    events = SQLAlchemyEventStore(session_factory)
    await documents.ensure_collection("accounts", schema=ACCOUNTS)
    before = transactions()
    await positions.save_position("accounts", 3)
    assert await positions.get_position("accounts") == 3
    await documents.upsert("accounts", "a", {"balance": 1})
    assert (await documents.find_one("accounts", "a"))["balance"] == 1
    await snapshots.save_snapshot("Account", "a", {"balance": 1}, 1)
    assert (await snapshots.get_latest_snapshot("Account", "a"))["version"] == 1
    assert await events.get_events_after(0) == []
    assert transactions() == before


async def test_a_violated_constraint_is_named_and_nothing_else_is_lost(session_factory):
    """A UNIQUE violation is a ValueError as in a unit of work, and the next operation goes on."""
    documents = SQLAlchemyProjectionStore(session_factory, allow_auto_ddl=True, schemas=[ACCOUNTS])
    await documents.ensure_collection("accounts", schema=ACCOUNTS)
    await documents.upsert("accounts", "a", {"email": "x"})
    with pytest.raises(ValueError, match="column email of 'accounts' is UNIQUE"):
        await documents.upsert("accounts", "b", {"email": "x"})
    await documents.upsert("accounts", "b", {"email": "y"})
    assert await documents.count("accounts") == 2


async def test_in_a_unit_of_work_it_is_the_units_transaction(session_factory):
    """The same operations in an open unit of work are taken back with it."""
    positions = SQLAlchemyProjectionPositionStore(session_factory)
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await positions.save_position("accounts", 3, uow=uow)
        await uow.rollback()
    assert await positions.get_position("accounts") is None


async def test_a_connection_goes_back_to_the_pool_as_it_was(engine, session_factory):
    """After an operation alone, a session on the same connection has transactions again."""
    positions = SQLAlchemyProjectionPositionStore(session_factory)
    await positions.save_position("accounts", 1)
    async with session_factory() as session:
        await session.execute(sa.text("UPDATE projection_positions SET position = 9"))
        await session.rollback()
    assert await positions.get_position("accounts") == 1


async def test_a_cancelled_operation_gives_its_connection_back(engine, session_factory):
    """An operation that is cancelled while it waits leaves the pool whole (the fixture looks for leaks)."""
    positions = SQLAlchemyProjectionPositionStore(session_factory)
    await positions.save_position("accounts", 1)
    async with engine.begin() as holder:
        await holder.execute(sa.text("LOCK TABLE projection_positions"))
        waiting = asyncio.create_task(positions.save_position("accounts", 2))
        await asyncio.sleep(0.2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert await positions.get_position("accounts") == 1


def test_factories_that_add_something_keep_their_transactions(database):
    """Listeners that set something as a transaction begins, levels of isolation and sessions of other classes count."""
    engine = create_async_engine(database.url)
    plain = async_sessionmaker(engine, expire_on_commit=False)

    class Special(AsyncSession):
        """An application's own."""

    def set_tenant(*_: object) -> None:
        """Do what an application does for row-level security."""

    def of_their_own() -> AsyncSession:
        """Make sessions in a way that nobody can look into."""
        return plain()

    assert engine_without_sessions(plain) is engine
    assert engine_without_sessions(of_their_own) is None
    assert engine_without_sessions(async_sessionmaker(engine, class_=Special)) is None
    assert engine_without_sessions(async_sessionmaker(engine, twophase=True)) is None
    assert engine_without_sessions(async_sessionmaker()) is None
    serializable = engine.execution_options(isolation_level="SERIALIZABLE")
    assert engine_without_sessions(async_sessionmaker(serializable)) is None
    strict = create_async_engine(database.url, isolation_level="SERIALIZABLE")
    assert engine_without_sessions(async_sessionmaker(strict)) is None
    assert engine_without_sessions(async_sessionmaker(create_async_engine("sqlite+aiosqlite://"))) is None
    sa.event.listen(Session, "after_begin", set_tenant)
    try:
        assert engine_without_sessions(plain) is None
    finally:
        sa.event.remove(Session, "after_begin", set_tenant)
    assert engine_without_sessions(plain) is engine
    sa.event.listen(Session, "after_commit", set_tenant)
    try:
        assert engine_without_sessions(plain) is None
    finally:
        sa.event.remove(Session, "after_commit", set_tenant)
    sa.event.listen(engine.sync_engine, "begin", set_tenant)
    assert engine_without_sessions(plain) is None


async def test_a_tenant_that_a_listener_sets_is_set(engine, session_factory):
    """What a listener sets for a transaction holds for single operations: row-level security shows no other's rows."""
    positions = SQLAlchemyProjectionPositionStore(session_factory)
    seen = []

    def set_tenant(_session, _transaction, connection) -> None:
        connection.execute(sa.text("SELECT set_config('app.tenant', 'a', true)"))

    def look(connection, _cursor, statement, *_) -> None:
        if "projection_positions" in statement:
            seen.append(connection.exec_driver_sql("SELECT current_setting('app.tenant', true)").scalar())

    sa.event.listen(Session, "after_begin", set_tenant)
    sa.event.listen(engine.sync_engine, "after_cursor_execute", look)
    try:
        await positions.save_position("accounts", 1)
        await positions.get_position("accounts")
    finally:
        sa.event.remove(Session, "after_begin", set_tenant)
    assert seen == ["a", "a"]


async def test_options_that_an_engine_gets_later_hold(engine, session_factory):
    """A schema for unqualified tables that is set after the first operation is where the next one writes."""
    store = SQLAlchemyProjectionPositionStore(session_factory)
    await store.save_position("p", 1)
    async with engine.begin() as connection:
        await connection.execute(sa.text("CREATE SCHEMA later"))
        await connection.execute(
            sa.text("CREATE TABLE later.projection_positions (LIKE projection_positions INCLUDING ALL)")
        )
    engine.update_execution_options(schema_translate_map={None: "later"})
    await store.save_position("p", 2)
    found = {}
    async with engine.connect() as connection:
        for schema in ("public", "later"):
            statement = sa.text(f"SELECT position FROM {schema}.projection_positions")
            found[schema] = (await connection.execute(statement)).scalars().all()
    assert found == {"public": [1], "later": [2]}
