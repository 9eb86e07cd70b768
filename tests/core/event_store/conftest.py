"""The store that the tests of this folder are about."""

from __future__ import annotations

import pytest

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore


@pytest.fixture
def store(session_factory):
    return SQLAlchemyEventStore(session_factory)
