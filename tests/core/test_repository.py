"""The repository: insert or update by the stored version, whatever the domain counts by itself."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from uuid import UUID

import pytest
import sqlalchemy as sa
from pydantic import BaseModel, Field
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from cqrs_ddd_advanced_core import AggregateRoot
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyRepository, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.core.dialect import ExactDecimal, UTCDateTime
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError, UnitOfWorkError


class Base(DeclarativeBase):
    pass


class OrderModel(Base):
    __tablename__ = "orders"
    id: Mapped[str] = mapped_column(sa.String(50), primary_key=True)
    version: Mapped[int] = mapped_column("row_version", sa.Integer())
    number: Mapped[str | None] = mapped_column(sa.String(50), unique=True)
    total: Mapped[Decimal | None] = mapped_column(ExactDecimal(12, 2))
    state: Mapped[str] = mapped_column(sa.String(20))
    customer: Mapped[UUID | None] = mapped_column(sa.Uuid())
    placed_at: Mapped[datetime | None] = mapped_column(UTCDateTime())
    lines: Mapped[list | None] = mapped_column(sa.JSON())
    tags: Mapped[list | None] = mapped_column(sa.JSON())
    created_at: Mapped[datetime] = mapped_column(UTCDateTime())
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime())


class State(Enum):
    NEW = "new"
    PAID = "paid"


class Line(BaseModel):
    product: str
    price: Decimal


class Order(AggregateRoot):
    number: str | None = None
    total: Decimal | None = None
    state: State = State.NEW
    customer: UUID | None = None
    placed_at: datetime | None = None
    lines: list[Line] = Field(default_factory=list)
    tags: set[str] = Field(default_factory=set)


class Bigger(Order):
    more: str = ""


WHOLE = {
    "number": "n-1",
    "total": Decimal("99.90"),
    "state": State.PAID,
    "customer": UUID(int=7),
    "placed_at": datetime(2026, 5, 1, tzinfo=UTC),
    "lines": [Line(product="pen", price=Decimal("1.10"))],
    "tags": {"a", "b"},
}


@pytest.fixture
async def orders(engine, session_factory):
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    return SQLAlchemyRepository(Order, OrderModel, uow_factory=lambda: SQLAlchemyUnitOfWork(session_factory))


async def test_what_is_added_comes_back_whole(orders):
    """Decimals, UUIDs, enums, times, sets and nested models as they were; the first version is 1."""
    order = Order(id="o1", **WHOLE)
    assert await orders.add(order) is order
    found = await orders.get("o1")
    assert found.model_dump() == {"id": "o1", "version": 1, **WHOLE, "lines": [dict(WHOLE["lines"][0])]}
    assert found == order
    assert await orders.get("o2") is None


async def test_a_loaded_entity_is_updated(orders):
    """Each save counts the version up by one, on the object too."""
    await orders.add(Order(id="o1"))
    order = await orders.get("o1")
    for version in (2, 3):
        order.number = f"n-{version}"
        await orders.save(order)
        assert order.version == version
    assert (await orders.get("o1")).number == "n-3"


@pytest.mark.parametrize("count", [5, 0, 1])
async def test_the_domain_may_count_the_public_version(orders, count):
    """What is compared is the version that the entity was loaded with, a mark beside the public one."""
    await orders.add(Order(id="o1"))
    order = await orders.get("o1")
    order.version = count
    await orders.add(order)
    assert order.version == 2


@pytest.mark.parametrize("journey", [lambda o: o.model_copy(), lambda o: o.model_copy(deep=True), None])
async def test_the_mark_survives_copies_and_pickling(orders, journey):
    """A copy is saved as what it is a copy of."""
    await orders.add(Order(id="o1"))
    order = await orders.get("o1")
    order.version = 7
    journey = journey or (lambda each: pickle.loads(pickle.dumps(each)))
    await orders.add(journey(order))
    assert (await orders.get("o1")).version == 2


async def test_an_entity_with_a_version_and_no_mark_is_a_stored_one(orders):
    """So it comes from elsewhere, say from a snapshot: it is updated if its version is the stored one."""
    await orders.add(Order(id="o1"))
    await orders.add(Order(id="o1", version=1, number="n"))
    assert (await orders.get("o1")).number == "n"
    with pytest.raises(OptimisticConcurrencyError) as caught:
        await orders.add(Order(id="o1", version=1))
    assert (caught.value.expected, caught.value.actual) == (1, 2)


async def conflict(uow, work, expected, actual):
    with pytest.raises(OptimisticConcurrencyError) as caught:
        await work
    error = caught.value
    assert (error.entity_type, error.entity_id, error.expected, error.actual) == ("Order", "o1", expected, actual)
    await uow.session.execute(sa.text("SELECT 1"))  # the transaction is usable


async def test_conflicts_say_what_was_expected_and_found(session_factory, orders):
    """A stale update, a deleted one, a second insert and a stale delete change nothing."""
    await orders.add(Order(id="o1", number="first"))
    stale, gone = await orders.get("o1"), await orders.get("o1")
    await orders.add(await orders.get("o1"))
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await conflict(uow, orders.add(stale, uow=uow), 1, 2)
        await conflict(uow, orders.delete(stale, uow=uow), 1, 2)
        await conflict(uow, orders.delete("o1", expected_version=5, uow=uow), 5, 2)
        await conflict(uow, orders.add(Order(id="o1", number="other"), uow=uow), None, 2)
        assert (await orders.get("o1", uow=uow)).number == "first"
        assert await orders.delete("o1", uow=uow)
        await conflict(uow, orders.add(gone, uow=uow), 1, None)
        await conflict(uow, orders.delete(gone, uow=uow), 1, None)
        await uow.commit()
    assert not await orders.delete("o1")
    assert not await orders.exists("o1")


async def test_of_many_writers_one_wins(orders):
    """Ten that update or insert at once: one succeeds, nine meet a conflict."""

    async def attempt(work):
        try:
            await work
        except OptimisticConcurrencyError:
            return 0
        return 1

    assert sum(await asyncio.gather(*(attempt(orders.add(Order(id="o1"))) for _ in range(10)))) == 1
    loaded = [await orders.get("o1") for _ in range(10)]
    assert sum(await asyncio.gather(*(attempt(orders.add(each)) for each in loaded))) == 1
    assert (await orders.get("o1")).version == 2


async def test_versions_are_taken_back_with_the_transaction(session_factory, orders):
    """After a rollback the same objects are saved again, new ones and loaded ones; so after one to a savepoint."""
    old, new = await orders.add(Order(id="old")), Order(id="new")
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        for each in (old, new, old):
            await orders.add(each, uow=uow)
        assert (old.version, new.version) == (3, 1)
        await uow.rollback()
        assert (old.version, new.version) == (1, 0)
        await orders.add(old, uow=uow)
        nested = await uow.session.begin_nested()
        await orders.add(old, uow=uow)
        inner = await uow.session.begin_nested()
        await orders.add(new, uow=uow)
        await inner.commit()
        await nested.rollback()
        assert (old.version, new.version) == (2, 0)
        await orders.add(new, uow=uow)
    assert (await orders.get("old")).version == 2
    with contextlib.suppress(ZeroDivisionError):
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await orders.add(old, uow=uow)
            raise ZeroDivisionError
    assert old.version == 2
    await orders.add(old)
    await orders.add(new)
    assert (old.version, new.version) == (3, 2)


async def test_a_unique_value_of_another_is_named(session_factory, orders):
    """The transaction is usable, for inserts and updates alike."""
    await orders.add(Order(id="o1", number="n"))
    other = await orders.add(Order(id="o2"))
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        with pytest.raises(ValueError, match="Order: another one has the same number"):
            await orders.add(Order(id="o3", number="n"), uow=uow)
        other.number = "n"
        with pytest.raises(ValueError, match="Order: another one has the same number"):
            await orders.add(other, uow=uow)
        other.number = "m"
        await orders.add(other, uow=uow)
    assert [(each.id, each.number) for each in await orders.list()] == [("o1", "n"), ("o2", "m")]


async def test_lists_are_bounded_and_oldest_first(orders):
    """Ties are in the order of the ids."""
    for name in ("c", "a", "b"):
        await orders.add(Order(id=name))
        await asyncio.sleep(0.002)  # SQLite's clock has milliseconds
    assert [each.id for each in await orders.list()] == ["c", "a", "b"]
    assert [each.id for each in await orders.list(limit=1, offset=1)] == ["a"]
    with pytest.raises(ValueError, match="limit"):
        await orders.list(limit=-1)


async def test_what_was_not_updated_for_long_is_found(orders):
    """By the database's time of the last write, those that wait longest first."""
    for name in ("a", "b", "c"):
        await orders.add(Order(id=name))
    await orders.add(await orders.get("a"))
    future = datetime.now(UTC) + timedelta(hours=1)
    assert [each.id for each in await orders.find_not_updated_since(threshold=future)] == ["b", "c", "a"]
    assert [each.id for each in await orders.find_not_updated_since(threshold=future, limit=1)] == ["b"]
    assert await orders.find_not_updated_since(threshold=future - timedelta(hours=2)) == []
    with pytest.raises(ValueError, match="threshold is the naive datetime"):
        await orders.find_not_updated_since(threshold=datetime(2026, 1, 1))  # noqa: DTZ001


async def test_entities_of_other_classes_are_refused(orders):
    """Of a subclass, too: what it adds would be lost."""
    for entity in (Bigger(id="o1"), AggregateRoot(id="o1"), {"id": "o1"}):
        with pytest.raises(TypeError, match="this repository stores Order, not"):
            await orders.add(entity)


def test_a_field_without_a_column_is_found_at_the_start():
    """Unless a subclass maps it in its own way."""
    with pytest.raises(TypeError, match="OrderModel has no column for more of Bigger"):
        SQLAlchemyRepository(Bigger, OrderModel)


async def test_a_subclass_maps_in_its_own_way(session_factory, orders):
    """It calls super() and need not carry the version."""

    class Repository(SQLAlchemyRepository[Bigger, str]):
        def to_model(self, entity):
            model = super().to_model(entity)
            model.tags = [entity.more]
            return model

        def from_model(self, model):
            return Bigger(id=model.id, more=model.tags[0])

    repository = Repository(Bigger, OrderModel, uow_factory=lambda: SQLAlchemyUnitOfWork(session_factory))
    await repository.add(Bigger(id="o1", more="hidden"))
    found = await repository.get("o1")
    assert (found.more, found.version) == ("hidden", 1)
    await repository.add(found)
    assert (await repository.get("o1")).version == 2


class Keyless(Base):
    __tablename__ = "keyless"
    a: Mapped[str] = mapped_column(sa.String(50), primary_key=True)
    b: Mapped[str] = mapped_column(sa.String(50), primary_key=True)


def test_a_model_needs_a_key_and_a_version():
    """The error says what is missing."""
    with pytest.raises(TypeError, match="Keyless needs a primary key of one column and a column 'version'"):
        SQLAlchemyRepository(Order, Keyless)


async def test_without_a_transaction_it_says_what_to_pass():
    """Neither a unit of work nor a factory."""
    with pytest.raises(UnitOfWorkError, match="pass uow=, or give it a session_factory or uow_factory"):
        await SQLAlchemyRepository(Order, OrderModel).get("o1")
