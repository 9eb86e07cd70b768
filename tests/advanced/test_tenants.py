"""Two tenants in one database and one process: each store is told its schema, and none sees the other's rows."""

from __future__ import annotations

import asyncio
import json

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_advanced_core import StoredEvent
from cqrs_ddd_advanced_core.background_jobs.entity import BaseBackgroundJob
from cqrs_ddd_advanced_core.projections import Projection, ProjectionSchema
from cqrs_ddd_advanced_core.sagas import SagaState, saga_step
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork, schema
from cqrs_ddd_persistence_sqlalchemy.advanced import (
    JobWorker,
    ProjectionRunner,
    SagaRunner,
    SQLAlchemyBackgroundJobRepository,
    SQLAlchemyJobControl,
    SQLAlchemyProjectionControl,
    SQLAlchemyProjectionPositionStore,
    SQLAlchemyProjectionStore,
    SQLAlchemySagaControl,
    SQLAlchemySagaRepository,
    SQLAlchemySnapshotStore,
)
from cqrs_ddd_persistence_sqlalchemy.exceptions import CollectionNotFoundError, SchemaOutOfDateError
from cqrs_ddd_persistence_sqlalchemy.jobs.__main__ import main as jobs_command
from cqrs_ddd_persistence_sqlalchemy.projections.__main__ import main as projections_command
from cqrs_ddd_persistence_sqlalchemy.sagas.__main__ import main as sagas_command
from tests.support.command_line import declare, make_application, succeed
from tests.support.engines import create_async_engine

TENANTS = ("tenant_a", "Tenant_B")
ACCOUNTS = ProjectionSchema(
    "accounts", [("id", "TEXT PRIMARY KEY"), ("balance", "INTEGER NOT NULL"), ("_version", "INTEGER")]
)
projection = Projection("accounts", ACCOUNTS)


@projection.fold("Paid")
def paid(row, event):
    """Add up."""
    return {"balance": (row["balance"] if row else 0) + event.payload["amount"]}


class Transfer(SagaState):
    """A saga of one step, which says where it was run."""

    tenant: str = ""
    remarks: tuple[str, ...] = ()

    @saga_step()
    async def move(self) -> None:
        """Remember the tenant."""
        self.remarks = (self.tenant,)


class Report(BaseBackgroundJob):
    """A job that says whose it is."""

    tenant: str = ""


@pytest.fixture(scope="module")
def postgresql(databases, tmp_path_factory):
    """A database in which two tenants are migrated, each with a projection; the default schema is empty."""
    application = make_application(tmp_path_factory.mktemp("tenants") / "application")
    declare(application, ACCOUNTS)
    succeed("-x", "projection=read_models:accounts", "revision", "-m", "create accounts", cwd=application)
    with databases.fresh("postgresql", migrated=False) as fresh:
        for tenant in TENANTS:
            succeed("-x", f"schema={tenant}", "upgrade", "head", cwd=application, url=fresh.dsn)
        yield fresh


@pytest.fixture
async def sessions(postgresql):
    """Sessions of one engine, whose pool of two connections both tenants share; the tables are empty."""
    engine = create_async_engine(postgresql.url, pool_size=2, max_overflow=0)
    async with engine.begin() as connection:
        for tenant in TENANTS:
            found = sa.text("SELECT tablename FROM pg_tables WHERE schemaname = :tenant AND tablename !~ 'alembic'")
            for table in (await connection.scalars(found, {"tenant": tenant})).all():
                await connection.exec_driver_sql(f'ALTER TABLE "{tenant}"."{table}" DISABLE TRIGGER USER')
                await connection.exec_driver_sql(f'TRUNCATE "{tenant}"."{table}" RESTART IDENTITY')
                await connection.exec_driver_sql(f'ALTER TABLE "{tenant}"."{table}" ENABLE TRIGGER USER')
    yield async_sessionmaker(engine, expire_on_commit=False)
    await engine.dispose()


def unit(sessions):
    """Return a factory of units of work."""
    return lambda: SQLAlchemyUnitOfWork(sessions)


def events_of(tenant: str, count: int) -> list[StoredEvent]:
    """Return events that say whose they are, of streams that both tenants have."""
    amount = 1 + TENANTS.index(tenant)
    return [
        StoredEvent(aggregate_id=f"account-{number % 3}", event_type="Paid", payload={"amount": amount, "of": tenant})
        for number in range(count)
    ]


async def test_events_are_apart(sessions):
    """Both tenants append to streams of one name at once; each reads its own, by its own versions."""
    stores = {tenant: SQLAlchemyEventStore(sessions, schema=tenant) for tenant in TENANTS}
    await asyncio.gather(*(stores[tenant].append(events_of(tenant, 5)) for _ in range(4) for tenant in TENANTS))
    for tenant, store in stores.items():
        found = await store.get_events_after(0)
        assert len(found) == 20  # their positions have gaps where two of one tenant met
        assert {each.payload["of"] for each in found} == {tenant}
        assert [each.version for each in await store.get_events("account-0")] == list(range(1, 9))


async def test_one_tenants_open_transaction_does_not_hold_the_other(sessions):
    """A tenant's append that is not committed holds its own readers back, and not the other tenant's."""
    first, second = (SQLAlchemyEventStore(sessions, schema=tenant) for tenant in TENANTS)
    await second.append(events_of(TENANTS[1], 3))
    async with SQLAlchemyUnitOfWork(sessions) as uow:
        await first.append(events_of(TENANTS[0], 1), uow=uow)
        await second.append(events_of(TENANTS[1], 3))
        assert len(await second.get_events_after(0)) == 6
        await uow.rollback()


async def test_documents_and_positions_are_apart(sessions):
    """A document, a position and a count of one tenant are not the other's, in one transaction of both."""
    stores = {tenant: SQLAlchemyProjectionStore(sessions, schema=tenant) for tenant in TENANTS}
    positions = {tenant: SQLAlchemyProjectionPositionStore(sessions, schema=tenant) for tenant in TENANTS}
    async with SQLAlchemyUnitOfWork(sessions) as uow:
        for number, tenant in enumerate(TENANTS, start=1):
            await stores[tenant].upsert("accounts", "a", {"balance": number}, uow=uow)
            await positions[tenant].save_position("accounts", number, uow=uow)
    for number, tenant in enumerate(TENANTS, start=1):
        assert (await stores[tenant].find_one("accounts", "a"))["balance"] == number
        assert await positions[tenant].get_position("accounts") == number
    await stores[TENANTS[0]].truncate("accounts")
    assert [await stores[tenant].count("accounts") for tenant in TENANTS] == [0, 1]


async def test_snapshots_are_apart(sessions):
    """Each tenant has the snapshot that it has saved."""
    stores = {tenant: SQLAlchemySnapshotStore(session_factory=sessions, schema=tenant) for tenant in TENANTS}
    for tenant, store in stores.items():
        await store.save_snapshot("Account", "a", {"of": tenant}, 1)
    for tenant, store in stores.items():
        assert (await store.get_latest_snapshot("Account", "a"))["snapshot_data"] == {"of": tenant}


async def test_runners_project_each_tenants_events(sessions):
    """Runners of both tenants side by side give each the sums of its own events."""
    stores = {tenant: SQLAlchemyEventStore(sessions, schema=tenant) for tenant in TENANTS}
    for tenant, store in stores.items():
        await store.append(events_of(tenant, 9))
    runners = [
        ProjectionRunner(store, projection, unit(sessions), schema=tenant, batch_size=2)
        for tenant, store in stores.items()
    ]
    await asyncio.gather(*(runner.catch_up() for runner in runners))
    for amount, tenant in enumerate(TENANTS, start=1):
        found = await SQLAlchemyProjectionStore(sessions, schema=tenant).find("accounts", sort=[("id", 1)])
        assert [(each["id"], each["balance"]) for each in found] == [
            (f"account-{number}", 3 * amount) for number in range(3)
        ]
        (status,) = await SQLAlchemyProjectionControl(sessions, schema=tenant).status()
        assert (status.position, status.lag_events) == (9, 0)


async def test_a_rebuild_is_one_tenants(sessions, postgresql):
    """A rebuild of one tenant's projection mends its table and leaves the other's as wrong as it was."""
    for tenant in TENANTS:
        await SQLAlchemyEventStore(sessions, schema=tenant).append(events_of(tenant, 3))
        await SQLAlchemyProjectionStore(sessions, schema=tenant).upsert("accounts", "account-0", {"balance": 99})
    assert await schema.rebuild(projection, sessions, schema=TENANTS[1]) == 3
    rows = {
        tenant: (await SQLAlchemyProjectionStore(sessions, schema=tenant).find_one("accounts", "account-0"))["balance"]
        for tenant in TENANTS
    }
    assert rows == {TENANTS[0]: 99, TENANTS[1]: 2}
    assert not await schema.abandon_rebuild(projection, sessions, schema=TENANTS[0])
    engine = sessions.kw["bind"]
    for tenant in TENANTS:
        await schema.verify(engine, schemas=[ACCOUNTS], schema=tenant)


async def test_sagas_are_apart(sessions):
    """A saga of one tenant is run by that tenant's runner alone; both have one of the same id."""
    for tenant in TENANTS:
        repository = SQLAlchemySagaRepository(Transfer, unit(sessions), schema=tenant)
        await repository.add(Transfer(id="saga-1", correlation_id="c-1", tenant=tenant))
    first = SQLAlchemySagaRepository(Transfer, unit(sessions), schema=TENANTS[0])
    second = SQLAlchemySagaRepository(Transfer, unit(sessions), schema=TENANTS[1])
    await SagaRunner(first).run_due()
    assert (await first.get("saga-1")).remarks == (TENANTS[0],)
    assert (await second.get("saga-1")).remarks == ()
    counts = [await SQLAlchemySagaControl(sessions, schema=tenant).stats() for tenant in TENANTS]
    assert counts[0] != counts[1]


async def test_jobs_are_apart(sessions):
    """A worker of one tenant takes that tenant's jobs and no others, though the key is the same."""
    repositories = [SQLAlchemyBackgroundJobRepository(Report, unit(sessions), schema=tenant) for tenant in TENANTS]
    for tenant, repository in zip(TENANTS, repositories, strict=True):
        await repository.enqueue_many([Report(tenant=tenant, unique_key="nightly")])
    seen: list[str] = []

    async def handle(job) -> None:
        seen.append(job.tenant)

    await JobWorker(repositories[1], handle).run_due()
    assert seen == [TENANTS[1]]
    stats = [await SQLAlchemyJobControl(sessions, schema=tenant).stats() for tenant in TENANTS]
    assert [(each[0].pending, each[0].completed) for each in stats] == [(1, 0), (0, 1)]


async def test_what_is_missing_is_named_with_its_schema(sessions):
    """Errors about a tenant without tables name the schema and the command that migrates it."""
    with pytest.raises(SchemaOutOfDateError, match=r"'tenant_c.events' .* alembic -x schema=tenant_c upgrade head"):
        await SQLAlchemyEventStore(sessions, schema="tenant_c").append(events_of(TENANTS[0], 1))
    with pytest.raises(CollectionNotFoundError, match=r"schema 'tenant_c' .*alembic -x schema=tenant_c upgrade head"):
        await SQLAlchemyProjectionStore(sessions, schema="tenant_c").find_one("accounts", "a")


async def test_no_foreign_key_leaves_a_schema(sessions):
    """No table refers to another: a tenant's schema can be moved to another node as it is."""
    async with sessions() as session:
        assert (await session.scalars(sa.text("SELECT conname FROM pg_constraint WHERE contype = 'f'"))).all() == []


def test_commands_are_told_the_schema(postgresql, sessions_filled, capsys, tmp_path, monkeypatch):
    """The commands of projections, sagas and jobs show what the schema has that they are told."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "alembic.ini").write_text("[alembic]\nscript_location = x\n")
    for command, arguments in (
        (projections_command, ("status", "--json")),
        (sagas_command, ("list", "--json")),
        (jobs_command, ("list", "--json")),
    ):
        shown = []
        for tenant in TENANTS:
            assert command(["--url", postgresql.url, "--schema", tenant, *arguments]) == 0
            shown.append(json.loads(capsys.readouterr().out))
        assert [len(each) for each in shown] == [1, 0]


@pytest.mark.parametrize(
    ("command", "argument"), [(projections_command, "status"), (sagas_command, "list"), (jobs_command, "list")]
)
def test_commands_refuse_a_schema_on_sqlite(databases, capsys, command, argument):
    """On SQLite the option is refused with what to do instead, not answered with a migration that cannot be."""
    with databases.fresh("sqlite") as fresh:
        assert command(["--url", fresh.url, "--schema", "tenant_a", argument]) == 2
    said = capsys.readouterr().err
    assert said.startswith("FAILED: --schema tenant_a: SQLite has no schemas; give each tenant a file of its own")
    assert said.count("\n") == 1


@pytest.fixture
def sessions_filled(postgresql):
    """Rows of the first tenant alone."""
    tenant = TENANTS[0]

    async def fill() -> None:
        engine = create_async_engine(postgresql.url)
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        async with engine.begin() as connection:
            for each in TENANTS:
                for table in ("sagas", "jobs", "projection_positions", "projection_runs"):
                    await connection.exec_driver_sql(f'TRUNCATE "{each}".{table}')
        await SQLAlchemySagaRepository(Transfer, unit(sessions), schema=tenant).add(Transfer(id="s"))
        await SQLAlchemyBackgroundJobRepository(Report, unit(sessions), schema=tenant).add(Report(id="j"))
        await SQLAlchemyProjectionPositionStore(sessions, schema=tenant).save_position("accounts", 3)
        await engine.dispose()

    asyncio.run(fill())
