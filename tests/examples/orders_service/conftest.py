"""Databases of the service, what it talks to, and clients of it."""

from __future__ import annotations

import shutil
from contextlib import ExitStack

import pytest
import sqlalchemy as sa

from orders_service.outside import Outside
from tests.examples.orders_service.service import EXAMPLE, started
from tests.support.command_line import succeed
from tests.support.kinds import KINDS


@pytest.fixture(scope="session")
def templates(databases):
    """A database of each kind on which `alembic upgrade head` was run in the example's folder."""
    with ExitStack() as stack:
        made = {kind: stack.enter_context(databases.fresh(kind, migrated=False)) for kind in KINDS}
        for each in made.values():
            succeed("upgrade", "head", cwd=EXAMPLE, url=each.url)
        yield made


@pytest.fixture
def migrated(empty_database, databases, templates):
    """A copy of one of them."""
    template = templates[empty_database.kind]
    if empty_database.kind == "sqlite":
        shutil.copy(template.path, empty_database.path)
    else:
        name, original = (sa.make_url(each.url).database for each in (empty_database, template))
        databases.admin(f"DROP DATABASE {name}")
        databases.admin(f"CREATE DATABASE {name} TEMPLATE {original}")
    return empty_database


@pytest.fixture
def outside():
    """What the service talks to."""
    return Outside()


@pytest.fixture
async def service(migrated, outside):
    """A client of the application with everything running."""
    async with started(migrated, outside) as (client, _):
        yield client


@pytest.fixture
async def web(migrated):
    """A client, and the parts, of an application that leaves the work in the background to others."""
    async with started(migrated, with_workers=False) as (client, app):
        yield client, app.state.parts
