"""The library's chain of revisions, up and down on every kind of connection that a caller may hand over."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from cqrs_ddd_persistence_sqlalchemy import configure_engine
from pytest_alembic.tests import (  # noqa: F401  (pytest collects them here)
    test_model_definitions_match_ddl,
    test_single_head_revision,
    test_up_down_consistency,
    test_upgrade,
)
from pytest_alembic.tests.experimental import test_downgrade_leaves_no_trace  # noqa: F401  (the same)
from sqlalchemy.ext.asyncio import create_async_engine

from tests.support.databases import ROOT


@pytest.fixture
def alembic_config():
    """pytest-alembic's way to the chain."""
    return {"file": str(ROOT / "alembic.ini"), "script_location": str(ROOT / "migrations")}


@pytest.fixture
def alembic_engine(empty_database):
    """pytest-alembic's way to a database, once on each kind."""
    return configure_engine(create_async_engine(empty_database.url, poolclass=sa.NullPool))
