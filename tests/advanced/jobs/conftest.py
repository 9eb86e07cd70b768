"""Jobs of two classes, their repositories, and a way to turn the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from cqrs_ddd_advanced_core.background_jobs.entity import BaseBackgroundJob
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyBackgroundJobRepository
from cqrs_ddd_persistence_sqlalchemy.advanced.models import BackgroundJobModel

LEASE = timedelta(seconds=30)


class Import(BaseBackgroundJob):
    path: str = "a.csv"
    last_line: int = 0


class Report(BaseBackgroundJob):
    month: str = "2026-05"


@pytest.fixture
def jobs(session_factory):
    return SQLAlchemyBackgroundJobRepository(Import, session_factory=session_factory)


@pytest.fixture
def reports(session_factory):
    return SQLAlchemyBackgroundJobRepository(Report, session_factory=session_factory)


@pytest.fixture
def set_columns(engine):
    """Changes columns of a job behind the repository's back."""

    async def change(job_id, **values):
        async with engine.begin() as connection:
            statement = sa.update(BackgroundJobModel).where(BackgroundJobModel.id == job_id).values(values)
            assert (await connection.execute(statement)).rowcount == 1

    return change


@pytest.fixture
def end_lease(set_columns):
    """Lets the lease of a job end."""

    async def end(job_id):
        await set_columns(job_id, lease_until=datetime.now(UTC) - timedelta(seconds=1))

    return end


@pytest.fixture
def row_of(engine):
    """Reads a job's row."""

    async def read(job_id):
        async with engine.connect() as connection:
            table = BackgroundJobModel.__table__
            return (await connection.execute(sa.select(table).where(table.c.id == job_id))).mappings().one()

    return read


def ids(found):
    return [each.id for each in found]
