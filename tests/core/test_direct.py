"""Statements on the driver's own connection: what SQLAlchemy would do with them is done all the same."""

from __future__ import annotations

import asyncio
import logging

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionPositionStore
from cqrs_ddd_persistence_sqlalchemy.core.dialect import (
    ExactDecimal,
    JSONDocument,
    UTCDateTime,
    dialect_of,
    execute_kept,
)
from cqrs_ddd_persistence_sqlalchemy.core.models import events
from tests.support.kinds import PAST_SQLALCHEMY

INSERT = sa.insert(events).values(
    event_id=sa.bindparam("0_id"),
    aggregate_id="a",
    aggregate_type="",
    event_type="E",
    version=1,
    payload={},
    metadata={},
    occurred_at=sa.func.current_timestamp(),
    recorded_at=sa.func.current_timestamp(),
    schema_version=1,
)


@pytest.fixture
def through_sqlalchemy(monkeypatch):
    """The statements that SQLAlchemy executed itself while the list is looked at."""
    from sqlalchemy.ext.asyncio import AsyncConnection

    seen, execute = [], AsyncConnection.execute

    async def noted(self, statement, *arguments, **options):
        seen.append(str(statement))
        return await execute(self, statement, *arguments, **options)

    monkeypatch.setattr(AsyncConnection, "execute", noted)
    return seen


class TestLane:
    @PAST_SQLALCHEMY
    async def test_a_kept_statement_passes_sqlalchemy_by(self, session_factory, through_sqlalchemy):
        """A store's statement in a unit of work goes to the driver."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            assert await SQLAlchemyProjectionPositionStore().save_position("p", 1, uow=uow)
        assert through_sqlalchemy == []

    @pytest.mark.parametrize(
        "name", ["before_execute", "after_execute", "before_cursor_execute", "after_cursor_execute"]
    )
    @pytest.mark.parametrize("on", ["engine", "connection"])
    async def test_listeners_see_all_statements(self, engine, session_factory, name, on, through_sqlalchemy):
        """Whoever listens to statements, on the engine or on a connection, is told of those of stores too."""
        heard = []

        def listen(*arguments):
            heard.append(str(arguments[2] if "cursor" in name else arguments[1]))

        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            connection = await uow.session.connection()
            target = engine.sync_engine if on == "engine" else connection.sync_connection
            event.listen(target, name, listen)
            try:
                await SQLAlchemyProjectionPositionStore().save_position("p", 1, uow=uow)
            finally:
                event.remove(target, name, listen)
        assert any("projection_positions" in statement for statement in heard)
        assert through_sqlalchemy

    async def test_a_listener_that_comes_later_hears_operations_without_a_unit_of_work(self, engine, session_factory):
        """An engine's listener hears statements that are committed by themselves, whenever it began to listen."""
        store, heard = SQLAlchemyProjectionPositionStore(session_factory), []
        await store.save_position("p", 1)
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *arguments: heard.append(arguments[2]))
        await store.save_position("p", 2)
        assert any("projection_positions" in statement for statement in heard)

    async def test_the_log_of_an_engine_has_all_statements(self, session_factory, caplog):
        """With SQLAlchemy's logging at INFO, statements of stores are logged."""
        with caplog.at_level(logging.INFO, logger="sqlalchemy.engine"):
            await SQLAlchemyProjectionPositionStore(session_factory).save_position("p", 1)
        assert "projection_positions" in caplog.text

    async def test_a_driver_without_a_cache_of_statements_is_left_to_sqlalchemy(self, database, through_sqlalchemy):
        """Where the driver's cache is off, as behind a proxy, statements have the names that SQLAlchemy gives them."""
        options = {"statement_cache_size": 0} if database.kind == "postgresql" else {}
        engine = create_async_engine(database.url, connect_args=options)
        async with SQLAlchemyUnitOfWork(async_sessionmaker(engine)) as uow:
            await SQLAlchemyProjectionPositionStore().save_position("p", 1, uow=uow)
        await engine.dispose()
        assert bool(through_sqlalchemy) == (database.kind == "postgresql")

    async def test_a_transaction_ended_by_hand_is_left_to_sqlalchemy(self, session_factory, through_sqlalchemy):
        """After a COMMIT past SQLAlchemy, which takes its transaction for open, none is begun behind its back."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.execute(sa.text("SELECT 1"))
            pooled = await (await uow.session.connection()).get_raw_connection()
            await pooled.driver_connection.execute("COMMIT")
            through_sqlalchemy.clear()
            await SQLAlchemyProjectionPositionStore().save_position("p", 1, uow=uow)
        assert through_sqlalchemy


class TestErrors:
    async def test_are_sqlalchemys(self, session_factory):
        """A driver's error comes as SQLAlchemy's, with statement and driver's error, and tells listeners."""
        async with session_factory() as session:
            told = []
            connection = await session.connection()
            engine = connection.sync_engine
            handler = lambda context: told.append(context.sqlalchemy_exception)  # noqa: E731
            event.listen(engine, "handle_error", handler)
            try:
                await session.execute(sa.text("DELETE FROM projection_positions"))
                await execute_kept(connection, INSERT, {"0_id": "1"})
                with pytest.raises(IntegrityError, match="(?s)INSERT INTO events") as caught:
                    await execute_kept(connection, INSERT, {"0_id": "1"})
            finally:
                event.remove(engine, "handle_error", handler)
            assert told == [caught.value]
            assert caught.value.orig is not None
            await session.rollback()

    async def test_a_value_that_the_driver_refuses(self, session_factory):
        """A value of the wrong type is SQLAlchemy's error, and nothing is written."""
        async with session_factory() as session:
            connection = await session.connection()
            await session.execute(sa.text("DELETE FROM projection_positions"))
            with pytest.raises((StatementError, IntegrityError)):
                await execute_kept(connection, INSERT, {"0_id": object()})
            await session.rollback()

    async def test_a_cancelled_statement_gives_up_its_connection(self, session_factory):
        """A task that is cancelled while the driver works leaves no connection behind in a transaction."""
        async with session_factory() as session:
            if session.bind.dialect.name == "sqlite":
                slow = sa.text(
                    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 5000000) SELECT max(x) FROM n"
                ).columns(x=sa.Integer)
            else:
                slow = sa.text("SELECT 1 FROM (SELECT pg_sleep(60)) AS slept").columns(x=sa.Integer)
            connection = await session.connection()
            await session.execute(sa.text("DELETE FROM projection_positions"))
            task = asyncio.create_task(dialect_of(connection).execute(connection, slow))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert connection.sync_connection.invalidated
            await session.rollback()
        assert await SQLAlchemyProjectionPositionStore(session_factory).save_position("p", 1)


class TestValues:
    async def test_go_through_the_types(self, session_factory):
        """What a kept statement binds and returns is what SQLAlchemy would bind and return."""
        from datetime import UTC, datetime
        from decimal import Decimal
        from uuid import uuid4

        values = {
            "moment": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
            "number": Decimal("12.50"),
            "document": {"a": [1, None, "ü"]},
            "id": uuid4(),
            "flag": True,
            "double": 1.5,
        }
        types = {
            "moment": UTCDateTime(),
            "number": ExactDecimal(10, 2),
            "document": JSONDocument,
            "id": sa.Uuid(),
            "flag": sa.Boolean(),
            "double": sa.Double(),
        }
        table = sa.Table("direct_values", sa.MetaData(), *(sa.Column(name, type_) for name, type_ in types.items()))
        binds = {name: sa.bindparam(f"0_{name}", type_=type_) for name, type_ in types.items()}
        insert, select = sa.insert(table).values(binds), sa.select(table)
        async with session_factory() as session:
            connection = await session.connection()
            await session.execute(sa.text("DELETE FROM projection_positions"))
            await connection.run_sync(table.create)
            answer = await execute_kept(connection, insert, {f"0_{name}": value for name, value in values.items()})
            assert answer.rowcount == 1
            found = (await execute_kept(connection, select)).mapping()
            assert found == values == dict((await connection.execute(select)).mappings().one())
            await session.rollback()
