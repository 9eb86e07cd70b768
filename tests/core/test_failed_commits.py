"""A commit that the database refuses, as a deferred constraint is violated, takes back everything."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from cqrs_ddd_advanced_core import AggregateRoot
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyRepository, SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionPositionStore
from tests.support.engines import checked_out


class Base(DeclarativeBase):
    pass


def parent(table):
    """Return a column whose constraint is looked at as the transaction commits."""
    key = sa.ForeignKey(f"{table}.id", deferrable=True, initially="DEFERRED")
    return mapped_column(sa.String(50), key, nullable=True)


class Plain(Base):
    """Written by one statement on the driver."""

    __tablename__ = "plain"
    id: Mapped[str] = mapped_column(sa.String(50), primary_key=True)
    version: Mapped[int]
    parent: Mapped[str | None] = parent("plain")


class WithDefault(Base):
    """Written by SQLAlchemy, since it has a value that is made in Python."""

    __tablename__ = "with_default"
    id: Mapped[str] = mapped_column(sa.String(50), primary_key=True)
    version: Mapped[int]
    parent: Mapped[str | None] = parent("with_default")
    extra: Mapped[str | None] = mapped_column(sa.String(50), default=lambda: "made in Python")


class Node(AggregateRoot):
    parent: str | None = None


@pytest.fixture(params=[Plain, WithDefault])
async def nodes(request, engine, session_factory):
    """A repository on a table of the application's."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    return SQLAlchemyRepository(Node, request.param, uow_factory=lambda: SQLAlchemyUnitOfWork(session_factory))


@pytest.mark.parametrize("is_warm", [True, False], ids=["pooled", "new connection"])
async def test_of_an_operation(nodes, engine, is_warm):
    """Nothing is stored, the entity is new again, and the next operation neither waits nor keeps it after all."""
    if not is_warm:
        await engine.dispose()
    child = Node(id="child", parent="nobody")
    with pytest.raises(IntegrityError):
        await nodes.add(child)
    assert child.version == 0
    await nodes.add(Node(id="nobody"))
    assert [node.id for node in await nodes.list()] == ["nobody"]
    await nodes.add(child)
    assert child.version == 1


@pytest.mark.parametrize("asks", [False, True], ids=["bare", "with a session"])
async def test_of_a_unit_of_work(nodes, session_factory, engine, asks):
    """The same, with all that the unit of work has done."""
    child, positions = Node(id="child", parent="nobody"), SQLAlchemyProjectionPositionStore(session_factory)
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await positions.save_position("p", 1, uow=uow)
        await nodes.add(child, uow=uow)
        if asks:
            assert uow.session.in_transaction()
        with pytest.raises(IntegrityError):
            await uow.commit()
        assert checked_out(engine) == 0
        await nodes.add(Node(id="nobody"), uow=uow)
    assert [node.id for node in await nodes.list()] == ["nobody"]
    assert await positions.get_position("p") is None
    assert child.version == 0
