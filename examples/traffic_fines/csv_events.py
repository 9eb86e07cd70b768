"""The events of a CSV file, one a row."""

from __future__ import annotations

import csv
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from pydantic import ValidationError

from cqrs_ddd_advanced_core import StoredEvent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_OWN_PLACE = ("event_no", "case_id", "version", "activity", "timestamp")
_MONEY = ("amount", "expense", "payment_amount", "total_payment_amount")
# What the fold cannot do without.
_REQUIRED = {
    "CreateFine": "amount",
    "AddPenalty": "amount",
    "SendFine": "expense",
    "Payment": "payment_amount",
}
_TOO_MUCH = Decimal(10) ** 8  # the read model keeps eight digits before the point


class CsvError(Exception):
    """The file cannot be read as events; the message names it, and the line."""


class CsvEvents:
    """The events of a file in its order; each iteration reads the file anew and holds one row at a time.

    An event is stored for good, so a row that the projection could not digest is refused here.

    Args:
        path: of a file with a header; an empty cell stands for an absent value.

    Raises:
        CsvError: at once when the file or its header is unusable, during the iteration for an unusable row.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._rows() as rows:
            missing = set(_OWN_PLACE + _MONEY).difference(rows.fieldnames or ())
        if missing:
            raise CsvError(f"{path} is no CSV file of traffic fines: its first line lacks {', '.join(sorted(missing))}")

    def __iter__(self) -> Iterator[StoredEvent]:
        """Read the events one by one."""
        with self._rows() as rows:
            for row in rows:
                try:
                    event = _event(row)
                except ValueError as error:
                    raise CsvError(f"{self._path}, line {rows.line_num}: {_in_one_line(error)}") from error
                yield event

    def __length_hint__(self) -> int:
        """Return the number of rows, one a line, for a progress bar."""
        with self._path.open("rb") as file:
            return max(sum(1 for _ in file) - 1, 0)

    @contextmanager
    def _rows(self) -> Iterator[csv.DictReader[str]]:
        try:
            with self._path.open(encoding="utf-8-sig", newline="") as file:
                yield csv.DictReader(file)
        except OSError as error:
            raise CsvError(f"cannot read {self._path}: {error.strerror}") from error
        except (UnicodeDecodeError, csv.Error) as error:
            raise CsvError(f"{self._path} is no CSV file: {error}") from error


def event_type(activity: str) -> str:
    """Return an activity's name as one word: 'Add penalty' becomes 'AddPenalty'."""
    return "".join(word[0].upper() + word[1:] for word in activity.split())


def _event(row: dict[str, str]) -> StoredEvent:
    if None in row or None in row.values():
        raise ValueError("it has another number of columns than the first line")
    if any("\0" in value for value in row.values()):
        raise ValueError("it holds a NUL character, which databases do not store")
    name = event_type(row["activity"])
    payload = {column: value for column, value in row.items() if value and column not in _OWN_PLACE}
    for column in _MONEY:
        if column in payload:
            _check_money(column, payload[column])
    if name in _REQUIRED and _REQUIRED[name] not in payload:
        raise ValueError(f"{row['activity']} needs {_REQUIRED[name]}")
    # All cells are text, so they are parsed as well as checked. The version is a claim that the store verifies.
    return StoredEvent.model_validate_strings(
        {
            "event_id": f"fine-{row['event_no']}",
            "aggregate_id": row["case_id"],
            "aggregate_type": "Fine",
            "event_type": name,
            "version": row["version"],
            "payload": payload,
            "occurred_at": row["timestamp"],
        }
    )


def _check_money(column: str, text: str) -> None:
    try:
        amount = Decimal(text)
        fits = amount.is_finite() and abs(amount) < _TOO_MUCH and amount == round(amount, 2)
    except InvalidOperation:
        fits = False
    if not fits:
        raise ValueError(f"{column} is {text!r}: write a number with at most two decimals")


def _in_one_line(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{detail['loc'][0]}: {detail['msg']}" for detail in error.errors())
    return str(error)
