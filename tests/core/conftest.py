"""Engines of a test's own."""

from __future__ import annotations

import pytest

from tests.core.engines import engine_maker


@pytest.fixture
async def make_engine():
    """Makes engines without any settings; they are checked for leaks, and disposed of however the test ends."""
    async with engine_maker() as make:
        yield make
