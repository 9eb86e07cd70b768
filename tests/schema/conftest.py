"""An application without schemas yet, and what a database is compared with."""

from __future__ import annotations

import pytest

from tests.support.command_line import make_application


@pytest.fixture
def app(tmp_path):
    """An application that registers its schemas, and has none yet."""
    return make_application(tmp_path / "app")


@pytest.fixture
def reference(databases, empty_database):
    """A database of the same kind as the empty one, which the library's own environment has migrated in one run."""
    with databases.fresh(empty_database.kind) as migrated:
        yield migrated
