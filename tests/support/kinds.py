"""The kinds of databases, and marks for a test that concerns one kind only, of the two that `database` makes."""

from __future__ import annotations

import pytest

KINDS = ("sqlite", "postgresql")

ONLY_SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
ONLY_POSTGRESQL = pytest.mark.parametrize("database", ["postgresql"], indirect=True)
