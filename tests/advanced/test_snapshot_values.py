"""What a snapshot may hold: it comes back so that its class takes it, or is refused by its place."""

from __future__ import annotations

from collections import OrderedDict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, computed_field

from cqrs_ddd_advanced_core import AggregateRoot
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemySnapshotStore


class State(Enum):
    NEW = "new"
    PAID = "paid"


class Colour(StrEnum):
    RED = "red"


class Line(BaseModel):
    product: str
    price: Decimal


class Order(AggregateRoot):
    state: State = State.NEW
    total: Decimal = Decimal(0)
    customer: UUID | None = None
    placed_at: datetime | None = None
    due: date | None = None
    patience: timedelta | None = None
    tags: set[Colour] = Field(default_factory=set)
    lines: list[Line] = Field(default_factory=list)
    prices: dict[str, tuple[Decimal, ...]] = Field(default_factory=dict)


class Aliased(BaseModel):
    model_config = ConfigDict(extra="forbid")

    net: Decimal = Field(alias="netAmount")

    @computed_field
    @property
    def gross(self) -> Decimal:
        return self.net * 2


ORDER = Order(
    id="o1",
    version=50,
    state=State.PAID,
    total=Decimal("12345678901234567890.10"),
    customer=UUID(int=7),
    placed_at=datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=UTC),
    due=date(2026, 6, 1),
    patience=timedelta(days=1, microseconds=5),
    tags={Colour.RED},
    lines=[Line(product="Tinte \N{BLACK NIB}", price=Decimal("0.10"))],
    prices={"ink": (Decimal(1), Decimal("1.50"))},
)


@pytest.fixture
def snapshots(session_factory):
    return SQLAlchemySnapshotStore(session_factory=session_factory)


async def latest(snapshots):
    return await snapshots.get_latest_snapshot("Order", "o1")


@pytest.mark.parametrize("data", [ORDER, ORDER.model_dump(), OrderedDict(ORDER.model_dump())])
async def test_an_aggregate_is_made_again_of_its_snapshot(snapshots, data):
    """A model or its dump in Python's types: the class takes what comes back, and is equal to what was saved."""
    await snapshots.save_snapshot("Order", "o1", data, 50)
    found = await latest(snapshots)
    assert Order(**found["snapshot_data"]) == ORDER
    assert {name: found[name] for name in found if name not in {"snapshot_data", "created_at"}} == {
        "aggregate_type": "Order",
        "aggregate_id": "o1",
        "version": 50,
        "schema_version": None,
    }


async def test_a_model_counts_with_its_aliases_and_without_what_it_computes(snapshots):
    """So that the class takes it when it is made of the snapshot."""
    await snapshots.save_snapshot("Order", "o1", Aliased(netAmount=Decimal("1.50")), 1)
    found = await latest(snapshots)
    assert found["snapshot_data"] == {"netAmount": "1.50"}
    assert Aliased(**found["snapshot_data"]).gross == 3


async def test_json_comes_back_as_it_is(snapshots):
    """Numbers of any size keep their type, on both databases."""
    data = {"": None, "whole": 2**70, "floats": [1e23, 1.5, 1e-7, 5e-324], "nested": {"yes": True, "empty": [{}, []]}}
    await snapshots.save_snapshot("Order", "o1", data, 1)
    found = (await latest(snapshots))["snapshot_data"]
    assert found == data
    assert [type(each) for each in found["floats"]] == [float] * 4


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"total": float("nan")}, r"snapshot_data\.total is nan, which JSON cannot hold"),
        ({"total": Decimal("Infinity")}, r"snapshot_data\.total is Infinity"),
        ({"lines": [{"product": "a\0b"}]}, r"snapshot_data\.lines\[0\]\.product contains a NUL character"),
        ({"name": "\ud800"}, r"snapshot_data\.name contains a lone surrogate"),
        ({"lines": {1: "a"}}, r"snapshot_data\.lines has the key 1"),
        ({1: "a"}, "snapshot_data has the key 1"),
        ({"thing": object()}, r"snapshot_data\.thing is a object, which has no JSON form"),
        ("text", "snapshot_data is a str: give a dict or a pydantic model"),
        (None, "snapshot_data is a NoneType: give a dict or a pydantic model"),
        ([1], "snapshot_data is a list: give a dict or a pydantic model"),
        (RootModel[list[int]]([1]), "give a dict or a pydantic model"),
    ],
)
async def test_what_json_cannot_hold_is_refused_by_its_place(session_factory, snapshots, data, message):
    """Both databases refuse alike, and the transaction goes on."""
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await snapshots.save_snapshot("Order", "o1", {"n": 1}, 1, uow=uow)
        with pytest.raises(ValueError, match=message):
            await snapshots.save_snapshot("Order", "o1", data, 2, uow=uow)
        await snapshots.save_snapshot("Order", "o1", {"n": 3}, 3, uow=uow)
    assert (await latest(snapshots))["snapshot_data"] == {"n": 3}


async def test_what_contains_itself_is_refused(snapshots):
    """What contains itself is stored by neither, a hundred levels by both."""

    def nested(levels):
        return {"in": nested(levels - 1)} if levels else {}

    await snapshots.save_snapshot("Order", "o1", nested(100), 1)
    assert (await latest(snapshots))["snapshot_data"] == nested(100)
    endless = {}
    endless["again"] = endless
    with pytest.raises(ValueError, match="snapshot_data is nested too deeply, or contains itself"):
        await snapshots.save_snapshot("Order", "o1", endless, 2)
