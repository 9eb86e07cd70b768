"""Which sagas somebody has to look after: what they are like, and who comes first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from cqrs_ddd_advanced_core.sagas.status import SagaStatus
from cqrs_ddd_persistence_sqlalchemy.core.repository_statements import UPDATED_AT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cqrs_ddd_persistence_sqlalchemy.core.dialect import DatabaseDialect


@dataclass(frozen=True)
class Wanted:
    """Sagas of one kind: the conditions that they meet, and the column in whose order they are taken."""

    conditions: tuple[sa.ColumnElement[bool], ...]
    order: sa.ColumnElement[Any]


class DueSagas:
    """Says in SQL which sagas are due, by the database's clock.

    Statuses are written into the statements, not bound: only so do both databases see that a partial index will do.

    Args:
        columns: of the table, by attribute.
        stalled_after_seconds: how long a saga at work that no runner has may go without being saved.
    """

    def __init__(self, columns: Mapping[str, sa.ColumnElement[Any]], stalled_after_seconds: float) -> None:
        self._columns = columns
        self._stalled_after_seconds = stalled_after_seconds

    def all(self, dialect: DatabaseDialect) -> tuple[Wanted, ...]:
        """Return every kind: what waits for its end comes before what waits for its beginning."""
        return self.expired(dialect), self.given_back(dialect), self.new(dialect), self.stalled(dialect)

    def new(self, dialect: DatabaseDialect) -> Wanted:
        """Sagas that nobody has begun."""
        return Wanted((self._has(SagaStatus.PENDING), self._unclaimed(dialect)), self._columns[UPDATED_AT])

    def given_back(self, dialect: DatabaseDialect) -> Wanted:
        """Sagas at work that a runner had: it has died, or has put off the next try until now, or given them back."""
        lease = self._columns["lease_until"]
        return Wanted((self._at_work(), lease <= dialect.now), lease)

    def stalled(self, dialect: DatabaseDialect) -> Wanted:
        """Sagas at work that nobody has claimed and nobody has saved for too long."""
        threshold = dialect.later(sa.literal(-self._stalled_after_seconds, sa.Double()))
        updated_at = self._columns[UPDATED_AT]
        return Wanted((self._at_work(), updated_at <= threshold, self._unclaimed(dialect)), updated_at)

    def expired(self, dialect: DatabaseDialect) -> Wanted:
        """Suspended sagas that have waited beyond their deadline."""
        timeout_at = self._columns["timeout_at"]
        return Wanted(
            (self._has(SagaStatus.SUSPENDED), timeout_at <= dialect.now, self._unclaimed(dialect)), timeout_at
        )

    def _at_work(self) -> sa.ColumnElement[bool]:
        return self._has(SagaStatus.RUNNING, SagaStatus.COMPENSATING)

    def _has(self, *statuses: SagaStatus) -> sa.ColumnElement[bool]:
        name = "_".join(("status", *statuses)).lower()
        status = self._columns["status"]
        if len(statuses) == 1:
            return status == sa.bindparam(name, statuses[0], type_=status.type, literal_execute=True)
        return status.in_(sa.bindparam(name, statuses, type_=status.type, expanding=True, literal_execute=True))

    def _unclaimed(self, dialect: DatabaseDialect) -> sa.ColumnElement[bool]:
        lease = self._columns["lease_until"]
        return sa.or_(lease.is_(None), lease <= dialect.now)
