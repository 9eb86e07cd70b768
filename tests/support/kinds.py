"""Marks for a test that concerns one kind of database only, of the two that the fixture `database` makes."""

from __future__ import annotations

import pytest

ONLY_SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
ONLY_POSTGRESQL = pytest.mark.parametrize("database", ["postgresql"], indirect=True)
