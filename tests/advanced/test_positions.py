"""The projection position store's behaviour, on both databases."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionPositionStore
from cqrs_ddd_persistence_sqlalchemy.exceptions import (
    OptimisticConcurrencyError,
    SchemaOutOfDateError,
    UnitOfWorkError,
)
from tests.support.engines import check_no_leaks, create_async_engine


@pytest.fixture
def positions(session_factory):
    return SQLAlchemyProjectionPositionStore(session_factory)


async def test_an_unknown_projection_has_no_position(positions):
    """None says that a projection never saved anything."""
    assert await positions.get_position("fines") is None


async def test_a_position_only_moves_forward(positions):
    """A newer position is saved and True, an equal or older one changes nothing and is False."""
    assert await positions.save_position("fines", 5) is True
    assert await positions.save_position("fines", 5) is False
    assert await positions.save_position("fines", 4) is False
    assert await positions.get_position("fines") == 5
    assert await positions.save_position("fines", 6) is True


async def test_the_first_position_may_be_zero(positions):
    """Zero is a position like any other."""
    assert await positions.save_position("fines", 0) is True
    assert await positions.save_position("fines", 0) is False


@pytest.mark.parametrize(("saved", "expected"), [(None, 3), (5, 3), (5, 0), (2, 3)])
async def test_another_position_than_expected_is_a_conflict(positions, saved, expected):
    """Compare-and-set names what it expected and what it found, and saves nothing."""
    if saved is not None:
        await positions.save_position("fines", saved)
    with pytest.raises(OptimisticConcurrencyError, match="projection position 'fines'") as raised:
        await positions.save_position("fines", 9, expected=expected)
    conflict = raised.value
    assert (conflict.entity_type, conflict.entity_id, conflict.expected, conflict.actual) == (
        "projection position",
        "fines",
        expected,
        saved,
    )
    assert await positions.get_position("fines") == saved


async def test_expected_zero_stands_for_none_and_for_zero(positions):
    """A runner that starts at 0 wins whether or not a position 0 was saved."""
    assert await positions.save_position("fresh", 3, expected=0)
    await positions.save_position("zero", 0)
    assert await positions.save_position("zero", 3, expected=0)


async def test_an_expected_position_that_would_move_back_changes_nothing(positions):
    """With the right expectation and no news the answer is False, not a conflict."""
    await positions.save_position("fines", 5, expected=0)
    assert await positions.save_position("fines", 5, expected=5) is False
    assert await positions.save_position("fines", 4, expected=5) is False
    assert await positions.get_position("fines") == 5


async def test_of_many_runners_with_one_expectation_one_wins(positions):
    """Each step of ten concurrent compare-and-sets has exactly one winner."""

    async def runner():
        try:
            return await positions.save_position("fines", 10, expected=0)
        except OptimisticConcurrencyError:
            return False

    assert sum(await asyncio.gather(*(runner() for _ in range(10)))) == 1


async def test_concurrent_saves_end_at_the_highest(positions):
    """However saves interleave, the highest position stands in the end."""
    await asyncio.gather(*(positions.save_position("fines", (n * 37) % 101) for n in range(101)))
    assert await positions.get_position("fines") == 100


async def test_reset_forgets_a_position(positions):
    """A reset projection starts again; resetting an unknown one is False."""
    await positions.save_position("fines", 5)
    assert await positions.reset_position("fines") is True
    assert await positions.reset_position("fines") is False
    assert await positions.get_position("fines") is None
    assert await positions.save_position("fines", 1) is True


async def test_all_positions_are_listed_by_name(positions):
    """The list is a dict in the order of the names."""
    for name, position in (("b", 2), ("a", 1), ("c", 3)):
        await positions.save_position(name, position)
    assert list((await positions.all_positions()).items()) == [("a", 1), ("b", 2), ("c", 3)]


async def test_a_joined_save_is_the_callers_to_commit(session_factory, positions):
    """A position saved in a unit of work is seen in it, and gone when it rolls back."""
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await positions.save_position("fines", 5, uow=uow)
        assert await positions.get_position("fines", uow=uow) == 5
        assert await positions.get_position("fines") is None
        await uow.rollback()
    assert await positions.get_position("fines") is None


async def test_a_conflict_leaves_the_callers_transaction_usable(session_factory, positions):
    """After a conflict the unit of work can go on and commit knowingly."""
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await positions.save_position("other", 1, uow=uow)
        with pytest.raises(OptimisticConcurrencyError):
            await positions.save_position("fines", 9, expected=8, uow=uow)
        await positions.save_position("fines", 1, uow=uow)
        await uow.commit()
    assert await positions.all_positions() == {"fines": 1, "other": 1}


@pytest.mark.parametrize("position", [-1, 1.5, True, "1", None, 2**63])
async def test_what_is_no_position_is_refused(positions, position):
    """Positions are whole numbers that the column can hold."""
    with pytest.raises(ValueError, match="position must be a whole number"):
        await positions.save_position("fines", position)


@pytest.mark.parametrize("expected", [-1, 1.5, True, "1", 2**63])
async def test_what_cannot_be_expected_is_refused(positions, expected):
    """An expectation is a position too."""
    with pytest.raises(ValueError, match="expected must be a whole number"):
        await positions.save_position("fines", 1, expected=expected)


@pytest.mark.parametrize("name", ["", "x" * 256, "a\x00b", "\ud800", 5, None])
async def test_what_is_no_name_is_refused(positions, name):
    """Names are text that both databases can hold."""
    with pytest.raises(ValueError, match="projection_name"):
        await positions.save_position(name, 1)


async def test_a_table_of_another_name_is_used(engine, session_factory):
    """A table that the application migrates serves under its own name, reserved words and mixed case included."""
    async with engine.begin() as connection:
        await connection.execute(
            sa.text(
                'CREATE TABLE "Order" (projection_name VARCHAR(255) PRIMARY KEY, position BIGINT NOT NULL, '
                "updated_at TIMESTAMP WITH TIME ZONE NOT NULL)"
                if engine.dialect.name == "postgresql"
                else 'CREATE TABLE "Order" (projection_name VARCHAR(255) PRIMARY KEY, position BIGINT NOT NULL, '
                "updated_at DATETIME NOT NULL)"
            )
        )
    own = SQLAlchemyProjectionPositionStore(session_factory, table_name="Order")
    assert await own.save_position("fines", 1)
    assert await SQLAlchemyProjectionPositionStore(session_factory).get_position("fines") is None


async def test_a_missing_table_of_another_name_is_said_to_be_the_applications(session_factory):
    """The error names the table and whose revision creates it."""
    own = SQLAlchemyProjectionPositionStore(session_factory, table_name="my_positions")
    with pytest.raises(SchemaOutOfDateError, match=r"table 'my_positions' .*revision of your own"):
        await own.get_position("fines")


def test_a_table_name_that_is_no_identifier_is_refused():
    """A name that could carry SQL is refused when the store is made."""
    with pytest.raises(ValueError, match=r"^Invalid SQL table name: 'x; DROP TABLE y'$"):
        SQLAlchemyProjectionPositionStore(table_name="x; DROP TABLE y")


async def test_an_unmigrated_database_is_named(empty_database):
    """A database without tables says what to run."""
    engine = create_async_engine(empty_database.url)
    positions = SQLAlchemyProjectionPositionStore(async_sessionmaker(engine))
    with pytest.raises(SchemaOutOfDateError, match=r"table 'projection_positions' .*alembic upgrade head"):
        await positions.save_position("fines", 1)
    await check_no_leaks(engine)


async def test_without_any_transaction_the_error_says_what_to_pass():
    """A store with neither factory nor unit of work names the ways out."""
    with pytest.raises(UnitOfWorkError, match=r"pass uow=, or give it a session_factory or uow_factory"):
        await SQLAlchemyProjectionPositionStore().get_position("fines")
