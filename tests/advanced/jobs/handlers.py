"""A handler for tests that have a worker, and how often such a worker looks around."""

from __future__ import annotations

import asyncio
from datetime import timedelta

SHORT = timedelta(milliseconds=20)


class Work:
    """A handler that notes the jobs it was given, and does with them what a test says."""

    def __init__(self):
        self.given = []
        self.errors = {}
        self.gate = None
        self.reached = asyncio.Event()
        self.hears = False

    async def __call__(self, job):
        self.given.append(job.id)
        if self.gate is not None:
            self.reached.set()
            if self.hears:
                await job.cancelled.wait()
                job.cancel("as asked")
            else:
                await self.gate.wait()
        if self.errors.get(job.id, 0) > 0:
            self.errors[job.id] -= 1
            raise ConnectionError("no")
        job.last_line += 1
        return {"lines": job.last_line}
