"""The service as a server starts it, an order that can be placed, and waiting for what becomes of one."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import httpx

from orders_service.main import create_app
from orders_service.settings import Settings
from tests.support.databases import ROOT

EXAMPLE = ROOT / "examples" / "orders_service"
PATIENCE_SECONDS = 60
TEA = {"article": "tea", "quantity": 2, "price": "4.50"}
DRAFT = {"email": "ann@example.org", "address": "1 Main Street", "lines": [TEA]}


@asynccontextmanager
async def started(database, outside=None, *, with_workers=True):
    """Start the application as a server does; yield a client and the application."""
    app = create_app(Settings(database.url, with_workers=with_workers), outside)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://test") as made:
        yield made, app


async def place(client, key="key-1", **changes):
    return await client.post("/orders", json=DRAFT | changes, headers={"Idempotency-Key": key})


async def eventually(condition):
    """Wait for an async condition, and return its value."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (value := await condition()):  # noqa: ASYNC110  (it waits for other processes, too)
            await asyncio.sleep(0.05)
    return value


async def ended(client, order_id, status):
    """Wait until an order has a status; return it as it is then."""

    async def shown():
        order = (await client.get(f"/orders/{order_id}", params={"after": 1})).json()
        return order if order.get("status") == status else None

    return await eventually(shown)
