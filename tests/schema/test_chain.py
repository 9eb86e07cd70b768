"""The library's chain of revisions, up and down, on every kind of connection that a caller may hand over."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.util import CommandError
from pytest_alembic.tests import (  # noqa: F401  (pytest collects them here)
    test_model_definitions_match_ddl,
    test_single_head_revision,
    test_up_down_consistency,
    test_upgrade,
)
from pytest_alembic.tests.experimental import test_downgrade_leaves_no_trace  # noqa: F401  (the same)
from sqlalchemy.ext.asyncio import create_async_engine

from cqrs_ddd_persistence_sqlalchemy import configure_engine
from tests.schema.programs import chain
from tests.support.command_line import LIBRARY_TABLES
from tests.support.databases import ROOT


@pytest.fixture
def alembic_config():
    """pytest-alembic's way to the chain."""
    return {"file": str(ROOT / "alembic.ini"), "script_location": str(ROOT / "migrations")}


@pytest.fixture
def alembic_engine(empty_database):
    """pytest-alembic's way to a database, once on each kind.

    It looks for traces beside a version table of Alembic's usual name only, so ours is there from the start.
    """
    engine = configure_engine(create_async_engine(empty_database.url, poolclass=sa.NullPool))
    command.ensure_version(chain(engine))
    return engine


@pytest.fixture(params=["configured", "stock"])
async def empty_engine(request, empty_database):
    """An engine on an empty database, as the library recommends it and as SQLAlchemy makes it."""
    engine = create_async_engine(empty_database.url, poolclass=sa.NullPool)
    return configure_engine(engine) if request.param == "configured" else engine


def upgrade(connection: sa.Connection) -> None:
    """Run the upgrade on a connection, as a program does in `run_sync`."""
    command.upgrade(chain(connection), "head")


async def tables(engine) -> set[str]:
    """Return the tables that everybody sees."""
    async with engine.connect() as connection:
        return set(await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names()))


async def test_a_connection_is_used_inside_a_running_loop(empty_engine):
    """On a connection without a transaction the upgrade commits by itself and leaves it without one."""
    async with empty_engine.connect() as connection:
        await connection.run_sync(upgrade)
        assert not connection.in_transaction()
    assert await tables(empty_engine) == LIBRARY_TABLES


async def test_a_downgrade_on_a_connection_commits_too(empty_engine):
    """On a connection without a transaction the way down is committed as the way up."""
    async with empty_engine.connect() as connection:
        await connection.run_sync(upgrade)
        await connection.run_sync(lambda sync: command.downgrade(chain(sync), "base"))
        assert not connection.in_transaction()
    assert await tables(empty_engine) == {"cqrs_ddd_alembic_version"}


async def test_the_callers_transaction_is_joined(empty_engine):
    """In a transaction of the caller's the upgrade is seen by it alone until the caller commits."""
    async with empty_engine.connect() as connection:
        transaction = await connection.begin()
        await connection.run_sync(upgrade)
        assert transaction.is_active
        assert await connection.run_sync(lambda sync: sa.inspect(sync).has_table("events"))
        if empty_engine.dialect.name == "postgresql":
            assert await tables(empty_engine) == set()
        await transaction.commit()
    assert await tables(empty_engine) == LIBRARY_TABLES


async def test_the_callers_transaction_takes_the_upgrade_back(empty_engine):
    """In a transaction of the caller's the upgrade rolls back with it, and not a table stays."""
    async with empty_engine.connect() as connection:
        transaction = await connection.begin()
        await connection.run_sync(upgrade)
        await transaction.rollback()
    assert await tables(empty_engine) == set()
    async with empty_engine.connect() as connection:
        await connection.run_sync(upgrade)
    assert await tables(empty_engine) == LIBRARY_TABLES


@pytest.mark.parametrize("given", ["nothing", "an engine"])
async def test_a_running_loop_needs_a_connection(empty_engine, given):
    """Without a connection, or with an AsyncEngine, a running loop is named as what stands in the way."""
    config = chain(empty_engine if given == "an engine" else None)
    with pytest.raises(CommandError, match=r"inside a running event loop: hand over a connection, as in .*run_sync"):
        command.upgrade(config, "head")
    assert await tables(empty_engine) == set()


def test_an_async_engine_is_used(alembic_engine):
    """Outside of a loop an AsyncEngine is all that the configuration needs."""
    command.upgrade(chain(alembic_engine), "head")
    command.check(chain(alembic_engine))


def test_an_engine_is_used(tmp_path):
    """A synchronous engine is used where there is one, its connections given back."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'of_engine.db'}", poolclass=sa.QueuePool)
    command.upgrade(chain(engine), "head")
    assert set(sa.inspect(engine).get_table_names()) == LIBRARY_TABLES
    assert engine.pool.checkedout() == 0
    engine.dispose()


def test_anything_else_is_refused():
    """What is neither a connection nor an engine is named by its type."""
    with pytest.raises(CommandError, match=r"config\.attributes\['connection'\] is a str: give a Connection"):
        command.upgrade(chain("sqlite:///app.db"), "head")


async def test_a_failed_upgrade_leaves_the_connection_usable(empty_engine):
    """A revision that fails takes back what it did, and the connection can go on."""
    async with empty_engine.connect() as connection:
        await connection.execute(sa.text("CREATE TABLE projection_positions (id INTEGER)"))
        await connection.commit()
        with pytest.raises(CommandError, match=r"table 'projection_positions' is in the database already"):
            await connection.run_sync(upgrade)
        assert not connection.in_transaction()
        await connection.execute(sa.text("DROP TABLE projection_positions"))
        await connection.commit()
        await connection.run_sync(upgrade)
    assert await tables(empty_engine) == LIBRARY_TABLES
