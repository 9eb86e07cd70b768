"""Applications that say something as connections are taken or sessions made are heard by operations of all kinds."""
# ruff: noqa: PT012  (what must fail may be a block)

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionPositionStore
from tests.core.notes import notes
from tests.support.engines import checked_out
from tests.support.events import an_event
from tests.support.kinds import ONLY_POSTGRESQL

TENANTS = (
    "ALTER TABLE projection_positions ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE projection_positions FORCE ROW LEVEL SECURITY",
    """CREATE POLICY mine ON projection_positions
       USING (starts_with(projection_name, current_setting('app.tenant', true)))""",
    "CREATE ROLE {role}",
    "GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
    "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}",
)
IN_TRANSACTION = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
)


@pytest.fixture
async def as_tenant(database, engine, make_engine):
    """An engine whose pool says, for each transaction, whose rows are seen; and one that looks at what it leaves."""
    role = f"tenant_of_{sa.make_url(database.url).database}"
    async with engine.begin() as connection:
        for statement in TENANTS:
            await connection.execute(sa.text(statement.format(role=role)))
    tenant = make_engine(database.url)

    @event.listens_for(tenant.sync_engine, "checkout")
    def say(connection, _record, _proxy):
        cursor = connection.cursor()
        cursor.execute(f"SET LOCAL ROLE {role}")
        cursor.execute("SET LOCAL app.tenant = 't1'")
        cursor.close()

    yield tenant
    event.remove(tenant.sync_engine, "checkout", say)
    await tenant.dispose()
    async with engine.begin() as connection:
        await connection.execute(sa.text(f"DROP OWNED BY {role}"))
        await connection.execute(sa.text(f"DROP ROLE {role}"))


@ONLY_POSTGRESQL
@pytest.mark.parametrize("echo", [False, True])
async def test_who_listens_to_the_pool(engine, as_tenant, echo):
    """What is said as a connection is taken holds for the operation, which is committed all the same."""
    as_tenant.echo = echo
    factory = async_sessionmaker(as_tenant)
    positions, events = SQLAlchemyProjectionPositionStore(factory), SQLAlchemyEventStore(factory)
    for number in (1, 2):
        await positions.save_position("t1 by itself", number)
        await events.append([an_event(f"by itself {number}")])
        with pytest.raises(DBAPIError, match="row-level security"):
            await positions.save_position("t2", number)
        async with SQLAlchemyUnitOfWork(factory) as uow:
            await positions.save_position("t1 together", number, uow=uow)
            await events.append([an_event(f"together {number}")], uow=uow)
        assert await positions.get_position("t1 by itself") == number
        assert len(await events.get_events_after(0)) == 2 * number
    assert await notes(engine) == ["t1 by itself", "t1 together"]
    async with engine.connect() as connection:
        assert await connection.scalar(sa.text(IN_TRANSACTION)) == 0
    assert checked_out(as_tenant) == 0


@pytest.mark.parametrize("operation", ["single", "unit of work"])
async def test_a_factory_of_its_own_makes_every_session(engine, operation):
    """It may do more than make one."""
    begun = []

    class Telling(async_sessionmaker):
        def __call__(self, **options):
            session = super().__call__(**options)
            event.listen(session.sync_session, "after_begin", lambda *_: begun.append("begun"))
            return session

    factory = Telling(engine)
    if operation == "single":
        await SQLAlchemyProjectionPositionStore(factory).save_position("a", 1)
    else:
        async with SQLAlchemyUnitOfWork(factory) as uow:
            await SQLAlchemyProjectionPositionStore().save_position("a", 1, uow=uow)
    assert begun == ["begun"]
    assert await notes(engine) == ["a"]


@ONLY_POSTGRESQL
@pytest.mark.parametrize("operation", ["single", "unit of work"])
async def test_an_engine_that_only_reads(database, engine, make_engine, operation):
    """Nothing is written on it, by whichever operation."""
    factory = async_sessionmaker(make_engine(database.url, execution_options={"postgresql_readonly": True}))
    positions = SQLAlchemyProjectionPositionStore(factory)
    assert await positions.get_position("a") is None
    with pytest.raises(DBAPIError, match="read-only"):
        if operation == "single":
            await positions.save_position("a", 1)
        else:
            async with SQLAlchemyUnitOfWork(factory) as uow:
                await positions.save_position("a", 1, uow=uow)
    assert await notes(engine) == []


@ONLY_POSTGRESQL
@pytest.mark.parametrize("operation", ["single", "unit of work", "read"])
async def test_a_transaction_begun_past_sqlalchemy_is_an_error(database, engine, make_engine, operation):
    """As SQLAlchemy itself has it, which would not know to commit it."""
    odd = make_engine(database.url)
    begin = lambda connection, *_: connection.run_async(lambda driver: driver.execute("BEGIN"))  # noqa: E731
    event.listen(odd.sync_engine, "checkout", begin)
    factory = async_sessionmaker(odd)
    positions = SQLAlchemyProjectionPositionStore(factory)
    with pytest.raises(DBAPIError, match="manually started transaction"):
        if operation == "single":
            await positions.save_position("a", 1)
        elif operation == "read":
            await positions.get_position("a")
        else:
            async with SQLAlchemyUnitOfWork(factory) as uow:
                await positions.save_position("a", 1, uow=uow)
    assert await notes(engine) == []
    assert checked_out(odd) == 0
    event.remove(odd.sync_engine, "checkout", begin)
    await odd.dispose()  # SQLAlchemy's pool takes the connection back in that transaction
