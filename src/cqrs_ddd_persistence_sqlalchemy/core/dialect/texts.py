"""Rows and lists as the text that PostgreSQL reads (docs/decisions/0027).

Python writes it from whole columns in half the time in which asyncpg writes its binary form value by value. PostgreSQL
reads it as quickly, and rows can be written beforehand, while the server is busy with others.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy.core.dialect.keeping import kept
from cqrs_ddd_persistence_sqlalchemy.core.dialect.times import UTCDateTime, in_utc
from cqrs_ddd_persistence_sqlalchemy.core.dialect.types import ExactDecimal, JSONText

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy.engine import Dialect

    _Write: TypeAlias = Callable[[Sequence[Any]], Iterable[str]]

# The backslash first: it is in what the others become.
_IN_COPY = (("\\", r"\\"), ("\t", r"\t"), ("\n", r"\n"), ("\r", r"\r"))
_IN_LISTS = (("\\", r"\\"), ('"', r"\""))
_NUMBERS = tuple(map(str, range(60)))
_THREE_DIGITS = tuple(f"{number:03}" for number in range(1000))
_BOOLEANS = {True: "t", False: "f"}
# As asyncpg has them in its binary form.
_INFINITE_DATES = {date.max: "infinity", date.min: "-infinity"}
_INFINITE_TIMES = {datetime.max.replace(tzinfo=UTC): "infinity", datetime.min.replace(tzinfo=UTC): "-infinity"}


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes the values of a column.

    Attributes:
        write: makes text of values, none of them None; without it they are text, which may contain anything.
        process: makes of each value, None too, what is written; without it that is the value.
    """

    write: _Write | None = None
    process: Callable[[Any], Any] | None = None

    def texts(self, values: Sequence[Any], spell: _Write, null: str) -> Iterable[str]:
        """Return the text of each value: as `spell` has it where it may contain anything, `null` for None."""
        if self.process is not None:
            values = list(map(self.process, values))
        write = self.write or spell
        if NoneType not in set(map(type, values)):  # by type, as decimals take long to tell that they are not None
            return write(values)
        given = iter(write([value for value in values if value is not None]))
        return [null if value is None else next(given) for value in values]


class CopyText:
    """Writes the rows that COPY reads, of columns of certain types."""

    def __init__(self, writers: Sequence[_Writer]) -> None:
        self._writers = writers

    def __call__(self, columns: Sequence[Sequence[Any]]) -> bytes:
        """Return rows that are given as their columns, each row with a newline at its end."""
        pairs = zip(columns, self._writers, strict=True)
        written = [writer.texts(values, _spelled_for_copy, r"\N") for values, writer in pairs]
        lines = [*map("\t".join, zip(*written, strict=True)), ""]
        return "\n".join(lines).encode()


def copy_text(
    types: tuple[sa.types.TypeEngine[Any], ...], dialect: Dialect, *, json_is_text: bool = False
) -> CopyText | None:
    """Return what writes values of some types; None where one of them is better left to the driver.

    The values are those that the driver's binary form would be made of; with `json_is_text`, JSON is text already.
    """

    def make() -> CopyText | None:
        writers = [_writer(type_, dialect, json_is_text=json_is_text) for type_ in types]
        return None if None in writers else CopyText([writer for writer in writers if writer is not None])

    return kept(dialect, (copy_text, types, json_is_text), make)


class ListText(sa.TypeDecorator[list[Any]]):
    """A list on its way to the server, to be cast to an array of a type."""

    impl = sa.Text
    cache_ok = True

    def __init__(self, item: sa.types.TypeEngine[Any]) -> None:
        self.item = item
        super().__init__()

    @staticmethod
    def takes(item: sa.types.TypeEngine[Any]) -> bool:
        """Tell whether a list of such values can be written."""
        return _is_text(item) or any(isinstance(item, known) for known in _WRITERS)

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        """Write an array of one dimension."""
        writer = _writer(self.item, dialect)
        assert writer is not None, "ask whether it takes them"  # noqa: S101

        def process(values: Sequence[Any] | None) -> str | None:
            return None if values is None else f"{{{','.join(writer.texts(values, _spelled_in_lists, 'NULL'))}}}"

        return process


def _writer(type_: sa.types.TypeEngine[Any], dialect: Dialect, *, json_is_text: bool = False) -> _Writer | None:
    if _is_text(type_):
        is_text = not isinstance(type_, sa.JSON | sa.Enum) or (json_is_text and isinstance(type_, sa.JSON))
        return _Writer(process=None if is_text else type_.dialect_impl(dialect).bind_processor(dialect))
    return next((_Writer(write) for known, write in _WRITERS.items() if isinstance(type_, known)), None)


def _is_text(type_: sa.types.TypeEngine[Any]) -> bool:
    # An enumeration that is a type of the database's own may not read what its values are called here.
    is_native = isinstance(type_, sa.Enum) and type_.native_enum
    return isinstance(type_, sa.String | sa.JSON | JSONText) and not is_native


def _spelled_for_copy(values: Sequence[str]) -> Sequence[str]:
    return _escaped(values, _IN_COPY)


def _spelled_in_lists(values: Sequence[str]) -> Iterable[str]:
    # Added up, as a text may be of a class with a form of its own.
    return ['"' + value + '"' for value in _escaped(values, _IN_LISTS)]


def _escaped(values: Sequence[str], escapes: Iterable[tuple[str, str]]) -> Sequence[str]:
    everything = "".join(values)
    for character, spelled in escapes:
        if character in everything:
            values = [value.replace(character, spelled) for value in values]
    return values


def _booleans(values: Sequence[bool]) -> Iterable[str]:
    return map(_BOOLEANS.__getitem__, values)


def _times(values: Sequence[datetime]) -> Iterable[str]:
    if not all(each.tzinfo is UTC for each in values):
        values = [in_utc(each) for each in values]
    # Looked up, in half the time of isoformat(), which asks the zone, and of a format with leading zeros.
    n, nnn = _NUMBERS, _THREE_DIGITS
    written = [
        f"{n[each.year // 1000]}{nnn[each.year % 1000]}-{n[each.month]}-{n[each.day]} {n[each.hour]}:{n[each.minute]}:"
        f"{n[each.second]}.{nnn[each.microsecond // 1000]}{nnn[each.microsecond % 1000]}+0"
        for each in values
    ]
    if _INFINITE_TIMES.keys().isdisjoint(values):
        return written
    return [_INFINITE_TIMES.get(value, text) for value, text in zip(values, written, strict=True)]


def _dates(values: Sequence[date]) -> Iterable[str]:
    return [_INFINITE_DATES.get(value) or date.isoformat(value) for value in values]


_WRITERS: dict[type[sa.types.TypeEngine[Any]], _Write] = {
    sa.Integer: partial(map, int.__repr__),
    ExactDecimal: partial(map, Decimal.__str__),
    sa.Double: partial(map, float.__repr__),
    sa.Boolean: _booleans,
    UTCDateTime: _times,
    sa.Date: _dates,
    sa.Uuid: partial(map, UUID.__str__),
}
