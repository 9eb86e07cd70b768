"""A pool with a connection in it, and a note of the sessions that are made."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncSession


@pytest.fixture
async def a_connection_in_the_pool(engine):
    """One that was used before; a first one is SQLAlchemy's to open."""
    async with engine.connect():
        pass


@pytest.fixture
def sessions(monkeypatch):
    """The sessions that are made."""
    made, make = [], AsyncSession.__init__

    def noted(self, *arguments, **options):
        made.append(self)
        make(self, *arguments, **options)

    monkeypatch.setattr(AsyncSession, "__init__", noted)
    return made
