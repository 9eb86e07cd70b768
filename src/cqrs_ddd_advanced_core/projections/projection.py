"""Projection: a read model with what each event does to it. Plain Python; a runner feeds it."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from cqrs_ddd_advanced_core.exceptions import SchemaError
from cqrs_ddd_advanced_core.storable import ID_LENGTH, unstorable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence

    from pydantic import BaseModel

    from cqrs_ddd_advanced_core.events import StoredEvent
    from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema

EVERY_OTHER = "*"

Row: TypeAlias = dict[str, Any]
Handler: TypeAlias = "Callable[[StoredEvent, View], Awaitable[None]]"
FoldFunction: TypeAlias = "Callable[[Row | None, StoredEvent], Row | None]"
Key: TypeAlias = "Callable[[StoredEvent], object]"
AnyHandler = TypeVar("AnyHandler", bound=Callable[..., Any])


class View(Protocol):
    """A projection's table, as its handlers see it: inside the transaction that also saves the position."""

    @property
    def uow(self) -> Any:
        """The unit of work of the batch, for stores other than this table's."""
        ...

    async def upsert(
        self,
        doc_id: object,
        doc: Mapping[str, Any] | BaseModel,
        *,
        expected_version: int | None = None,
        event_id: str | None = None,
        event_position: int | None = None,
    ) -> bool:
        """Write the columns in `doc`."""
        ...

    async def bulk_upsert(self, docs: Iterable[Mapping[str, Any] | BaseModel]) -> int:
        """Upsert documents; return how many."""
        ...

    async def delete(self, doc_id: object, *, expected_version: int | None = None) -> bool:
        """Delete a document; False when there was none."""
        ...

    async def find_one(self, doc_id: object) -> Row | None:
        """Return the document with this key, or None."""
        ...

    async def find_many(self, doc_ids: Sequence[object]) -> list[Row | None]:
        """Return the documents with these keys in the same order."""
        ...

    async def find(
        self,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  (pymongo's name)
        sort: Sequence[tuple[str, int]] | None = None,
        limit: int = 100,
        offset: int = 0,
        after: Mapping[str, Any] | None = None,
    ) -> list[Row]:
        """Return matching documents."""
        ...

    async def count(self, filter: Mapping[str, Any] | None = None) -> int:  # noqa: A002  (pymongo's name)
        """Return how many documents match."""
        ...


@dataclass(frozen=True)
class Fold:
    """A handler that makes one row of one row and an event, and so needs no database.

    A runner loads the rows of a whole batch at once, and writes them back with one statement.

    Attributes:
        function: takes the row as it was (None: there is none) and the event; returns the row as it is then, None for
            none. Columns that the row lacks keep their values.
        key: of the event's row: a scalar, or a dict for a composite key; the event's aggregate_id unless given.
    """

    function: FoldFunction
    key: Key = lambda event: event.aggregate_id


class Projection:
    """A read model: its name, its table, and a handler for each type of event that it is made of.

    Handlers change the table and nothing else: they run again after a failure, after a crash, and for all events when
    the projection is rebuilt (`event.replay` is True then). What must happen once, such as a mail, belongs into a job
    or a saga.

    Args:
        name: under which the position is kept; 1 to 255 characters.
        schema: of the table.
        handlers: by event type: `async def handler(event, view)`, or a Fold. The handler of "*" takes all types that
            have none of their own.
        aggregate_types: of the events that count; all unless given.

    Raises:
        SchemaError: naming what is missing or of the wrong kind.
    """

    def __init__(
        self,
        name: str,
        schema: ProjectionSchema,
        handlers: Mapping[str, Handler | Fold] | None = None,
        *,
        aggregate_types: Iterable[str] | None = None,
    ) -> None:
        if not isinstance(name, str) or not 1 <= len(name) <= ID_LENGTH:
            raise SchemaError(f"a projection's name has 1 to {ID_LENGTH} characters, not {name!r}")
        if unstorable(name) is not None:
            raise SchemaError(f"a projection's name has no NUL and no lone surrogates: {name!r}")
        self.name = name
        self.schema = schema
        if isinstance(aggregate_types, str):
            raise SchemaError(f"projection {name!r}: aggregate_types is a list of names, not {aggregate_types!r}")
        self.aggregate_types = None if aggregate_types is None else tuple(aggregate_types)
        self._handlers: dict[str, Handler | Fold] = {}
        for event_type, handler in (handlers or {}).items():
            self._add(event_type, handler)

    def __repr__(self) -> str:
        """Name the projection."""
        return f"Projection({self.name!r}, collection={self.schema.collection!r})"

    def on(self, *event_types: str) -> Callable[[AnyHandler], AnyHandler]:
        """Decorate `async def handler(event, view)`, called for each event of these types."""

        def add(handler: AnyHandler) -> AnyHandler:
            for event_type in _some(event_types):
                self._add(event_type, handler)
            return handler

        return add

    def fold(self, *event_types: str, key: Key | None = None) -> Callable[[AnyHandler], AnyHandler]:
        """Decorate `def handler(row, event)`, which returns the row as it is after an event of these types.

        Args:
            event_types: one or more.
            key: of the event's row; the event's aggregate_id unless given.
        """

        def add(function: AnyHandler) -> AnyHandler:
            fold = Fold(function) if key is None else Fold(function, key)
            for event_type in _some(event_types):
                self._add(event_type, fold)
            return function

        return add

    @property
    def event_types(self) -> tuple[str, ...] | None:
        """The types of events that have a handler, in alphabetical order; None for all."""
        return None if EVERY_OTHER in self._handlers else tuple(sorted(self._handlers))

    def handler(self, event_type: str) -> Handler | Fold | None:
        """Return what handles a type of events, None where nothing does."""
        return self._handlers.get(event_type) or self._handlers.get(EVERY_OTHER)

    def renamed(self, name: str, schema: ProjectionSchema) -> Projection:
        """Return a projection of the same handlers into another table."""
        return Projection(name, schema, self._handlers, aggregate_types=self.aggregate_types)

    @property
    def source_fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change with the table, and with the source files that the handlers are in.

        A rebuild that was interrupted goes on only where they are the same. What those files import is not looked at.
        """
        functions = [each.function if isinstance(each, Fold) else each for each in self._handlers.values()]
        keys = [each.key for each in self._handlers.values() if isinstance(each, Fold)]
        files = {inspect.getsourcefile(inspect.unwrap(_plain(each))) for each in [*functions, *keys]}
        digest = hashlib.sha256(self.schema.fingerprint.encode())
        digest.update(repr((sorted(self._handlers), self.aggregate_types)).encode())
        for content in sorted(Path(file).read_bytes() for file in files if file is not None and Path(file).is_file()):
            digest.update(content)
        return digest.hexdigest()[:16]

    def _add(self, event_type: str, handler: Any) -> None:
        if not isinstance(event_type, str) or not event_type:
            raise SchemaError(f"projection {self.name!r}: an event type is a name, not {event_type!r}")
        if event_type in self._handlers:
            raise SchemaError(f"projection {self.name!r} has two handlers for {event_type!r}")
        if isinstance(handler, Fold):
            if inspect.iscoroutinefunction(handler.function):
                raise SchemaError(
                    f"projection {self.name!r}: the fold of {event_type!r} is async; it is a plain function"
                )
        elif not (callable(handler) and any(map(inspect.iscoroutinefunction, (handler, type(handler).__call__)))):
            raise SchemaError(
                f"projection {self.name!r}: the handler of {event_type!r} is not 'async def handler(event, view)'; a "
                "plain function of a row and an event is a Fold"
            )
        self._handlers[event_type] = handler


def _some(event_types: tuple[str, ...]) -> tuple[str, ...]:
    if not event_types or not all(isinstance(each, str) for each in event_types):
        raise SchemaError("name the types of events: @projection.on('OrderPlaced')")
    return event_types


def _plain(function: Any) -> Any:
    """Return what inspect finds the source of: bound methods, partials and callable objects have it elsewhere."""
    function = getattr(function, "func", function)
    function = getattr(function, "__func__", function)
    return function if inspect.isroutine(function) else type(function)
