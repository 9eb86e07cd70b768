"""The saga repository: sagas of one class, and those that somebody has to look after."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from pydantic import SerializeAsAny, TypeAdapter

from cqrs_ddd_advanced_core.ports import ISagaRepository
from cqrs_ddd_advanced_core.sagas.state import SagaState
from cqrs_ddd_advanced_core.sagas.status import SagaStatus
from cqrs_ddd_advanced_core.sagas.steps import StepRecord
from cqrs_ddd_persistence_sqlalchemy.advanced.models import SagaStateModel
from cqrs_ddd_persistence_sqlalchemy.advanced.sagas.claims import Claims
from cqrs_ddd_persistence_sqlalchemy.advanced.sagas.due import DueSagas
from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_of
from cqrs_ddd_persistence_sqlalchemy.core.json_documents import DocumentText, to_document_and_text
from cqrs_ddd_persistence_sqlalchemy.core.mapping import dumped, stored_version, validated
from cqrs_ddd_persistence_sqlalchemy.core.repository import SQLAlchemyRepository
from cqrs_ddd_persistence_sqlalchemy.core.scope import repeated
from cqrs_ddd_persistence_sqlalchemy.core.undoing import on_rollback
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_count, check_seconds
from cqrs_ddd_persistence_sqlalchemy.exceptions import LeaseLostError

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Mapping
    from datetime import timedelta

    from sqlalchemy.ext.asyncio import AsyncConnection

    from cqrs_ddd_persistence_sqlalchemy.advanced.sagas.due import Wanted
    from cqrs_ddd_persistence_sqlalchemy.core.dialect import DatabaseDialect
    from cqrs_ddd_persistence_sqlalchemy.core.joining import SessionFactory
    from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork

Saga = TypeVar("Saga", bound=SagaState)

logger = logging.getLogger(__name__)

_HISTORY = TypeAdapter(list[SerializeAsAny[StepRecord]])


class SQLAlchemySagaRepository(SQLAlchemyRepository[Saga, str], ISagaRepository[Saga]):
    """Stores sagas of one class in the table `sagas`, which classes share without meeting each other.

    Times are the database's: when a saga was updated, when a suspended one expires, until when a claim holds. A claim
    counts the saga's version up, so whoever had loaded it before can save it no more. A save by somebody else than the
    worker does not end the claim: the worker may be in the middle of a step until its lease ends.

    Args:
        saga_cls: of the sagas; its name is stored with them.
        uow_factory: returns the unit of work to use where none is given.
        stalled_after_seconds: how long a saga at work may go without being saved.
        services: bound to each saga that is loaded, for its compensations.
        session_factory: for operations without a unit of work, in place of a factory.
        schema: the database schema of the table; the connection's default when omitted.
    """

    _has_own_model = True

    def __init__(
        self,
        saga_cls: type[Saga] = SagaState,  # type: ignore[assignment]  # the default of a generic parameter
        uow_factory: Callable[[], SQLAlchemyUnitOfWork] | None = None,
        *,
        stalled_after_seconds: float = 300,
        services: Mapping[str, Any] | None = None,
        session_factory: SessionFactory | None = None,
        schema: str | None = None,
    ) -> None:
        super().__init__(saga_cls, SagaStateModel, uow_factory, session_factory=session_factory, schema=schema)
        self.saga_cls = saga_cls
        self.services: Mapping[str, Any] = dict(services or {})
        self._type = saga_cls.__name__
        self._due = DueSagas(self._rows.columns, check_seconds("stalled_after_seconds", stalled_after_seconds))
        self._claims = Claims(self._rows, self._conditions())

    def _values(self, entity: Saga) -> dict[str, Any]:
        """Return the saga's state, without the history, and the history in a column of its own.

        Raises:
            ValueError: naming what JSON cannot hold.
        """
        state, _ = self._state_and_text(entity)
        events = [record.model_dump(mode="json") for record in entity.step_history]
        return {**self._in_columns(entity), "state": state, "events": events}

    def _quick_values(self, entity: Saga) -> dict[str, Any]:
        _, state = self._state_and_text(entity)
        events = _HISTORY.dump_json(entity.step_history).decode()
        return {**self._in_columns(entity), "state": DocumentText(state), "events": DocumentText(events)}

    def _state_and_text(self, entity: Saga) -> tuple[dict[str, Any], str]:
        return to_document_and_text(dumped(entity, exclude={"step_history"}), "state")

    def _in_columns(self, entity: Saga) -> dict[str, Any]:
        return {
            "id": entity.id,
            "saga_type": self._type,
            "correlation_id": entity.correlation_id,
            "status": entity.status,
            "timeout_at": entity.timeout_at,
        }

    def _made_of(self, model: Any) -> Saga:
        """Return the saga with its history; columns take precedence over what the state repeats of them."""
        values = {
            **(model.state or {}),
            "id": model.id,
            "correlation_id": model.correlation_id,
            "status": model.status.value,
            "timeout_at": model.timeout_at,
            "step_history": model.events or [],
        }
        saga = validated(self._entity_cls, values)
        saga.bind(**self.services)
        return saga

    @repeated
    async def find_by_correlation_id(
        self, correlation_id: str, saga_type: str | None = None, *, uow: SQLAlchemyUnitOfWork | None = None
    ) -> Saga | None:
        """Return the saga with this correlation id, or None; `saga_type` may only name this repository's class."""
        if saga_type is not None and saga_type != self._type:
            raise ValueError(f"this repository has sagas of type {self._type!r}, not {saga_type!r}")
        found = await self._select(self._rows.columns["correlation_id"] == correlation_id, limit=1, uow=uow)
        return found[0] if found else None

    @repeated
    async def find_stalled_sagas(
        self, limit: int = 100, *, uow: SQLAlchemyUnitOfWork | None = None
    ) -> builtins.list[Saga]:
        """Return sagas that are at work and were not saved for `stalled_after_seconds`, nor are claimed."""
        return await self._find(self._due.stalled, limit, uow)

    @repeated
    async def find_suspended_sagas(
        self, limit: int = 100, *, uow: SQLAlchemyUnitOfWork | None = None
    ) -> builtins.list[Saga]:
        """Return sagas that wait for something, oldest first."""
        return await self._select(self._rows.columns["status"] == SagaStatus.SUSPENDED, limit=limit, uow=uow)

    @repeated
    async def find_expired_suspended_sagas(
        self, limit: int = 100, *, uow: SQLAlchemyUnitOfWork | None = None
    ) -> builtins.list[Saga]:
        """Return sagas whose waiting has passed its deadline, those that are overdue longest first."""
        return await self._find(self._due.expired, limit, uow)

    @repeated
    async def claim_stalled_sagas(
        self, limit: int = 1, *, lease: timedelta, uow: SQLAlchemyUnitOfWork | None = None
    ) -> builtins.list[Saga]:
        """Take stalled sagas, each for one worker only: nobody else is given them until the lease ends.

        Args:
            limit: at most so many.
            lease: by when the worker should have saved them.
            uow: joined when open; the claim is then the caller's to commit.
        """
        return await self._claim(self._due.stalled, limit, lease, uow)

    @repeated
    async def claim_expired_suspended_sagas(
        self, limit: int = 1, *, lease: timedelta, uow: SQLAlchemyUnitOfWork | None = None
    ) -> builtins.list[Saga]:
        """Take sagas whose waiting has passed its deadline, as `claim_stalled_sagas` does."""
        return await self._claim(self._due.expired, limit, lease, uow)

    @repeated
    async def claim_due_sagas(
        self, limit: int = 1, *, lease: timedelta, uow: SQLAlchemyUnitOfWork | None = None
    ) -> builtins.list[Saga]:
        """Take whatever a runner has to look after, each saga for one worker only.

        That is: sagas that are PENDING; those at work that a runner had before, once its lease or its pause has ended;
        stalled ones; expired ones. A saga that cannot be loaded is logged and left until its lease ends: it keeps
        nobody from the others.
        """
        check_count("limit", limit)
        async with self._scope.read(uow) as connection:  # spares other writers a transaction at each poll
            kinds = await self._claims.present(connection, self._due.all(dialect_of(connection)))
        rows: builtins.list[dict[str, Any]] = []
        if kinds:
            async with self._scope.write(uow) as connection:
                for kind in kinds:
                    if len(rows) < limit:
                        rows += await self._claims.take(connection, kind, limit - len(rows), lease)
        return [saga for row in rows if (saga := self._loaded(row)) is not None]

    async def save_claimed(self, entity: Saga, *, lease: timedelta, uow: SQLAlchemyUnitOfWork | None = None) -> Saga:
        """Save a saga and hold on to it: nobody else is given it until the lease ends.

        Raises:
            OptimisticConcurrencyError: somebody else has saved or claimed it; nothing is written.
        """
        until = self._claims.until(lease)
        return await self._store(entity, uow, lambda connection: {"lease_until": until(dialect_of(connection))})

    async def give_back(self, entity: Saga, *, uow: SQLAlchemyUnitOfWork | None = None) -> Saga:
        """Save a claimed saga and end the claim: where it has something to do, it is due at once.

        Raises:
            OptimisticConcurrencyError: somebody else has saved or claimed it; nothing is written.
        """
        return await self._store(entity, uow, lambda connection: {"lease_until": dialect_of(connection).now})

    async def renew_claim(self, entity: Saga, *, lease: timedelta, uow: SQLAlchemyUnitOfWork | None = None) -> None:
        """Hold on to a claimed saga for longer, without saving it.

        Raises:
            LeaseLostError: somebody else has saved or claimed it.
        """
        async with self._scope.write(uow) as connection:
            if not await self._claims.prolong(connection, entity.id, stored_version(entity), lease):
                raise LeaseLostError("saga", (entity.id,))

    def _computed(self, entity: Saga, connection: AsyncConnection) -> dict[str, Any]:
        dialect, values = dialect_of(connection), {}
        if stored_version(entity) is None and entity.status is SagaStatus.PENDING:
            values["lease_until"] = dialect.now  # it is for a runner, from its beginning to its end
        if entity.timeout is not None:
            values["timeout_at"] = dialect.later(sa.literal(entity.timeout.total_seconds(), sa.Double()))
        return values

    def _is_written_at_once(self, entity: Saga) -> bool:
        return entity.timeout is None

    async def _written(self, connection: AsyncConnection, entity: Saga) -> None:
        if entity.timeout is not None:
            statement = sa.select(self._rows.columns["timeout_at"]).where(self._rows.key == entity.id)
            undo = partial(entity.set_deadline, None, timeout=entity.timeout)
            entity.set_deadline(await connection.scalar(statement))
            on_rollback(connection, undo)

    async def _find(
        self, kind: Callable[[DatabaseDialect], Wanted], limit: int, uow: SQLAlchemyUnitOfWork | None
    ) -> builtins.list[Saga]:
        async with self._scope.read(uow) as connection:
            wanted = kind(dialect_of(connection))
        return await self._select(*wanted.conditions, order=(wanted.order,), limit=limit, uow=uow)

    async def _claim(
        self,
        kind: Callable[[DatabaseDialect], Wanted],
        limit: int,
        lease: timedelta,
        uow: SQLAlchemyUnitOfWork | None,
    ) -> builtins.list[Saga]:
        async with self._scope.write(uow) as connection:
            rows = await self._claims.take(connection, kind(dialect_of(connection)), limit, lease)
            return [self._entity(row) for row in rows]  # inside: what cannot be loaded is not claimed

    def _conditions(self) -> tuple[sa.ColumnElement[bool], ...]:
        return (self._rows.columns["saga_type"] == self._type,)

    def _loaded(self, row: dict[str, Any]) -> Saga | None:
        try:
            return self._entity(row)
        except Exception:  # whatever a class that has changed raises; the others are claimed already
            logger.exception("saga %r of type %r cannot be loaded: mend its class or its row", row["id"], self._type)
            return None
