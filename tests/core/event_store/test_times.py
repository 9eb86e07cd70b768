"""Times of events: of any zone, back in UTC, and recorded by the database's clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from tests.core.bystander import scalar
from tests.support.events import an_event, everything
from tests.support.kinds import ONLY_POSTGRESQL

KOLKATA = timezone(timedelta(hours=5, minutes=30))  # the time zone of the server


class TestTimes:
    @ONLY_POSTGRESQL
    async def test_the_servers_time_zone_is_not_utc(self, engine):
        """The tests below would show a time read in the session's zone."""
        assert await scalar(engine, "SHOW timezone") == "Asia/Kolkata"

    @pytest.mark.parametrize(
        "given",
        [
            datetime(2024, 7, 1, 12, 0, tzinfo=UTC),
            datetime(2024, 7, 1, 12, 0, 0, 1, tzinfo=KOLKATA),
            datetime(2024, 3, 31, 1, 30, tzinfo=timezone(timedelta(hours=-9, minutes=-30))),
            datetime(1, 1, 1, tzinfo=UTC),
            datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
            datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        ],
    )
    async def test_occurred_at_comes_back_in_utc(self, store, given):
        """An aware time of any zone and any year comes back as the same moment, in UTC, to the microsecond."""
        [stored] = await store.append([an_event(occurred_at=given)])
        [read] = await store.get_events("order-1")
        [paged] = await store.get_events_after(0)
        for event in (stored, read, paged):
            assert event.occurred_at == given
            assert event.occurred_at.tzinfo is UTC

    def test_a_naive_time_is_refused(self):
        """A time without a zone never becomes an event."""
        with pytest.raises(ValueError, match="occurred_at must be timezone-aware"):
            an_event(occurred_at=datetime(2024, 1, 1))  # noqa: DTZ001

    async def test_recorded_at_is_the_databases_clock(self, store, session_factory, database):
        """recorded_at lies between two looks at the database's clock, in UTC, whatever the event brought along."""
        look = "SELECT clock_timestamp()" if database.kind == "postgresql" else "SELECT julianday('now')"

        async def clock(uow):
            value = await uow.session.scalar(sa.text(look))
            if isinstance(value, datetime):
                return value
            return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=value - 2440587.5)

        given = an_event(recorded_at=datetime(2001, 1, 1, tzinfo=UTC))
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            before = await clock(uow)
            stored = await store.append([given, an_event()], uow=uow)
            after = await clock(uow)
        tolerance = timedelta(milliseconds=2)  # SQLite's clock has milliseconds
        read = await everything(store)
        assert [event.recorded_at for event in read] == [event.recorded_at for event in stored]
        for event in (*read, *stored):
            assert before - tolerance <= event.recorded_at <= after + tolerance
            assert event.recorded_at.tzinfo is UTC

    @ONLY_POSTGRESQL
    async def test_recorded_at_is_not_the_transactions_beginning(self, store, session_factory):
        """Two appends of one transaction are recorded at two times."""
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            [first] = await store.append([an_event()], uow=uow)
            [second] = await store.append([an_event()], uow=uow)
        assert first.recorded_at < second.recorded_at
