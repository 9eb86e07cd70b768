"""A table or column that is missing is named with the command to run; other errors are the database's own."""
# ruff: noqa: PT012, ARG002  (what must fail is the end of a block; fixtures are asked for their effect)

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork, configure_engine
from cqrs_ddd_persistence_sqlalchemy.exceptions import PersistenceError, SchemaOutOfDateError
from tests.support.events import an_event


class TestMissingSchema:
    @pytest.mark.parametrize("operation", ["append", "get_events", "get_events_after", "last_position"])
    @pytest.mark.parametrize("given", ["factory", "open", "session"])
    async def test_a_missing_table_is_named_with_the_command(self, empty_database, operation, given, make_engine):
        """On a database that was never migrated every operation names the table and the command to run."""
        store = SQLAlchemyEventStore()

        async def operate(uow):
            match operation:
                case "append":
                    await store.append([an_event()], uow=uow)
                case "get_events":
                    await store.get_events("order-1", uow=uow)
                case "get_events_after":
                    await store.get_events_after(0, uow=uow)
                case _:
                    await store.last_position(uow=uow)

        factory = async_sessionmaker(configure_engine(make_engine(empty_database.url)))
        with pytest.raises(
            SchemaOutOfDateError, match="table 'events' is not in the database; run: alembic upgrade head"
        ):
            if given == "factory":
                await operate(SQLAlchemyUnitOfWork(factory))
            elif given == "open":
                async with SQLAlchemyUnitOfWork(factory) as uow:
                    await operate(uow)
            else:
                async with factory() as session, session.begin():
                    await operate(SQLAlchemyUnitOfWork(session=session))

    async def test_a_missing_column_is_named_with_the_command(self, engine, session_factory, database):
        """A table that is behind the code names the column that it lacks."""
        async with engine.begin() as connection:
            await connection.execute(sa.text("ALTER TABLE events DROP COLUMN causation_id"))
        store = SQLAlchemyEventStore(session_factory)
        message = r"column '(events\.)?causation_id' is not in the database, .* run: alembic upgrade head"
        with pytest.raises(SchemaOutOfDateError, match=message):
            await store.get_events("order-1")
        with pytest.raises(SchemaOutOfDateError, match=message):
            await store.append([an_event()])

    async def test_other_errors_pass_through_untouched(self, session_factory):
        """An error that the library does not expect reaches the caller as SQLAlchemy raised it."""
        with pytest.raises(DBAPIError) as caught:
            async with SQLAlchemyUnitOfWork(session_factory) as uow:
                await uow.session.execute(sa.text("SELECT nonsense"))
        assert not isinstance(caught.value, PersistenceError)

    async def test_another_database_is_refused_by_name(self):
        """A dialect that the library does not know is refused, and the ones it knows are named."""
        from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_named

        with pytest.raises(PersistenceError, match="database 'mysql' is not supported; use postgresql or sqlite"):
            dialect_named("mysql")
