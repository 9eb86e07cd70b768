"""What the examples of each page take for given: services outside, tables of the application, earlier events."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING

import sqlalchemy as sa

from cqrs_ddd_advanced_core import AggregateRoot, StoredEvent
from cqrs_ddd_advanced_core.background_jobs import BaseBackgroundJob
from cqrs_ddd_advanced_core.projections import Projection, ProjectionSchema
from cqrs_ddd_advanced_core.sagas import SagaState, saga_step
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionStore
from tests.docs.pages import DOCS, blocks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.docs.running import Reader


class Recorder:
    """A service outside that says yes to everything, and counts."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Callable[..., Awaitable[str]]:
        async def call(*_arguments: object, **_keywords: object) -> str:
            self.calls[name] += 1
            return f"{name}-{self.calls[name]}"

        return call


class Refusing:
    """A carrier that says no."""

    async def ship(self, _order_id: str) -> None:
        raise RuntimeError("nobody delivers to the Moon")


class Files:
    """Files whose lines can be read."""

    async def lines(self, _path: str, *, after: int):
        for line in range(after, 5000):
            yield line


class Account(AggregateRoot):
    """An aggregate of events."""

    balance: Decimal = Decimal(0)

    def apply(self, event: StoredEvent) -> None:
        self.balance += Decimal(event.payload["amount"])
        self.version = event.version


class Trip(SagaState):
    """A saga of one step."""

    @saga_step()
    async def pay(self, bank: Recorder) -> None:
        await bank.charge()


class Import(BaseBackgroundJob):
    """A job."""

    async def execute(self) -> None:
        """Do nothing."""


class Export(Import):
    """A job of another class."""


def from_start(reader: Reader, *names: str) -> None:
    """Write files of the five-minute start, on which other pages build."""
    for block in blocks(DOCS / "start.md"):
        if block.file_name in names:
            (reader.folder / block.file_name).write_text(block.text)


async def create(reader: Reader, schema: ProjectionSchema) -> None:
    """Make a projection's table."""
    store = SQLAlchemyProjectionStore(reader.names["sessions"], allow_auto_ddl=True)
    await store.ensure_collection(schema.collection, schema=schema)


def balances(*more: tuple[str, str]) -> ProjectionSchema:
    """Return the read model of the five-minute start."""
    fields = [("account_id", "VARCHAR(50) PRIMARY KEY"), ("balance", "DECIMAL(12, 2) NOT NULL"), *more]
    return ProjectionSchema(collection="balances", fields=fields)


async def pay(reader: Reader, count: int, account: str = "account-1") -> None:
    """Append payments to an account."""
    events = SQLAlchemyEventStore(reader.names["sessions"])
    await events.append(
        [StoredEvent(aggregate_id=account, event_type="Paid", payload={"amount": "1.00"}) for _ in range(count)]
    )


async def nothing(reader: Reader) -> None:
    """Take nothing for given but an engine and its sessions."""


async def for_events(reader: Reader) -> None:
    await pay(reader, 3)


async def for_running_projections(reader: Reader) -> None:
    await create(reader, balances(("_version", "INTEGER DEFAULT 1")))
    (reader.folder / "read_models.py").write_text(
        "from cqrs_ddd_advanced_core.projections import ProjectionSchema\n\n"
        f"balances = ProjectionSchema.from_dict({balances(('_version', 'INTEGER DEFAULT 1')).to_dict()!r})\n"
    )
    await pay(reader, 3)


async def for_repositories(reader: Reader) -> None:
    async with reader.names["engine"].begin() as connection:
        columns = (
            "id VARCHAR(50) PRIMARY KEY, version INTEGER NOT NULL, customer VARCHAR NOT NULL, total NUMERIC(12, 2)"
        )
        await connection.execute(sa.text(f"CREATE TABLE orders ({columns})"))


async def for_sagas(reader: Reader) -> None:
    reader.names.update(bank=Recorder(), hotel=Recorder(), carrier=Refusing(), shop=Recorder())


async def for_snapshots(reader: Reader) -> None:
    reader.names.update(Account=Account)
    await pay(reader, 120)


async def for_jobs(reader: Reader) -> None:
    reader.names.update(files=Files())


async def for_operating(reader: Reader) -> None:
    from_start(reader, "pyproject.toml", "read_models.py")
    await create(reader, balances(("payments", "INTEGER NOT NULL")))
    await pay(reader, 3)
    accounts = Projection("accounts", balances(("payments", "INTEGER NOT NULL")))
    accounts.fold("Paid")(lambda row, _event: row or {"balance": 0, "payments": 0})
    reader.names.update(
        accounts=accounts, bank=Recorder(), url=reader.database.url, Trip=Trip, Import=Import, Export=Export
    )


async def for_migrations(reader: Reader) -> None:
    from_start(reader, "read_models.py")
    (reader.folder / "tenants.txt").write_text("tenant_a\ntenant_b\n")


SCENERY: dict[str, Callable[[Reader], Awaitable[None]]] = {
    "events.md": for_events,
    "jobs.md": for_jobs,
    "migrations.md": for_migrations,
    "operating.md": for_operating,
    "projections.md": nothing,
    "repositories.md": for_repositories,
    "running-projections.md": for_running_projections,
    "sagas.md": for_sagas,
    "snapshots.md": for_snapshots,
    "unit-of-work.md": nothing,
}
