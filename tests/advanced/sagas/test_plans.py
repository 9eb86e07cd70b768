"""What looks for sagas goes by an index, however many there are."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemySagaRepository
from tests.advanced.sagas.conftest import LEASE, Order
from tests.support.engines import create_async_engine

FINDERS = {
    "get": lambda orders: orders.get("s77"),
    "find_by_correlation_id": lambda orders: orders.find_by_correlation_id("c77"),
    "find_stalled_sagas": lambda orders: orders.find_stalled_sagas(10),
    "find_suspended_sagas": lambda orders: orders.find_suspended_sagas(10),
    "find_expired_suspended_sagas": lambda orders: orders.find_expired_suspended_sagas(10),
    "claim_stalled_sagas": lambda orders: orders.claim_stalled_sagas(10, lease=LEASE),
    "claim_expired_suspended_sagas": lambda orders: orders.claim_expired_suspended_sagas(10, lease=LEASE),
    "claim_due_sagas": lambda orders: orders.claim_due_sagas(10, lease=LEASE),
}

# Of a thousand sagas: ten of each status that is not over, the rest completed; some with leases, some overdue.
FILL = """
INSERT INTO sagas (id, saga_type, correlation_id, status, state, events, version, timeout_at, lease_until, updated_at)
SELECT 's' || n, 'Order', 'c' || n,
    CASE n % 1000 / 10 WHEN 0 THEN 'PENDING' WHEN 1 THEN 'RUNNING' WHEN 2 THEN 'COMPENSATING' WHEN 3 THEN 'SUSPENDED'
        ELSE 'COMPLETED' END,
    jsonb_build_object('id', 's' || n), '[]', 1,
    now() + (n % 100 - 1) * interval '1 minute',
    CASE WHEN n % 2 = 0 THEN now() + (n % 100 - 10) * interval '1 minute' END,
    now() - interval '1 second' * n
FROM generate_series(1, {count}) AS n
"""


async def plans(engine, orders, find):
    """Return the plans of the statements that a finder sends."""
    sent = []

    def note(_connection, _cursor, statement, parameters, *_):
        sent.append((statement, parameters))

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    await find(orders)
    event.remove(engine.sync_engine, "before_cursor_execute", note)
    found = []
    async with engine.connect() as connection:
        for statement, parameters in sent:
            if statement.startswith(("SELECT", "UPDATE", "WITH")):
                explained = await connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
                plan = explained.scalar_one()
                found.append(json.loads(plan) if isinstance(plan, str) else plan)
    return found


def scans(plan):
    """Return the kinds of scans of the table that a plan consists of."""
    node = plan[0]["Plan"] if isinstance(plan, list) else plan
    mine = [node["Node Type"]] if node.get("Relation Name") == "sagas" and "Scan" in node["Node Type"] else []
    return mine + [scan for child in node.get("Plans", []) for scan in scans(child)]


@pytest.fixture
async def many(postgresql, request):
    """A PostgreSQL with so many sagas, and its repository."""
    engine = create_async_engine(postgresql.url)
    async with engine.begin() as connection:
        await connection.exec_driver_sql(FILL.format(count=request.param))
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.exec_driver_sql("VACUUM ANALYZE sagas")
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    yield engine, SQLAlchemySagaRepository(Order, lambda: SQLAlchemyUnitOfWork(sessions))
    await engine.dispose()


async def check_each_finder(many):
    engine, orders = many
    for name, find in FINDERS.items():
        found = [scans(plan) for plan in await plans(engine, orders, find)]
        assert any(found), name
        assert all("Index" in scan or "Bitmap" in scan for each in found for scan in each), (name, found)


@pytest.mark.parametrize("many", [20_000], indirect=True)
async def test_each_finder_goes_by_an_index(many):
    """Of some ten thousand sagas, most of them over, nothing reads them all."""
    await check_each_finder(many)


@pytest.mark.slow
@pytest.mark.parametrize("many", [1_000_000], indirect=True)
async def test_each_finder_goes_by_an_index_at_a_million(many):
    """So it stays."""
    await check_each_finder(many)


async def test_sqlite_goes_by_the_partial_indexes_too(sqlite):
    """Which it does where a statement says what the index says, in the same words."""
    engine = create_async_engine(sqlite.url)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    orders = SQLAlchemySagaRepository(Order, lambda: SQLAlchemyUnitOfWork(sessions))
    sent = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *given: sent.append((given[2], given[3])))
    await orders.claim_due_sagas(10, lease=LEASE)
    async with engine.connect() as connection:
        statement, parameters = next(each for each in sent if each[0].startswith("SELECT"))
        rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        plan = " | ".join(row.detail for row in rows)
    await engine.dispose()
    assert "SCAN" not in plan.replace("SCAN CONSTANT ROW", "")
    for index in ("ix_sagas_deadlines", "ix_sagas_due", "ix_sagas_type_status_updated_at"):
        assert index in plan
