"""What the commands print: tables for people, JSON for scripts, a bar for those who wait."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_WIDEST = 60
_BAR_WIDTH = 30
_SHORT_BAR_WIDTH = 10


def as_table(
    rows: Sequence[Any], columns: Sequence[str], *, computed: Mapping[str, Callable[[Any], str]] | None = None
) -> str:
    """Return dataclasses in columns; long texts are cut.

    Args:
        rows: the dataclasses.
        columns: attributes, or names in `computed`.
        computed: what makes the text of a column from a row.
    """
    computed = computed or {}
    if not rows:
        return "none"
    lines = [[column.replace("_", " ") for column in columns]]
    lines += [
        [computed[column](row) if column in computed else _cell(getattr(row, column)) for column in columns]
        for row in rows
    ]
    widths = [max(len(line[number]) for line in lines) for number in range(len(columns))]
    texts = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(text.rstrip() for text in texts)


def as_bar(done: int, of: int) -> str:
    """Return a bar with the numbers beside it; "-" where nobody knows how much there is."""
    if not of:
        return str(done) if done else "-"
    return _drawn(done, of, _SHORT_BAR_WIDTH)


def say_rows(
    rows: Sequence[Any],
    columns: Sequence[str],
    *,
    as_json: bool,
    computed: Mapping[str, Callable[[Any], str]] | None = None,
) -> None:
    """Print dataclasses: `as_table` for people, JSON for scripts."""
    say(_json(rows) if as_json else as_table(rows, columns, computed=computed))


def say_record(row: Any, *, as_json: bool) -> None:
    """Print one dataclass, whole: lines of name and value for people, a JSON list of it for scripts."""
    say(_json([row]) if as_json else _record(row))


def say(text: str) -> None:
    """Print to standard output."""
    print(text, flush=True)


class Bar:
    """A bar on standard error, where that is a terminal; nothing elsewhere."""

    def __init__(self) -> None:
        self._shows = sys.stderr.isatty()
        self._begun = False

    def show(self, done: int, of: int) -> None:
        """Draw it again; say where it begins, if that is in the middle."""
        if not self._begun and done:
            print(f"going on at position {done}", file=sys.stderr)
        self._begun = True
        if self._shows:
            sys.stderr.write(f"\r{_drawn(done, of, _BAR_WIDTH)}")
            sys.stderr.flush()

    def end(self) -> None:
        """Leave the line."""
        if self._shows:
            sys.stderr.write("\n")


def _json(rows: Sequence[Any]) -> str:
    return json.dumps([asdict(row) for row in rows], default=lambda moment: moment.isoformat(), indent=2)


def _record(row: Any) -> str:
    values = {name: value for name, value in asdict(row).items() if value is not None}
    width = max(len(name) for name in values)
    return "\n".join(f"{name.replace('_', ' ').ljust(width)}  {_whole(value)}" for name, value in values.items())


def _drawn(done: int, of: int, width: int) -> str:
    filled = min(width, width * done // of) if of else width
    return f"[{'#' * filled}{'.' * (width - filled)}] {done:,} of {of:,}"


def _whole(value: Any) -> str:
    match value:
        case datetime():
            return value.isoformat(" ", "seconds")
        case dict() | list():
            return json.dumps(value, ensure_ascii=False)
    return str(value)


def _cell(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.1f}"
        case datetime():
            return value.isoformat(" ", "seconds")
    text = " ".join(str(value).split())
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..."
