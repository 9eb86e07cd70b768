"""Events tables in schemas of their own, named by the store or mapped by the engine."""
# ruff: noqa: ARG002  (fixtures are asked for their effect)

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.core.models import events as events_table
from cqrs_ddd_persistence_sqlalchemy.core.models import in_schema
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError, SchemaOutOfDateError
from tests.core.bystander import locks
from tests.support.engines import configured_engine
from tests.support.events import an_event, everything
from tests.support.kinds import ONLY_POSTGRESQL


class TestSchemas:
    @pytest.fixture(params=["tenant", "Tenant_A", "select"])
    def schema(self, request):
        return request.param

    @pytest.fixture
    async def tenant(self, engine, schema):
        """A second events table, in a schema of its own."""
        async with engine.begin() as connection:
            await connection.execute(sa.schema.CreateSchema(schema))
            await connection.run_sync(in_schema(events_table, schema).create)
        return schema

    def stores(self, engine, tenant):
        by_name = SQLAlchemyEventStore(async_sessionmaker(engine), schema=tenant)
        mapped = engine.execution_options(schema_translate_map={None: tenant})
        by_map = SQLAlchemyEventStore(async_sessionmaker(mapped))
        named = engine.execution_options(schema_translate_map={"any": tenant})
        by_both = SQLAlchemyEventStore(async_sessionmaker(named), schema="any")
        return [by_name, by_map, by_both]

    @ONLY_POSTGRESQL
    async def test_each_has_its_own_events(self, engine, store, tenant):
        """A store with schema=, or a schema_translate_map, reads and writes that schema's table only."""
        for number, tenants_store in enumerate(self.stores(engine, tenant)):
            [stored] = await tenants_store.append([an_event()], expected_version=number)
            assert stored.position == number + 1
            assert len(await tenants_store.get_events("order-1")) == number + 1
            assert len(await tenants_store.get_events_after(0)) == number + 1
            assert len(await everything(tenants_store)) == number + 1
            assert await tenants_store.last_position() == number + 1
            with pytest.raises(OptimisticConcurrencyError, match=f"expected version 9, found {number + 1}"):
                await tenants_store.append([an_event(), an_event()], expected_version=9)
            await continue_tenant(engine, tenant, number + 1)
        assert await store.last_position() == 0
        assert await store.get_events("order-1") == []

    @ONLY_POSTGRESQL
    async def test_writers_hold_the_readers_of_their_own_schema(self, engine, session_factory, store, tenant):
        """An open writer holds readers of its schema, by whichever way both name it, and no others."""
        for tenants_store in self.stores(engine, tenant):
            async with SQLAlchemyUnitOfWork(tenants_store._scope._session_factory) as uow:  # the store's own engine
                await tenants_store.append([an_event("held")], uow=uow)
                before = await store.append([an_event("free")])
                assert await store.last_position() == before[-1].position
                for reader in self.stores(engine, tenant):
                    await reader.append([an_event("later")])
                    assert await reader.get_events_after(0) == []
                    assert await reader.last_position() == 0
                await uow.rollback()
            async with engine.begin() as connection:
                await connection.execute(sa.delete(in_schema(events_table, tenant)))  # no triggers on this one

    @ONLY_POSTGRESQL
    async def test_writers_of_the_default_schema_hold_nobody_else(self, engine, session_factory, store, tenant):
        """A writer in the default schema holds no reader of another schema."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await store.append([an_event()], uow=uow)
            for number, tenants_store in enumerate(self.stores(engine, tenant)):
                await tenants_store.append([an_event()])
                assert len(await tenants_store.get_events_after(0)) == number + 1
            assert await store.get_events_after(0) == []

    async def test_the_default_schema_may_be_named(self, session_factory, store, database):
        """The default schema by its own name is the same table, and the same lock."""
        named = SQLAlchemyEventStore(session_factory, schema="public" if database.kind == "postgresql" else "main")
        await named.append([an_event(), an_event()])
        assert await everything(named) == await everything(store)
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await named.append([an_event()], uow=uow)
            if database.kind == "postgresql":
                await store.append([an_event("b")])
            assert await store.last_position() == 2
            assert len(await store.get_events_after(0)) == 2

    @ONLY_POSTGRESQL
    async def test_one_unit_of_work_may_append_to_several(self, engine, session_factory, store, tenant):
        """Appending to two schemas in one transaction holds the readers of both, with one lock each."""
        tenants_store = SQLAlchemyEventStore(session_factory, schema=tenant)
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await store.append([an_event()], uow=uow)
            await tenants_store.append([an_event()], uow=uow)
            await store.append([an_event()], uow=uow)
            await tenants_store.append([an_event()], uow=uow)
            assert await locks(engine) == 2
            await store.append([an_event("b")])
            await tenants_store.append([an_event("b")])
            assert await store.last_position() == 0
            assert await tenants_store.last_position() == 0
        assert await store.last_position() == 3
        assert await tenants_store.last_position() == 3

    @ONLY_POSTGRESQL
    async def test_no_search_path_is_needed(self, database, engine, tenant):
        """With schema= the store works where the search_path is empty."""
        settings = {"server_settings": {"search_path": ""}}  # which a proxy would refuse
        async with configured_engine(database.direct_url, connect_args=settings) as bare:
            store = SQLAlchemyEventStore(async_sessionmaker(bare), schema=tenant)
            await store.append([an_event(), an_event()])
            assert len(await everything(store)) == 2

    async def test_a_schema_without_the_table_is_named(self, session_factory, database):
        """A table that is missing in the schema is reported under the schema's name."""
        store = SQLAlchemyEventStore(session_factory, schema="elsewhere")
        expected = SchemaOutOfDateError if database.kind == "postgresql" else (SchemaOutOfDateError, DBAPIError)
        with pytest.raises(expected, match="elsewhere"):
            await store.get_events("order-1")

    @pytest.mark.parametrize("name", ["", "a b", "a;b", 'a"b', "1a", "ä", "a\n", "a" * 64, 7])
    def test_a_name_that_is_no_identifier_is_refused(self, name):
        """What could be more than a name never reaches SQL."""
        with pytest.raises(ValueError, match="Invalid SQL schema name"):
            SQLAlchemyEventStore(schema=name)


async def continue_tenant(engine, tenant, position):
    """Undo what refused appends cost the sequence, so that the next position is the next number."""
    async with engine.begin() as connection:
        sequence = engine.dialect.identifier_preparer.quote_schema(tenant) + ".events_position_seq"
        await connection.execute(
            sa.text("SELECT setval(CAST(:name AS regclass), :n)"), {"name": sequence, "n": position}
        )
