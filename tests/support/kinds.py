"""The kinds of databases, and marks for a test that concerns one kind only, of the two that `database` makes."""

from __future__ import annotations

import pytest

from tests.support import pgbouncer

KINDS = ("sqlite", "postgresql")

ONLY_SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
ONLY_POSTGRESQL = pytest.mark.parametrize("database", ["postgresql"], indirect=True)

#: For a test of what goes past SQLAlchemy.
PAST_SQLALCHEMY = pytest.mark.skipif(
    pgbouncer.is_wanted(), reason="behind the proxy SQLAlchemy executes statements, and names none of them"
)
