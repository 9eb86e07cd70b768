"""procrastinate: jobs with the same arguments, on its own tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import procrastinate

if TYPE_CHECKING:
    from benchmarks.bench import Bench


class Procrastinate:
    """A queue of procrastinate's."""

    name = "procrastinate"
    tables = ("procrastinate_jobs", "procrastinate_events")

    def __init__(self, bench: Bench, app: procrastinate.App) -> None:
        self._bench = bench
        self._app = app

        @app.task(name="task", retry=3)
        async def task(order_id: str, amount: str) -> None:
            """Do nothing."""

        self._task = task

    @classmethod
    async def opened(cls, bench: Bench) -> Procrastinate:
        """Make its tables and open its pool."""
        connector = procrastinate.PsycopgConnector(conninfo=bench.database.dsn, min_size=4, max_size=10)
        app = procrastinate.App(connector=connector)
        await bench.stack.enter_async_context(app.open_async())
        await app.schema_manager.apply_schema_async()
        return cls(bench, app)

    async def enqueue(self, count: int) -> None:
        """Enqueue jobs one by one."""
        for n in range(count):
            await self._task.defer_async(order_id=f"order-{n}", amount="35.00")

    async def enqueue_many(self, count: int) -> None:
        """Enqueue jobs at once."""
        await self._task.batch_defer_async(*({"order_id": f"order-{n}", "amount": "35.00"} for n in range(count)))

    async def clear(self) -> None:
        """Forget all jobs."""
        await self._bench.execute("TRUNCATE procrastinate_jobs CASCADE")

    async def work(self, _: int, concurrency: int) -> int:
        """Run all jobs and return how many have succeeded."""
        await self._app.run_worker_async(wait=False, concurrency=concurrency, install_signal_handlers=False)
        return await self._bench.raw.fetchval("SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'")
