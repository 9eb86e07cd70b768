"""pgqueuer: jobs with the same arguments, on its own tables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pgqueuer import PgQueuer as Application
from pgqueuer import Queries
from pgqueuer.db import AsyncpgDriver
from pgqueuer.types import QueueExecutionMode

if TYPE_CHECKING:
    from benchmarks.bench import Bench


class PgQueuer:
    """A queue of pgqueuer's."""

    name = "pgqueuer"
    tables = ("pgqueuer", "pgqueuer_log")

    def __init__(self, bench: Bench, connection: Any) -> None:
        self._bench = bench
        self._queries = Queries(AsyncpgDriver(connection))
        self._workers = connection

    @classmethod
    async def opened(cls, bench: Bench) -> PgQueuer:
        """Make its tables."""
        queue = cls(bench, await bench.connect())
        await queue._queries.install()
        return queue

    async def enqueue(self, count: int) -> None:
        """Enqueue jobs one by one."""
        for n in range(count):
            await self._queries.enqueue("task", _payload(n))

    async def enqueue_many(self, count: int) -> None:
        """Enqueue jobs at once."""
        await self._queries.enqueue(["task"] * count, [_payload(n) for n in range(count)], [0] * count)

    async def clear(self) -> None:
        """Forget all jobs, and open the connection that the next worker will close."""
        self._workers = await self._bench.connect()
        await self._bench.execute("TRUNCATE pgqueuer, pgqueuer_log")

    async def work(self, _: int, concurrency: int) -> int:
        """Run all jobs and return how many have succeeded."""
        application = Application(AsyncpgDriver(self._workers))

        @application.entrypoint("task")
        async def task(job: Any) -> None:
            json.loads(job.payload)

        await application.qm.run(batch_size=concurrency, mode=QueueExecutionMode.drain)
        return await self._bench.raw.fetchval("SELECT count(*) FROM pgqueuer_log WHERE status = 'successful'")


def _payload(number: int) -> bytes:
    return json.dumps({"order_id": f"order-{number}", "amount": "35.00"}).encode()
