"""Events into rows: the handlers of a projection, called inside one unit of work."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from copy import deepcopy
from decimal import Decimal
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import event as events_of

from cqrs_ddd_advanced_core.cancellation import is_cancelled
from cqrs_ddd_advanced_core.projections.kinds import Kind
from cqrs_ddd_advanced_core.projections.projection import Fold
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.batches import quick_check
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.collection import (
    LAST_EVENT_ID,
    LAST_EVENT_POSITION,
    VERSION,
    UnknownColumnError,
)
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.values import to_column
from cqrs_ddd_persistence_sqlalchemy.advanced.running.view import ProjectionView
from cqrs_ddd_persistence_sqlalchemy.core.dialect import ALL_DIGITS
from cqrs_ddd_persistence_sqlalchemy.core.transactions import has_failed
from cqrs_ddd_persistence_sqlalchemy.exceptions import SchemaOutOfDateError, UnitOfWorkError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from cqrs_ddd_advanced_core.events import StoredEvent
    from cqrs_ddd_advanced_core.projections.column_types import ColumnSpec
    from cqrs_ddd_advanced_core.projections.projection import Projection, Row
    from cqrs_ddd_persistence_sqlalchemy.advanced.projections.store import SQLAlchemyProjectionStore
    from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork

    # An event and the row that it belongs to: by the key, and by one that can be looked up.
    _Keyed: TypeAlias = tuple[StoredEvent, Fold, object, object]


class EventFailedError(Exception):
    """A handler raised, or what handlers have done cannot be written; the cause says why.

    Attributes:
        position: of the event, None where it may be any of those that were applied together.
    """

    def __init__(self, position: int | None = None) -> None:
        self.position = position
        super().__init__(position)

    @property
    def cause(self) -> BaseException:
        """What was raised."""
        return self.__cause__ or self


class Applier:
    """Applies events to a projection's table.

    Args:
        projection: with the handlers.
        store: that knows the projection's table.
        replay: whether the events have been handled before, for `event.replay`.
    """

    def __init__(self, projection: Projection, store: SQLAlchemyProjectionStore, *, replay: bool) -> None:
        self._projection = projection
        self._store = store
        self._replay = replay
        schema = projection.schema
        self._types = {column.name: column.type for column in schema.columns}
        self._key_name = schema.key[0]
        kind, fits = quick_check(self._types[self._key_name], None)
        self._fits = fits if kind is str else None
        self._defaults = {
            column.name: _value(column)
            for column in schema.columns
            if column.default is not None and column.default.kind == "literal" and column.name != VERSION
        } | {column.name: None for column in schema.columns if column.default is None and column.nullable}
        self._has_guards = not {VERSION, LAST_EVENT_POSITION, LAST_EVENT_ID}.isdisjoint(self._types)
        self._has_mutable_defaults = any(isinstance(value, list | dict) for value in self._defaults.values())
        #: What a row has once it was written, or from its defaults; a required column may be missing, and is an error.
        self._whole = frozenset(
            column.name for column in schema.columns if column.default is not None and column.name != VERSION
        )

    async def apply(self, events: Iterable[StoredEvent], uow: SQLAlchemyUnitOfWork) -> None:
        """Call the handlers in the order of the events; folds that follow each other share their rows.

        Raises:
            EventFailedError: with what a handler, or writing what it returned, has raised.
        """
        async with _undisturbed(uow):
            await self._apply(events, uow)

    async def _apply(self, events: Iterable[StoredEvent], uow: SQLAlchemyUnitOfWork) -> None:
        view = ProjectionView(self._store, self._projection.schema.collection, uow)
        seen = (event.as_replayed() for event in events) if self._replay else events
        handler = self._projection.handler
        handled = [(event, handler(event.event_type)) for event in seen]
        for folds, group in groupby(handled, key=_is_fold):
            if folds:
                try:
                    left = self._with_keys(group)  # type: ignore[arg-type]  # (all are folds)
                    while left:
                        left = await self._fold(left, view)
                except EventFailedError:
                    raise
                except Exception as error:  # noqa: BLE001  (a value that no column takes, a key that is none)
                    raise EventFailedError from self._cause(error)
            else:
                for event, each in group:
                    await self._handle(event, each, view)
        try:
            await uow.session.flush()  # what a handler has added to the session
        except Exception as error:
            raise EventFailedError from error
        if has_failed(uow.session):
            raise EventFailedError from UnitOfWorkError(
                "a handler has caught a database error, after which the transaction cannot be committed: let it pass, "
                "or put what may fail into 'async with view.uow.session.begin_nested():'"
            )

    async def _handle(self, event: StoredEvent, handler: Any, view: ProjectionView) -> None:
        if handler is None:
            return  # a parked event of a type that has no handler any more
        try:
            await handler(event, view)
        except asyncio.CancelledError as error:
            if is_cancelled():
                raise
            raise EventFailedError(event.position) from error  # the handler's own
        except Exception as error:  # noqa: BLE001  (a handler is the application's and may raise anything)
            raise EventFailedError(event.position) from self._cause(error)

    def _cause(self, error: Exception) -> Exception:
        """Return why writing failed: no event is to blame where the table is behind the projection's schema."""
        if isinstance(error, UnknownColumnError) and error.column in self._types:
            return SchemaOutOfDateError(
                f"column {error.column!r} of {self._projection.schema.collection!r} is not in the database, which is "
                "behind this code; run: alembic upgrade head"
            )
        return error

    def _fresh_defaults(self) -> dict[str, Any]:
        return deepcopy(self._defaults) if self._has_mutable_defaults else self._defaults

    async def _fold(self, events: list[_Keyed], view: ProjectionView) -> list[_Keyed]:
        """Fold events into the rows that they belong to, loaded and written all at once; return those that are left."""
        distinct = {at: key for _, _, key, at in events}
        before = dict(zip(distinct, await view.find_many(list(distinct.values())), strict=True))
        rows = dict(before)
        gone: set[object] = set()
        whole = self._whole
        for number, (event, fold, key, at) in enumerate(events):
            row = rows[at]
            if row is not None and row is not before[at] and not whole.issubset(row):
                # A default of this row is for the database to say: the events before are written first.
                await self._write(rows, before, gone, distinct, view)
                return events[number:]
            rows[at] = folded = self._folded(row, event, fold, key)
            if folded is None:
                gone.add(at)
        await self._write(rows, before, gone, distinct, view)
        return []

    async def _write(
        self,
        rows: dict[object, Row | None],
        before: dict[object, Row | None],
        gone: set[object],
        keys: dict[object, object],
        view: ProjectionView,
    ) -> None:
        for at in gone:
            if before[at] is not None:
                await view.delete(keys[at])  # first: what comes again is a new row
        await view.bulk_upsert(row for row in rows.values() if row is not None)

    def _with_keys(self, events: Iterable[tuple[StoredEvent, Fold]]) -> list[_Keyed]:
        """Find out to which row each event belongs."""
        handled, given = list(events), []
        for event, fold in handled:
            try:
                given.append(fold.key(event))
            except Exception as error:  # the application's
                raise EventFailedError(event.position) from error
        texts = list(dict.fromkeys(key for key in given if type(key) is str))
        converted: dict[object, object] = dict(zip(texts, texts, strict=True)) if self._are_plain(texts) else {}
        keyed = []
        for (event, fold), key in zip(handled, given, strict=True):
            if type(key) is str and key in converted:
                keyed.append((event, fold, converted[key], converted[key]))
                continue
            try:
                found = self._key(key)
            except Exception as error:
                raise EventFailedError(event.position) from error
            if type(key) is str:
                converted[key] = found
            keyed.append((event, fold, found, _hashable(found)))
        return keyed

    def _are_plain(self, keys: Sequence[str]) -> bool:
        """Tell of texts, and of none that is converted or refused, that they are keys as they are."""
        return bool(keys) and self._fits is not None and self._fits(keys)

    def _key(self, key: object) -> object:
        if isinstance(key, dict):
            return {name: to_column(name, self._types.get(name), value) for name, value in key.items()}
        # One row has one key here, too: a UUID may be given as text, in upper or lower case.
        return to_column(self._key_name, self._types[self._key_name], key)

    def _folded(self, row: Row | None, event: StoredEvent, fold: Fold, key: object) -> Row | None:
        try:
            new = fold.function(None if row is None else dict(row), event)
            if new is None:
                return None
            keys: Mapping[str, Any] = key if isinstance(key, dict) else {self._key_name: key}
            _check_key(new, keys)
            # Whatever the batch, a later event of it meets the row as the database would have it.
            merged = {**keys, **(self._fresh_defaults() if row is None else row), **new}
        except Exception as error:  # the application's, too
            raise EventFailedError(event.position) from error
        if self._has_guards:
            self._note(merged, row, event)
        return merged

    def _note(self, merged: Row, row: Row | None, event: StoredEvent) -> None:
        version = row.get(VERSION) if row else None
        if VERSION in self._types and merged.get(VERSION) == version:
            merged[VERSION] = (version or 0) + 1
        if LAST_EVENT_POSITION in self._types:
            merged[LAST_EVENT_POSITION] = event.position
        if LAST_EVENT_ID in self._types:
            merged[LAST_EVENT_ID] = event.event_id


@asynccontextmanager
async def _undisturbed(uow: SQLAlchemyUnitOfWork) -> AsyncIterator[None]:
    """Let nobody end the transaction that is to commit the position, too.

    Raises:
        EventFailedError: somebody has rolled it back.
    """
    connection = (await uow.session.connection()).sync_connection
    ended: list[bool] = []

    def refuse(_connection: object) -> None:
        raise UnitOfWorkError("a handler leaves the commit to the runner, which commits the position with it")

    def note(_connection: object) -> None:
        ended.append(True)

    events_of.listen(connection, "commit", refuse)
    events_of.listen(connection, "rollback", note)
    try:
        yield
    finally:
        events_of.remove(connection, "commit", refuse)
        events_of.remove(connection, "rollback", note)
    if ended:
        raise EventFailedError from UnitOfWorkError(
            "a handler has rolled back the transaction of its batch: raise an error instead, or use "
            "'async with view.uow.session.begin_nested():'"
        )


def _value(column: ColumnSpec) -> Any:
    """Return a column's default as it would be read."""
    value: Any = column.default.value if column.default else None
    if column.type.array:
        return list(value)
    if column.type.kind is Kind.JSON:
        return json.loads(value)
    if isinstance(value, Decimal):
        return value.quantize(Decimal(1).scaleb(-(column.type.scale or 0)), context=ALL_DIGITS)
    return value


def _check_key(row: Row, key: Mapping[str, Any]) -> None:
    for column, value in key.items():
        if type(row.get(column)) is type(value) and row[column] != value:
            raise ValueError(f"the row has {column} = {row[column]!r}, and the event's key is {value!r}")


def _is_fold(handled: tuple[StoredEvent, Any]) -> bool:
    return isinstance(handled[1], Fold)


def _hashable(key: object) -> object:
    return tuple(sorted(key.items())) if isinstance(key, dict) else key
