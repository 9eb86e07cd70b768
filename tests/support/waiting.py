"""Waiting for what happens elsewhere: in another task, in another session or in the database."""

from __future__ import annotations

import asyncio

PATIENCE_SECONDS = 20


async def until(condition):
    """Wait until what the condition, a plain or a coroutine function, returns is true, and return it."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.005)
