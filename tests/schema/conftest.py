"""What tests of the schema compare a database with."""

from __future__ import annotations

import pytest


@pytest.fixture
def reference(databases, empty_database):
    """A database of the same kind as the empty one, which the library's own environment has migrated in one run."""
    with databases.fresh(empty_database.kind) as migrated:
        yield migrated
