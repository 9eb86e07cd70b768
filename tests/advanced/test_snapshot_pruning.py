"""Pruning: of each aggregate the newest snapshots stay, and nobody who saves meanwhile has to wait."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemySnapshotStore
from cqrs_ddd_persistence_sqlalchemy.advanced.models import snapshots as table
from tests.support.kinds import ONLY_POSTGRESQL


@pytest.fixture
def snapshots(session_factory):
    return SQLAlchemySnapshotStore(session_factory=session_factory)


async def fill(engine, versions):
    """Store snapshots of these versions by aggregate type and id."""
    rows = [
        {"aggregate_type": kind, "aggregate_id": name, "version": version, "snapshot_data": {}}
        for (kind, name), of_aggregate in versions.items()
        for version in of_aggregate
    ]
    async with engine.begin() as connection:
        await connection.execute(sa.insert(table), rows)


async def stored(engine):
    """Return the versions that are there by aggregate type and id."""
    async with engine.connect() as connection:
        await connection.execution_options(sqlite_begin="DEFERRED")
        rows = (await connection.execute(sa.select(table.c[:3]).order_by(table.c.version))).all()
    found = {}
    for kind, name, version in rows:
        found.setdefault((kind, name), []).append(version)
    return found


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("keep", [1, 2, 5])
async def test_the_newest_of_each_aggregate_stay(engine, snapshots, keep, batch_size):
    """However batches cut aggregates and types apart; and the number of those deleted is returned."""
    before = {
        ("Customer", "o1"): [7],
        ("Order", "o1"): [1, 2, 3, 4, 5, 6],
        ("Order", "O1"): [10, 30, 20],
        ("Order", "Ö'%\N{BLACK NIB}"): [1, 2**63 - 1, 0],
        ("Ordering", "o1"): [3, 4],
    }
    await fill(engine, before)
    left = {aggregate: sorted(versions)[-keep:] for aggregate, versions in before.items()}
    gone = sum(map(len, before.values())) - sum(map(len, left.values()))
    assert await snapshots.prune(keep=keep, batch_size=batch_size) == gone
    assert await stored(engine) == left
    assert await snapshots.prune(keep=keep, batch_size=batch_size) == 0


async def test_other_types_are_left_alone(engine, snapshots):
    """With a type, only its aggregates are pruned."""
    await fill(engine, {(kind, "o1"): [1, 2] for kind in ("A", "B", "C")})
    assert await snapshots.prune("B", batch_size=1) == 1
    assert await snapshots.prune(aggregate_type="D") == 0
    assert await stored(engine) == {("A", "o1"): [1, 2], ("B", "o1"): [2], ("C", "o1"): [1, 2]}


async def test_schema_versions_count_together(snapshots):
    """The newest one stays, whichever release wrote it."""
    for version in (1, 2, 3):
        await snapshots.save_snapshot("Order", "o1", {}, version, schema_version=version)
    assert await snapshots.prune(keep=2) == 1
    assert await snapshots.get_latest_snapshot("Order", "o1", schema_version=1) is None
    assert await snapshots.get_latest_snapshot("Order", "o1", schema_version=2) is not None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"keep": 0}, "keep is 0: keep at least one, or delete .* with delete_snapshot"),
        ({"keep": -1}, "keep must be a whole number"),
        ({"keep": True}, "keep must be a whole number"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 1.5}, "batch_size must be a whole number"),
        ({"aggregate_type": ""}, "aggregate_type must be a text"),
    ],
)
async def test_what_makes_no_sense_is_refused(engine, snapshots, wrong, message):
    """Nothing is deleted."""
    await fill(engine, {("Order", "o1"): [1, 2]})
    with pytest.raises(ValueError, match=message):
        await snapshots.prune(**wrong)
    assert await stored(engine) == {("Order", "o1"): [1, 2]}


async def test_an_open_unit_of_work_is_joined(engine, session_factory, snapshots):
    """Its own snapshots are seen, and a rollback brings back what was pruned."""
    await fill(engine, {("Order", "o1"): [1, 2]})
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await snapshots.save_snapshot("Order", "o1", {}, 3, uow=uow)
        assert await snapshots.prune(batch_size=1, uow=uow) == 2
        assert await snapshots.prune(uow=uow) == 0
        await uow.rollback()
    assert await stored(engine) == {("Order", "o1"): [1, 2]}


async def test_each_batch_is_committed_by_itself(engine, snapshots):
    """What fails in a later batch leaves the earlier ones pruned."""
    await fill(engine, {("Order", f"o{number}"): [1, 2] for number in range(3)})
    deletes = 0

    def fail(_connection, _cursor, statement, *_):
        nonlocal deletes
        deletes += "DELETE FROM snapshots" in statement
        if deletes == 3:
            raise LookupError("the third batch")

    event.listen(engine.sync_engine, "before_cursor_execute", fail)
    with pytest.raises(LookupError):
        await snapshots.prune(batch_size=2)
    event.remove(engine.sync_engine, "before_cursor_execute", fail)
    assert await stored(engine) == {("Order", "o0"): [2], ("Order", "o1"): [2], ("Order", "o2"): [1, 2]}


async def test_it_ends_while_others_save_ahead_of_it(engine, snapshots):
    """Each batch meets a newer version and a new aggregate behind it, and still there is a last one."""
    await fill(engine, {("Order", "o1"): [1, 2, 3]})
    saved = 3

    async def save_ahead(operation, *arguments, **given):
        nonlocal saved
        saved += 1
        await snapshots.save_snapshot("Order", "o1", {}, saved)
        await snapshots.save_snapshot("Order", f"o{saved:04}", {}, 1)
        return await operation(*arguments, **given)

    class Busy(SQLAlchemySnapshotStore):
        async def _delete_superseded(self, *arguments, **given):
            return await save_ahead(super()._delete_superseded, *arguments, **given)

    busy = Busy(session_factory=snapshots._scope._session_factory)
    async with asyncio.timeout(20):
        assert await busy.prune(batch_size=1) == 3
    assert (await stored(engine))["Order", "o1"] == [4, 5, 6]


async def test_sixteen_savers_and_two_that_prune_never_fail(engine, snapshots):
    """Whatever is deleted meanwhile, the newest of each aggregate are there in the end."""
    done = False

    async def save(worker):
        for version in range(1, 21):
            await snapshots.save_snapshot("Order", f"o{worker % 4}", {"by": worker}, version)

    async def prune():
        while not done:
            await snapshots.prune(batch_size=3)

    pruning = [asyncio.ensure_future(prune()) for _ in range(2)]
    await asyncio.gather(*(save(worker) for worker in range(16)))
    done = True
    await asyncio.gather(*pruning)
    await snapshots.prune()
    assert await stored(engine) == {("Order", f"o{number}"): [20] for number in range(4)}


@ONLY_POSTGRESQL
async def test_a_row_that_somebody_saves_in_a_long_transaction_is_left(engine, session_factory, snapshots):
    """Pruning goes past it at once, and so never deadlocks with who saves several versions."""
    await fill(engine, {("Order", "o1"): [1, 2, 3, 4]})
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await snapshots.save_snapshot("Order", "o1", {"n": 2}, 2, uow=uow)
        async with asyncio.timeout(20):
            assert await snapshots.prune() == 2
        await snapshots.save_snapshot("Order", "o1", {"n": 1}, 1, uow=uow)
    assert await stored(engine) == {("Order", "o1"): [1, 2, 4]}
    assert await snapshots.prune() == 2


async def test_no_batch_reads_the_whole_type(engine, snapshots):
    """In the middle of many aggregates of one type, the database goes by the key and by nothing else."""
    numbers = "WITH RECURSIVE numbers(n) AS (SELECT 10000 UNION ALL SELECT n + 1 FROM numbers WHERE n < 60000)"
    statements = []

    def note(_connection, _cursor, statement, parameters, *_):
        if "snapshots" in statement:
            statements.append((statement, parameters))

    async with engine.begin() as connection:
        columns = "aggregate_type, aggregate_id, version, snapshot_data"
        rows = f"{numbers} SELECT 'Order', 'o' || n, 1, '{{}}' FROM numbers"
        if engine.dialect.name == "postgresql":
            rows = rows.replace("'{}'", "'{}'::jsonb")
        await connection.execute(sa.text(f"INSERT INTO snapshots ({columns}) {rows}"))
        await connection.execute(sa.text("ANALYZE"))
    event.listen(engine.sync_engine, "before_cursor_execute", note)
    await snapshots.prune(batch_size=5000)
    event.remove(engine.sync_engine, "before_cursor_execute", note)
    middle = statements[len(statements) // 2 :][:2]
    assert [("superseded" in statement) for statement, _ in middle] in ([True, False], [False, True])
    explain = "EXPLAIN " if engine.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "
    async with engine.connect() as connection:
        for statement, parameters in middle:
            found = await connection.exec_driver_sql(explain + statement, parameters)
            plan = "\n".join(str(row) for row in found)
            assert "Seq Scan on snapshots" not in plan, plan
            assert "JIT" not in plan, plan
            assert "SCAN snapshots" not in plan, plan
            assert "SEARCH snapshots USING INDEX sqlite_autoindex_snapshots_1 (aggregate_type=?)" not in plan, plan
