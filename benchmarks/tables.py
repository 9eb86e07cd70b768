"""Tables of a million rows: rows that the library has written, copied by SQL with ids of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.appending import an_event
from benchmarks.orders import ORDERS, an_order, tables
from benchmarks.sagas import a_trip
from benchmarks.snapshots import a_state
from benchmarks.tasks import Task
from benchmarks.workload import LIBRARY
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore
from cqrs_ddd_persistence_sqlalchemy.advanced import (
    SQLAlchemyBackgroundJobRepository,
    SQLAlchemySagaRepository,
    SQLAlchemySnapshotStore,
)

if TYPE_CHECKING:
    from benchmarks.bench import Bench

TABLES = ("events", "jobs", "snapshots", "sagas", f"{ORDERS}_{LIBRARY}")
NUMBERS = {
    True: "SELECT n FROM generate_series({first}, {last}) AS n",
    False: "WITH RECURSIVE numbers(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM numbers WHERE n < {last}) "
    "SELECT n FROM numbers",
}
TEMPLATE = "template"
# What is over is what piles up: of the sagas the same few are stalled, suspended and overdue at every size.
LIVE_SAGAS = 600
MOMENTS = {
    True: "(timestamptz '2020-01-01 00:00:00+00' + n * interval '1 second')",
    False: "strftime('%Y-%m-%d %H:%M:%S.000000', '2020-01-01', '+' || n || ' seconds')",
}
COPIES = {
    "events": """
        INSERT INTO events (event_id, aggregate_id, version, aggregate_type, event_type, payload, metadata, occurred_at,
            recorded_at, correlation_id)
        SELECT 'e' || n, 'stream-' || n, 1, aggregate_type, event_type, payload, metadata, occurred_at, recorded_at,
            correlation_id
        FROM events, ({numbers}) AS numbers WHERE aggregate_id = '{template}'
    """,
    "jobs": """
        INSERT INTO jobs (id, job_type, queue, status, priority, due_at, total_items, processed_items, retry_count,
            max_retries, state, version)
        SELECT 'j' || n, job_type, queue, CASE WHEN n % 2 = 0 THEN 'PENDING' ELSE 'COMPLETED' END, 0, due_at,
            0, 0, 0, 3, state, 1
        FROM jobs, ({numbers}) AS numbers WHERE id = '{template}'
    """,
    "snapshots": """
        INSERT INTO snapshots (aggregate_type, aggregate_id, version, snapshot_data, created_at)
        SELECT aggregate_type, 'order-' || (n / 4), n % 4 + 1, snapshot_data, created_at
        FROM snapshots, ({numbers}) AS numbers WHERE aggregate_id = '{template}'
    """,
    "sagas": """
        INSERT INTO sagas (id, saga_type, correlation_id, status, state, events, timeout_at, version, created_at,
            updated_at)
        SELECT 'saga-' || n, saga_type, 'order-' || n,
            CASE WHEN n > {live} THEN 'COMPLETED' WHEN n % 3 = 0 THEN 'RUNNING' ELSE 'SUSPENDED' END, state, events,
            CASE WHEN n > {live} OR n % 3 = 0 THEN NULL WHEN n % 3 = 1 THEN {moment} ELSE {far} END, 1, {moment},
            {moment}
        FROM sagas, ({numbers}) AS numbers WHERE id = '{template}-0'
    """,
    f"{ORDERS}_{LIBRARY}": f"""
        INSERT INTO {ORDERS}_{LIBRARY} (id, customer_id, status, total, items, paid, placed_at, note)
        SELECT 'order-' || n, customer_id, status, total, items, paid, placed_at, note
        FROM {ORDERS}_{LIBRARY}, ({{numbers}}) AS numbers WHERE id = '{{template}}'
    """,
}


async def write_templates(bench: Bench) -> None:
    """Write one row of each kind, by the library itself."""
    store = await tables(bench, 0)
    await store.upsert(f"{ORDERS}_{LIBRARY}", TEMPLATE, an_order(TEMPLATE, 1))
    await SQLAlchemyEventStore(bench.sessions).append([an_event(TEMPLATE, 1)])
    await SQLAlchemyBackgroundJobRepository(Task, session_factory=bench.sessions).enqueue_many([Task(id=TEMPLATE)])
    snapshots = SQLAlchemySnapshotStore(session_factory=bench.sessions)
    await snapshots.save_snapshot("Order", TEMPLATE, a_state(1), 1)
    trip = a_trip(TEMPLATE, 0)
    trip.bookings, trip.step_history = trip.bookings[:5], trip.step_history[:3]
    await SQLAlchemySagaRepository(type(trip), session_factory=bench.sessions).save(trip)


async def fill(bench: Bench, first: int, last: int) -> None:
    """Add the rows numbered so, inclusive, to each table."""
    values = {
        "numbers": NUMBERS[bench.is_postgresql].format(first=first, last=last),
        "template": TEMPLATE,
        "live": str(LIVE_SAGAS),
        "moment": MOMENTS[bench.is_postgresql],
        "far": MOMENTS[bench.is_postgresql].replace("2020", "2999"),
    }
    for table in TABLES:
        await bench.execute(COPIES[table].format(**values))
    await bench.settle(*TABLES)
    if not bench.is_postgresql:
        await bench.execute("ANALYZE")
