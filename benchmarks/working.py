"""The worker as it is run, with heartbeats and retries, on jobs that do nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers import job_peers
from benchmarks.tasks import Task
from benchmarks.workload import LIBRARY, Side, Workload
from cqrs_ddd_persistence_sqlalchemy.advanced import JobWorker, SQLAlchemyBackgroundJobRepository

if TYPE_CHECKING:
    from benchmarks.bench import Bench

JOBS, CONCURRENCY = 1000, 10


async def workloads(bench: Bench) -> list[Workload]:
    """Make the workload, with each peer's worker that is installed."""
    repository = SQLAlchemyBackgroundJobRepository(Task, session_factory=bench.sessions)
    count = bench.size(JOBS, least=CONCURRENCY)

    async def prepare(_: int) -> None:
        await bench.empty("jobs")
        await repository.enqueue_many([Task(order_id=f"order-{n}") for n in range(count)])
        await bench.settle("jobs")

    async def library(_: int) -> int:
        done = await JobWorker(repository, concurrency=CONCURRENCY).run_due()
        assert done == count
        return done

    sides = [Side(LIBRARY, library, prepare)]
    for peer in await job_peers(bench):

        async def fill(_: int, peer: object = peer) -> None:
            await peer.clear()
            await peer.enqueue_many(count)
            await bench.settle(*peer.tables)

        async def work(_: int, peer: object = peer) -> None:
            assert await peer.work(count, CONCURRENCY) == count

        sides.append(Side(peer.name, work, fill))
    return [
        Workload(
            "JobWorker, 1,000 no-op jobs, 10 at once",
            count,
            tuple(sides),
            "nothing: the peers' workers, each as it comes, 10 jobs at once, until the queue is empty",
        )
    ]
