"""A statement compiled once, with what its types do to values on the way to the driver and back."""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy.core.dialect.documents import quick_loads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy.engine import Dialect

# asyncpg's type for numbers asks whether the column is double precision or numeric.
_DOUBLE_OID, _NUMERIC_OID = 701, 1700


class Compiled:
    """A statement as the driver takes it."""

    def __init__(self, statement: Any, dialect: Dialect, spelling: str) -> None:
        compiled: Any = statement.compile(dialect=dialect)
        self.sql: str = compiled.string + spelling
        # Lists in IN (...) and values made in Python are put in as a statement is executed: SQLAlchemy's business.
        prefetched = getattr(compiled, "insert_prefetch", ()) or getattr(compiled, "update_prefetch", ())
        self.is_plain = not compiled.post_compile_params and not prefetched
        if not self.is_plain:
            return
        self._binds = [self._bind(name, compiled.binds[name], dialect) for name in compiled.positiontup]
        columns = statement.exported_columns.items()
        self.names = [str.__str__(name) for name, _ in columns]  # columns of tables have a class of SQLAlchemy's
        self._processors = [(n, _reads(column.type, dialect)) for n, (_, column) in enumerate(columns)]
        self._processors = [(n, process) for n, process in self._processors if process is not None]

    @staticmethod
    def _bind(name: str, bind: sa.BindParameter[Any], dialect: Dialect) -> tuple[str | None, Any, Any]:
        """Return the parameter's name and what converts its value, or None and a value that is always the same."""
        process = bind.type.dialect_impl(dialect).bind_processor(dialect)
        if bind.required:
            return name, process, None
        return None, None, process(bind.value) if process else bind.value

    def many_values(self, columns: Mapping[str, Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """Return what the driver binds for each of some rows, given as the values of each column."""
        count = len(next(iter(columns.values())))
        bound: list[Iterable[Any]] = []
        for name, process, fixed in self._binds:
            if name is None:
                bound.append(repeat(fixed, count))
            else:
                bound.append(columns[name] if process is None else map(process, columns[name]))
        return list(zip(*bound, strict=True))

    def values(self, parameters: Mapping[str, Any]) -> list[Any]:
        """Return what the driver binds."""
        return [
            fixed if name is None else parameters[name] if process is None else process(parameters[name])
            for name, process, fixed in self._binds
        ]

    def read(self, rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """Return the driver's rows as SQLAlchemy's types have them."""
        if not self._processors or not rows:
            return rows
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
        for n, process in self._processors:
            columns[n] = list(map(process, columns[n]))
        return list(zip(*columns, strict=True))


def _reads(type_: sa.types.TypeEngine[Any], dialect: Dialect) -> Any:
    implementation: Any = type_.dialect_impl(dialect)
    underlying = implementation.impl_instance if isinstance(implementation, sa.TypeDecorator) else implementation
    if isinstance(implementation, sa.JSON) and dialect.driver == "aiosqlite":
        process: Any = implementation.result_processor(dialect, None)
        return _document(process, quick_loads(dialect))
    return implementation.result_processor(dialect, _DOUBLE_OID if isinstance(underlying, sa.Float) else _NUMERIC_OID)


def _document(process: Callable[[Any], Any], read: Callable[[str], Any]) -> Callable[[Any], Any]:
    # What is no text, a number by itself, SQLite has kept as that.
    return lambda value: read(value) if type(value) is str else process(value)
