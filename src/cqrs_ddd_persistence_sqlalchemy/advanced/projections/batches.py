"""Many documents on their way into their rows: neighbours with the same columns together, each value checked."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from operator import itemgetter
from types import NoneType
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from cqrs_ddd_advanced_core.projections.kinds import INTEGER_BITS, Kind
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.collection import VERSION, Collection
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.documents import complete
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.queries import chunked
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.values import to_column
from cqrs_ddd_persistence_sqlalchemy.core.json_documents import are_plain_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Sequence
    from typing import TypeAlias

    import sqlalchemy as sa
    from pydantic import BaseModel

    from cqrs_ddd_advanced_core.projections.kinds import ColumnType

    # The values of a column as they are bound, None where one is to be looked at closely.
    _Converter: TypeAlias = Callable[[Sequence[Any]], Sequence[Any] | None]
    # What returns for columns of a table what makes text to copy of their values, None where nothing does.
    Speller: TypeAlias = Callable[[sa.Table, tuple[str, ...]], Callable[[Sequence[Sequence[Any]]], bytes] | None]

_AT_ONCE = 100  # documents take a fraction of a millisecond, for which others can wait
_LONGEST_TEXT = 16 << 20  # bytes of a chunk; rows with larger documents are written by the driver, one by one


@dataclass(slots=True)
class Batch:
    """Rows with the same columns: key columns first, then the others in the table's order.

    Attributes:
        names: of the columns.
        columns: the converted values of each.
        text: the same as the database copies it, in parts; None where it is not made beforehand.
    """

    names: tuple[str, ...]
    columns: list[list[Any]]
    text: list[bytes] | None = None

    @property
    def count(self) -> int:
        """How many rows."""
        return len(self.columns[0])

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Iterate over the rows."""
        return zip(*self.columns, strict=True)

    def add(self, other: Batch) -> None:
        """Append rows with the same columns."""
        for mine, theirs in zip(self.columns, other.columns, strict=True):
            mine.extend(theirs)
        if self.text is not None and other.text is not None:
            self.text += other.text
            if sum(map(len, self.text)) <= _LONGEST_TEXT:
                return
        self.text = None


@dataclass
class Chunk:
    """Documents that are written together.

    Attributes:
        docs: as they were given.
        found: the collection for which they are converted; None where they are not.
        batches: as rows of that collection.
    """

    docs: list[Mapping[str, Any] | BaseModel] = field(default_factory=list)
    found: Collection | None = None
    batches: list[Batch] = field(default_factory=list)

    def rows_of(self, found: Collection, exact_digits: int | None) -> list[Batch]:
        """Return them as rows of a collection that may have changed meanwhile.

        Raises:
            ValueError: as `complete`.
        """
        if found is not self.found:
            self.found, self.batches = found, []
            for part in chunked(self.docs, _AT_ONCE):
                _add(self.batches, found, part, exact_digits)
        return self.batches


async def next_chunk(docs: Iterator[Mapping[str, Any] | BaseModel], size: int) -> Chunk:
    """Read the next documents, giving way now and then; in the caller's task, of whose context they may be."""
    chunk = Chunk()
    while part := list(islice(docs, min(_AT_ONCE, size - len(chunk.docs)))):
        chunk.docs += part
        if len(part) == _AT_ONCE:
            await asyncio.sleep(0)
    return chunk


async def convert_ahead(
    chunk: Chunk, found: Collection | None, exact_digits: int | None, spell: Speller | None = None
) -> None:
    """Convert what was read, giving way now and then; with `spell` also to text that is copied.

    What makes no row of the collection is left as it is: whoever writes it finds out whether the table has changed.
    """
    if found is None:
        return
    batches: list[Batch] = []
    for part in chunked(chunk.docs, _AT_ONCE):
        try:
            _add(batches, found, part, exact_digits, spell if not batches or batches[-1].text is not None else None)
        except ValueError:
            return
        await asyncio.sleep(0)
    chunk.found, chunk.batches = found, batches


def _add(
    batches: list[Batch],
    collection: Collection,
    docs: Sequence[Mapping[str, Any] | BaseModel],
    exact_digits: int | None,
    spell: Speller | None = None,
) -> None:
    """Convert documents; the order stays, as one document may make way for the next."""
    alike = _convert_alike(collection, docs, exact_digits, spell)
    for each in [alike] if alike is not None else _convert_one_by_one(collection, docs, exact_digits):
        if batches and batches[-1].names == each.names:
            batches[-1].add(each)
        else:
            batches.append(each)


def _convert_one_by_one(
    collection: Collection, docs: Iterable[Mapping[str, Any] | BaseModel], exact_digits: int | None
) -> Iterator[Batch]:
    for doc in docs:
        values = complete(collection, None, doc, exact_digits)
        names = _in_order(collection, values)
        yield Batch(names, [[values[name]] for name in names])


def _in_order(collection: Collection, names: Container[str]) -> tuple[str, ...]:
    """Return columns in one order, in whichever documents have them: neighbours are to be written together."""
    return (*collection.key, *(name for name in collection.types if name in names and name not in collection.key))


def _convert_alike(
    collection: Collection,
    docs: Sequence[Mapping[str, Any] | BaseModel],
    exact_digits: int | None,
    spell: Speller | None = None,
) -> Batch | None:
    """Convert documents with the same columns, a column at a time; None where each is to be looked at closely."""
    if set(map(type, docs)) != {dict} or len(set(map(len, cast("Sequence[dict[str, Any]]", docs)))) > 1:
        return None
    columns = _columns(collection, tuple(docs[0]), exact_digits)
    return None if columns is None else columns.batch(docs, spell)


def to_values(
    collection: Collection, doc_id: object, doc: Mapping[str, Any] | BaseModel, exact_digits: int | None
) -> dict[str, Any]:
    """Return the values of a row, key columns first, for a document given with its key.

    Raises:
        ValueError: as `complete`.
    """
    key = collection.key[0]
    if type(doc) is dict and len(collection.key) == 1 and key not in doc and not isinstance(doc_id, Mapping):
        alike = _convert_alike(collection, [{key: doc_id, **doc}], exact_digits)
        if alike is not None:
            return {name: values[0] for name, values in zip(alike.names, alike.columns, strict=True)}
    return complete(collection, doc_id, doc, exact_digits)


class _Columns:
    """Converts the values of certain columns."""

    def __init__(self, collection: Collection, names: Container[str], exact_digits: int | None) -> None:
        self._names = _in_order(collection, names)
        self._table = collection.table
        self._are_known = all(collection.types[name] is not None for name in self._names)
        self._get = itemgetter(*self._names)
        self._convert = [
            _converter(name, collection.types[name], exact_digits, is_nullable=self._is_nullable(collection, name))
            for name in self._names
        ]

    @staticmethod
    def _is_nullable(collection: Collection, name: str) -> bool:
        return name not in collection.not_null and name not in collection.key and name != VERSION

    def batch(self, docs: Sequence[Any], spell: Speller | None) -> Batch | None:
        """Return the rows, or None where one of the documents is to be looked at closely."""
        try:
            columns = list(zip(*map(self._get, docs), strict=True))
        except KeyError:  # so many columns, but others
            return None
        converted = []
        for values, convert in zip(columns, self._convert, strict=True):
            column = convert(values)
            if column is None:
                return None
            converted.append(list(column))
        write = spell(self._table, self._names) if spell is not None and self._are_known else None
        return Batch(self._names, converted, None if write is None else [write(converted)])


def to_keys(collection: Collection, doc_ids: Sequence[object], exact_digits: int | None) -> list[tuple[Any, ...]]:
    """Return the values of the key's columns for each of some documents.

    Raises:
        ValueError: as `Collection.key_values`.
    """
    if len(collection.key) == 1 and collection.types[collection.key[0]] is not None:
        values = _key_converter(collection, exact_digits)(doc_ids)
        if values is not None:
            return [(value,) for value in values]
    return [tuple(collection.key_values(doc_id, exact_digits=exact_digits).values()) for doc_id in doc_ids]


@lru_cache(maxsize=1024)
def _key_converter(collection: Collection, exact_digits: int | None) -> _Converter:
    return _converter(collection.key[0], collection.types[collection.key[0]], exact_digits, is_nullable=False)


@lru_cache(maxsize=1024)
def _columns(collection: Collection, names: tuple[str, ...], exact_digits: int | None) -> _Columns | None:
    if not (set(collection.key) <= set(names) <= collection.types.keys()) or len(names) == 1:
        return None
    return _Columns(collection, names, exact_digits)


def _converter(name: str, type_: ColumnType | None, exact_digits: int | None, *, is_nullable: bool) -> _Converter:
    """Return what converts the values of a column; None means that `to_column` has to refuse one of them by name."""
    kind, fit = (None, None) if type_ is None or type_.array else quick_check(type_, exact_digits)

    def convert(values: Sequence[Any]) -> Sequence[Any] | None:
        kinds = set(map(type, values))
        given = values
        if NoneType in kinds:
            if not is_nullable:
                return None
            kinds.discard(NoneType)
            given = [value for value in values if value is not None]
        if fit is not None and (not kinds or (kinds == {kind} and fit(given))):
            return values
        try:
            return [to_column(name, type_, value, exact_digits=exact_digits) for value in values]
        except ValueError:
            return None

    return convert


def quick_check(
    type_: ColumnType, exact_digits: int | None
) -> tuple[type | None, Callable[[Sequence[Any]], bool] | None]:
    """Return a type of values, and what tells whether they are all stored as they are; False: it is unsure."""
    if type_.kind in {Kind.CHAR, Kind.VARCHAR, Kind.TEXT}:
        length = type_.length
        return str, lambda values: (length is None or max(map(len, values)) <= length) and are_plain_texts(values)
    if type_.kind in INTEGER_BITS:
        limit = 1 << INTEGER_BITS[type_.kind]
        return int, lambda values: -limit <= min(values) and max(values) < limit
    if type_.kind is Kind.DECIMAL and (exact_digits is None or (type_.precision or 0) <= exact_digits):
        fitting = _fitting_decimals(type_.precision or 0, type_.scale or 0)
        return Decimal, lambda values: fitting.fullmatch(",".join(map(str, values))) is not None
    if type_.kind is Kind.TIMESTAMP:
        return datetime, lambda values: all(value.tzinfo is UTC for value in values)
    if type_.kind in {Kind.BOOLEAN, Kind.DATE, Kind.UUID}:
        return {Kind.BOOLEAN: bool, Kind.DATE: date, Kind.UUID: UUID}[type_.kind], lambda _: True
    return None, None


def _fitting_decimals(precision: int, scale: int) -> re.Pattern[str]:
    """Return what decimals look like that a column takes, each followed by a comma but for the last."""
    before = f"[0-9]{{1,{precision - scale}}}" if precision > scale else "0"
    after = f"(?:\\.[0-9]{{1,{scale}}})?" if scale else ""
    one = f"-?{before}{after}"
    return re.compile(f"{one}(?:,{one})*")
