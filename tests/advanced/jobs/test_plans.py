"""Claiming stays flat as finished jobs pile up: both databases go by the partial indexes."""

from __future__ import annotations

import re

import pytest
import sqlalchemy as sa

from tests.advanced.jobs.conftest import LEASE, Import

OF_WORKERS = [
    ("ix_jobs_due", lambda jobs: jobs.claim(10, worker_id="w", lease=LEASE)),
    ("ix_jobs_due_in_queue", lambda jobs: jobs.claim(10, worker_id="w", lease=LEASE, queues=["a"])),
    ("ix_jobs_leases", lambda jobs: jobs.release_expired(10)),
]
OF_PEOPLE = [
    ("ix_jobs_type_status_created_at", lambda jobs: jobs.find_by_status(["FAILED"], limit=10)),
    ("ix_jobs_over", lambda jobs: jobs.purge(Import().created_at, statuses=["COMPLETED"])),
]
SCAN = r"Seq Scan|SCAN jobs(?! USING)"
SORT = r"Sort Key: jobs|TEMP B-TREE"


@pytest.fixture
async def piled_up(engine, jobs):
    """Some thousand jobs that are over, a few hundred that wait in two queues, and some that run."""
    await jobs.enqueue_many(Import() for _ in range(3000))
    await jobs.complete(await jobs.claim(3000, worker_id="w", lease=LEASE))
    await jobs.enqueue_many(Import(queue=queue, priority=n % 3) for n in range(200) for queue in ("a", "b"))
    await jobs.claim(50, worker_id="w", lease=LEASE)
    async with engine.begin() as connection:
        await connection.execute(sa.text("ANALYZE jobs"))


async def plan_of(engine, operation):
    """Return how the database carries out what an operation sends, on PostgreSQL whatever its parameters are."""
    sent = []

    def note(_connection, _cursor, text, parameters, *_):
        sent.append((text, parameters))

    sa.event.listen(engine.sync_engine, "before_cursor_execute", note)
    await operation
    sa.event.remove(engine.sync_engine, "before_cursor_execute", note)
    text, parameters = next(each for each in sent if "jobs" in each[0])
    async with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", parameters)
            return "\n".join(str(row[-1]) for row in plan)
        driver = (await connection.get_raw_connection()).driver_connection
        await driver.execute("SET plan_cache_mode = force_generic_plan")
        await driver.execute(f"PREPARE it AS {text}")
        literals = ", ".join("NULL" if value is None else f"'{value}'" for value in parameters)
        plan = await driver.fetch(f"EXPLAIN EXECUTE it ({literals})")
        await driver.execute("DEALLOCATE it; RESET plan_cache_mode")
        return "\n".join(row[0] for row in plan)


async def test_what_workers_ask_for_comes_out_of_an_index(engine, jobs, piled_up):
    """In the order in which it is taken, without a look at what is over."""
    for index, operation in OF_WORKERS:
        plan = await plan_of(engine, operation(jobs))
        assert f"{index} " in plan
        assert re.search(f"{SCAN}|{SORT}", plan) is None


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_claiming_inside_another_statement_has_the_index_too(engine, jobs, piled_up):
    """What is claimed with the completion of others comes out of the index in its order, on SQLite by itself."""
    plan = await plan_of(engine, jobs.complete_and_claim([], 10, worker_id="w", lease=LEASE))
    assert "ix_jobs_due " in plan
    assert re.search(SORT, plan) is None


async def test_what_people_ask_for_has_an_index(engine, jobs, piled_up):
    """Finding by status and purging; stale jobs are looked for among those that run."""
    for index, operation in OF_PEOPLE:
        assert f"{index} " in await plan_of(engine, operation(jobs))
    plan = await plan_of(engine, jobs.get_stale_jobs(limit=10))
    assert re.search(SCAN, plan) is None
