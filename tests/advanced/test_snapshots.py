"""Snapshots in their table: the highest version is the latest, whoever else saves."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork, configure_engine
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemySnapshotStore
from cqrs_ddd_persistence_sqlalchemy.advanced.models import snapshots as snapshots_table
from cqrs_ddd_persistence_sqlalchemy.exceptions import SchemaOutOfDateError, UnitOfWorkError
from tests.support.engines import check_no_leaks, create_async_engine


@pytest.fixture
def snapshots(session_factory):
    return SQLAlchemySnapshotStore(session_factory=session_factory)


async def latest(snapshots, aggregate_id="o1", **given):
    found = await snapshots.get_latest_snapshot("Order", aggregate_id, **given)
    return found and (found["version"], found["snapshot_data"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"aggregate_type": ""}, "aggregate_type must be a text of at least one character"),
        ({"aggregate_id": UUID(int=1)}, "aggregate_id must be a text"),
        ({"aggregate_id": "x" * 256}, "aggregate_id has 256 characters"),
        ({"version": -1}, "version must be a whole number"),
        ({"version": True}, "version must be a whole number"),
        ({"version": 1.0}, "version must be a whole number"),
        ({"version": 2**63}, "version must be a whole number"),
        ({"schema_version": "2"}, "schema_version must be a whole number"),
        ({"schema_version": -1}, "schema_version must be a whole number"),
    ],
)
async def test_what_names_no_snapshot_is_refused(snapshots, wrong, message):
    """Names, versions and schema versions are checked before anything is written."""
    given = {"aggregate_type": "Order", "aggregate_id": "o1", "snapshot_data": {}, "version": 1} | wrong
    with pytest.raises(ValueError, match=message):
        await snapshots.save_snapshot(**given)
    assert await latest(snapshots) is None


async def test_the_highest_version_is_the_latest_in_whichever_order_they_come(snapshots):
    """Zero and the largest version included; up to a version, where one is given."""
    assert await latest(snapshots) is None
    for version in (50, 0, 100, 2**63 - 1, 150):
        await snapshots.save_snapshot("Order", "o1", {"at": version}, version)
    assert await latest(snapshots) == (2**63 - 1, {"at": 2**63 - 1})
    assert await latest(snapshots, max_version=149) == (100, {"at": 100})
    assert await latest(snapshots, max_version=100) == (100, {"at": 100})
    assert await latest(snapshots, max_version=0) == (0, {"at": 0})
    with pytest.raises(ValueError, match="max_version must be a whole number"):
        await latest(snapshots, max_version=-1)


async def test_a_version_saved_again_is_replaced(engine, snapshots):
    """Data, schema version and time; there is one row for it."""
    await snapshots.save_snapshot("Order", "o1", {"n": 1}, 50, schema_version=1)
    async with engine.begin() as connection:
        await connection.execute(sa.update(snapshots_table).values(created_at=datetime(2020, 1, 1, tzinfo=UTC)))
    await snapshots.save_snapshot("Order", "o1", {"m": 2}, 50, schema_version=2)
    found = await snapshots.get_latest_snapshot("Order", "o1", schema_version=2)
    assert (found["snapshot_data"], found["schema_version"]) == ({"m": 2}, 2)
    assert found["created_at"].year > 2020
    assert await latest(snapshots, schema_version=1) is None
    assert await snapshots.delete_snapshot("Order", "o1") == 1


async def test_the_time_is_the_databases_in_utc(engine, snapshots):
    """Aware, and on the clock that all machines share."""
    await snapshots.save_snapshot("Order", "o1", {}, 1)
    created_at = (await snapshots.get_latest_snapshot("Order", "o1"))["created_at"]
    async with engine.connect() as connection:
        now = "SELECT CAST(strftime('%s', 'now') AS REAL)"
        if engine.dialect.name == "postgresql":
            now = "SELECT extract(epoch FROM clock_timestamp())::float8"
        since_epoch = await connection.scalar(sa.text(now))
    assert created_at.tzinfo is UTC
    assert abs(created_at.timestamp() - since_epoch) < 60


async def test_snapshots_of_another_schema_version_are_passed_over(snapshots):
    """A reader gets the newest one of its own; None stands for those without, not for any."""
    for version, schema_version in ((50, None), (100, 1), (150, 2), (200, 1)):
        await snapshots.save_snapshot("Order", "o1", {}, version, schema_version=schema_version)
    found = {each: await latest(snapshots, schema_version=each) for each in (None, 0, 1, 2, 3)}
    assert found == {None: (50, {}), 0: None, 1: (200, {}), 2: (150, {}), 3: None}
    assert await latest(snapshots, schema_version=1, max_version=199) == (100, {})


async def test_two_releases_at_once_do_each_other_no_harm(snapshots):
    """The new one takes over a version; the old one goes on from what it saved before, and may take it back."""
    for version in (50, 100):
        await snapshots.save_snapshot("Order", "o1", {"old": version}, version, schema_version=1)
    await snapshots.save_snapshot("Order", "o1", {"new": 100}, 100, schema_version=2)
    assert await latest(snapshots, schema_version=1) == (50, {"old": 50})
    assert await latest(snapshots, schema_version=2) == (100, {"new": 100})
    await snapshots.save_snapshot("Order", "o1", {"old": 100}, 100, schema_version=1)
    assert await latest(snapshots, schema_version=1) == (100, {"old": 100})
    assert await latest(snapshots, schema_version=2) is None


async def test_aggregates_are_told_apart_by_type_and_id(snapshots):
    """Deleting takes all snapshots of one aggregate, and says how many."""
    for name, version in (("o1", 1), ("o1", 2), ("o2", 3)):
        await snapshots.save_snapshot("Order", name, {}, version, schema_version=version)
    await snapshots.save_snapshot("Customer", "o1", {}, 4)
    assert await snapshots.delete_snapshot(aggregate_type="Order", aggregate_id="o1") == 2
    assert await snapshots.delete_snapshot("Order", "o1") == 0
    assert await latest(snapshots, "o2", schema_version=3) == (3, {})
    assert (await snapshots.get_latest_snapshot("Customer", "o1"))["version"] == 4


async def test_sixteen_savers_at_once_never_fail(snapshots):
    """Each with versions of its own, and all with the same one: the highest is the latest, whole."""

    async def save(worker):
        for version in (worker, 100, 16 - worker):
            await snapshots.save_snapshot("Order", "o1", {"by": worker, "same": [worker] * 50}, version)

    await asyncio.gather(*(save(worker) for worker in range(16)))
    version, data = await latest(snapshots)
    assert version == 100
    assert data["same"] == [data["by"]] * 50
    assert await latest(snapshots, max_version=99) is not None
    assert await snapshots.delete_snapshot("Order", "o1") == 18


async def test_a_joined_operation_is_the_callers_to_commit(session_factory, snapshots):
    """Seen inside the unit of work, gone when that rolls back."""
    await snapshots.save_snapshot("Order", "o1", {"n": 1}, 1)
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await snapshots.save_snapshot("Order", "o1", {"n": 2}, 2, uow=uow)
        await snapshots.save_snapshot("Order", "o1", {"n": 3}, 1, uow=uow)
        assert await latest(snapshots, uow=uow) == (2, {"n": 2})
        assert await latest(snapshots) == (1, {"n": 1})
        assert await snapshots.delete_snapshot("Order", "o1", uow=uow) == 2
        await uow.rollback()
        assert await snapshots.prune(uow=uow) == 0
    assert await latest(snapshots) == (1, {"n": 1})


async def test_after_an_error_in_the_block_nothing_is_saved(session_factory, snapshots):
    """The exception passes, the snapshot does not stay."""

    async def fail():
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await snapshots.save_snapshot("Order", "o1", {}, 1, uow=uow)
            raise LookupError("no such order")

    with pytest.raises(LookupError, match="no such order"):
        await fail()
    assert await latest(snapshots) is None


async def test_a_unit_of_work_may_be_idle(session_factory):
    """As a factory's result or as uow=: each operation is then a transaction of its own."""
    uow = SQLAlchemyUnitOfWork(session_factory)
    store = SQLAlchemySnapshotStore(lambda: uow)
    await store.save_snapshot("Order", "o1", {"n": 1}, 1)
    async with uow:
        await store.save_snapshot("Order", "o1", {"n": 2}, 2)
        await uow.rollback()
    assert await latest(store, uow=uow) == (1, {"n": 1})
    assert await SQLAlchemySnapshotStore().delete_snapshot("Order", "o1", uow=uow) == 1


async def test_without_any_transaction_the_error_says_what_to_pass():
    """A store with neither factory nor unit of work names the ways out."""
    with pytest.raises(UnitOfWorkError, match=r"SQLAlchemySnapshotStore has no transaction .*pass uow="):
        await SQLAlchemySnapshotStore().get_latest_snapshot("Order", "o1")


@pytest.mark.parametrize("operation", ["save_snapshot", "get_latest_snapshot", "delete_snapshot", "prune"])
async def test_an_unmigrated_database_is_named(empty_database, operation):
    """Every operation says which table is missing and what to run."""
    engine = configure_engine(create_async_engine(empty_database.url))
    store = SQLAlchemySnapshotStore(session_factory=async_sessionmaker(engine))
    arguments = {"save_snapshot": ("Order", "o1", {}, 1), "prune": ()}.get(operation, ("Order", "o1"))
    with pytest.raises(SchemaOutOfDateError, match=r"table 'snapshots' .*alembic upgrade head"):
        await getattr(store, operation)(*arguments)
    await check_no_leaks(engine)


async def test_snapshots_have_the_schema_they_are_given(engine, session_factory):
    """Statements name it; one that is no identifier is refused."""
    with pytest.raises(ValueError, match="tenant; DROP"):
        SQLAlchemySnapshotStore(session_factory=session_factory, schema="tenant; DROP")
    with pytest.raises(SchemaOutOfDateError, match="snapshots"):
        await SQLAlchemySnapshotStore(session_factory=session_factory, schema="nowhere").prune()
    own = "main" if engine.dialect.name == "sqlite" else "public"
    store = SQLAlchemySnapshotStore(session_factory=session_factory, schema=own)
    for version in (1, 2):
        await store.save_snapshot("Order", "o1", {}, version)
    assert await store.prune() == 1
    assert await latest(SQLAlchemySnapshotStore(session_factory=session_factory)) == (2, {})
