"""The README's three tastes, put together as one application."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal

from tests.docs.pages import blocks
from tests.docs.running import Reader
from tests.support.databases import ROOT

REVISION = 'alembic revision --autogenerate -m "create balances"'


async def test_the_tastes_are_one_application(empty_database, tmp_path):
    """The read model, its revision, the deploy and the application work together, from an empty database on."""
    page = ROOT / "README.md"
    assert f"`{REVISION}`" in page.read_text()
    make, read_model, configuration, deploy, application = blocks(page)
    assert make.directive == "elsewhere"  # the names of its commands are compared with the Makefile
    reader = Reader(tmp_path, empty_database, {})
    await reader.do(read_model)
    await reader.do(configuration)
    await reader.do(deploy)
    await reader.do(replace(deploy, text=REVISION))
    await reader.do(deploy)
    with reader.at_work():
        await reader.do(application)
    names = reader.names
    running = asyncio.create_task(names["runner"].run())
    assert await names["pay"]("account-1", "9.50", 0) == Decimal("9.50")
    assert await names["pay"]("account-1", "0.50", 1) == Decimal("10.00")
    names["runner"].stop()
    await running
    await names["engine"].dispose()
