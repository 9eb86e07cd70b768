"""filter= as pymongo users write it -> WHERE."""

from __future__ import annotations

from collections.abc import Collection as Values
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from cqrs_ddd_advanced_core.projections.kinds import ColumnType, Kind
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.values import to_column

if TYPE_CHECKING:
    from collections.abc import Callable

    from cqrs_ddd_persistence_sqlalchemy.advanced.projections.collection import Collection
    from cqrs_ddd_persistence_sqlalchemy.core.dialect import DatabaseDialect

Condition = sa.ColumnElement[bool]

# A column is compared with any value of its kind, also with one that it could not hold: that matches nothing, or all.
_WIDEST = {
    Kind.CHAR: ColumnType(Kind.TEXT),
    Kind.VARCHAR: ColumnType(Kind.TEXT),
    Kind.SMALLINT: ColumnType(Kind.BIGINT),
    Kind.INTEGER: ColumnType(Kind.BIGINT),
    Kind.DECIMAL: ColumnType(Kind.DECIMAL, precision=1000, scale=500),
}
_WIDEST_SQL: dict[Kind, sa.types.TypeEngine[Any]] = {
    Kind.TEXT: sa.Text(),
    Kind.BIGINT: sa.BigInteger(),
    Kind.DECIMAL: sa.Numeric(),
}
_TEXTS = frozenset({Kind.CHAR, Kind.VARCHAR, Kind.TEXT})

# What both databases take with room to spare. SQLite ends at an expression 1000 deep or 100 brackets deep, at 32,766
# parameters and at a pattern of 50,000 bytes, PostgreSQL at 32,767 parameters.
_MAX_CONDITIONS = 500
_MAX_DEPTH = 20
_MAX_VALUES = 30_000
_MAX_PATTERN = 10_000


@dataclass(frozen=True)
class Filter:
    """Reads the filters of one collection.

    Columns equal values, None matches NULL; `$ne`, `$nin` and `$not` match rows with NULL too, as in MongoDB, where a
    missing value is not equal to anything.
    """

    collection: Collection
    dialect: DatabaseDialect

    def where(self, filter_: Mapping[str, Any] | None) -> list[Condition]:
        """Return the conditions of a filter, all of which must hold.

        Raises:
            ValueError: naming an unknown column or operator, or a value that cannot be compared with the column.
        """
        if filter_ is None:
            return []
        if not isinstance(filter_, Mapping):
            raise ValueError(f"filter is a dict of columns and values, not {type(filter_).__name__}")
        _check_size(filter_)
        return self._all(filter_)

    def _all(self, filter_: Mapping[str, Any]) -> list[Condition]:
        return [self._entry(name, value) for name, value in filter_.items()]

    def bound(self, name: str, value: Any) -> sa.BindParameter[Any]:
        """Return a value as it is compared with a column."""
        column_type = self.collection.types[name]
        sql_type: Any = self.collection.table.c[name].type
        if column_type is not None:
            widest = _WIDEST.get(column_type.kind, column_type)
            sql_type = _WIDEST_SQL.get(widest.kind, sql_type)
            column_type = widest
        converted = to_column(name, column_type, value, exact_digits=self.dialect.exact_decimal_digits)
        if column_type is not None and column_type.kind is Kind.DECIMAL and self.dialect.exact_decimal_digits:
            return sa.literal(float(converted), sa.Float())
        return sa.literal(converted, sql_type)

    def _entry(self, name: Any, value: Any) -> Condition:
        if name in {"$and", "$or"}:
            parts = [sa.and_(sa.true(), *self._all(part)) for part in self._filters(name, value)]
            return sa.and_(*parts) if name == "$and" else sa.or_(*parts)
        if name == "$not":
            if not isinstance(value, Mapping):
                raise ValueError(f"$not takes a filter, not {value!r}")
            return _is_not(sa.and_(sa.true(), *self._all(value)))
        if isinstance(name, str) and name.startswith("$"):
            raise self._unknown(name)
        self.collection.column(name)
        return self._compared(name, value)

    def _filters(self, operator: str, value: Any) -> list[Mapping[str, Any]]:
        if isinstance(value, str | Mapping) or not isinstance(value, Values):
            raise ValueError(f"{operator} takes a list of filters, not {value!r}")
        filters = list(value)
        if not filters or not all(isinstance(each, Mapping) for each in filters):
            raise ValueError(f"{operator} takes a list of at least one filter, not {value!r}")
        return filters

    def _compared(self, name: str, value: Any) -> Condition:
        if not isinstance(value, Mapping):
            return self._equal(name, value)
        if not value:
            raise ValueError(f"filter of {self.collection.name!r}: column {name!r} is compared with an empty dict")
        return sa.and_(*(self._operation(name, operator, operand) for operator, operand in value.items()))

    def _operation(self, name: str, operator: Any, operand: Any) -> Condition:
        operation = _OPERATORS.get(operator) if isinstance(operator, str) else None
        if operation is None:
            raise self._unknown(operator, name)
        return operation(self, name, operand)

    def _unknown(self, operator: Any, column: str | None = None) -> ValueError:
        where = f" for column {column!r}" if column else ""
        return ValueError(
            f"filter of {self.collection.name!r}: unknown operator {operator!r}{where}; "
            f"there are {', '.join(_OPERATORS)}, and around them $and, $or, $not"
        )

    def _column(self, name: str) -> sa.Column[Any]:
        column_type = self.collection.types[name]
        if column_type is not None and not column_type.indexable and column_type.kind is not Kind.BYTEA:
            raise ValueError(f"column {name!r} is {column_type}, which is compared with None only")
        return self.collection.table.c[name]

    def _equal(self, name: str, value: Any) -> Condition:
        if value is None:
            return self.collection.table.c[name].is_(None)
        return self._column(name) == self.bound(name, value)

    def _not_equal(self, name: str, value: Any) -> Condition:
        return _is_not(self._equal(name, value))

    def _in(self, name: str, values: Any) -> Condition:
        if isinstance(values, str | bytes | Mapping) or not isinstance(values, Values):
            raise ValueError(f"$in and $nin of column {name!r} take a list, not {values!r}")
        listed = list(values)
        conditions = [self._equal(name, None)] if any(value is None for value in listed) else []
        bound = [self.bound(name, value) for value in listed if value is not None]
        if bound:
            conditions.append(self._column(name).in_(bound))
        return sa.or_(sa.false(), *conditions)

    def _not_in(self, name: str, values: Any) -> Condition:
        return _is_not(self._in(name, values))

    def _ordered(self, name: str, operator: str, value: Any) -> Condition:
        if value is None:
            raise ValueError(f"{operator} of column {name!r} takes a value, not None; use $exists or $ne")
        column, bound = self._column(name), self.bound(name, value)
        comparisons: dict[str, Condition] = {
            "$gt": column > bound, "$gte": column >= bound, "$lt": column < bound, "$lte": column <= bound
        }  # fmt: skip
        return comparisons[operator]

    def _exists(self, name: str, value: Any) -> Condition:
        if not isinstance(value, bool):
            raise ValueError(f"$exists of column {name!r} takes True or False, not {value!r}")
        column = self.collection.table.c[name]
        return column.is_not(None) if value else column.is_(None)

    def _like(self, name: str, pattern: Any) -> Condition:
        column_type = self.collection.types[name]
        if column_type is not None and (column_type.array or column_type.kind not in _TEXTS):
            raise ValueError(f"$like is for text, column {name!r} is {column_type}")
        text = to_column(name, ColumnType(Kind.TEXT), pattern)
        if text is not None and len(text) > _MAX_PATTERN:
            raise ValueError(f"$like of column {name!r} takes a pattern of at most {_MAX_PATTERN} characters")
        if text is None or (len(text) - len(text.rstrip("\\"))) % 2:
            raise ValueError(f"$like of column {name!r} takes a pattern with % and _, not {pattern!r}")
        return self.dialect.like(self.collection.table.c[name], text)

    def _negated(self, name: str, value: Any) -> Condition:
        if not isinstance(value, Mapping):
            raise ValueError(f"$not of column {name!r} takes operators, not {value!r}; use $ne for a value")
        return _is_not(self._compared(name, value))


def _check_size(filter_: Mapping[str, Any]) -> None:
    """Refuse a filter that a database or Python's stack would not take, level by level from the outside in."""
    conditions = values = depth = 0
    level: list[Mapping[str, Any]] = [filter_]
    while level:
        depth += 1
        inner: list[Mapping[str, Any]] = []
        for value in (value for each in level for value in each.values()):
            if isinstance(value, Mapping):
                inner.append(value)
                continue
            conditions += 1
            if isinstance(value, Values) and not isinstance(value, str | bytes):
                values += len(value)
                inner += [each for each in value if isinstance(each, Mapping)]
        if depth > _MAX_DEPTH:
            raise ValueError(f"filter is nested more than {_MAX_DEPTH} levels deep, or contains itself")
        if conditions > _MAX_CONDITIONS:
            raise ValueError(f"filter has more than {_MAX_CONDITIONS} conditions; for one column use $in")
        if values > _MAX_VALUES:
            raise ValueError(f"filter has {values} values in lists, at most {_MAX_VALUES}; ask in parts")
        level = inner


def _is_not(condition: Condition) -> Condition:
    """Negate so that what is neither true nor false, because of a NULL, counts as not true."""
    return condition.is_not(sa.true())


def _comparison(operator: str) -> Callable[[Filter, str, Any], Condition]:
    return lambda filter_, name, value: filter_._ordered(name, operator, value)  # noqa: SLF001  (this module's own)


_OPERATORS: dict[str, Callable[[Filter, str, Any], Condition]] = {
    "$eq": Filter._equal,  # noqa: SLF001  (this module's own, here and below)
    "$ne": Filter._not_equal,  # noqa: SLF001
    "$in": Filter._in,  # noqa: SLF001
    "$nin": Filter._not_in,  # noqa: SLF001
    "$gt": _comparison("$gt"),
    "$gte": _comparison("$gte"),
    "$lt": _comparison("$lt"),
    "$lte": _comparison("$lte"),
    "$like": Filter._like,  # noqa: SLF001
    "$exists": Filter._exists,  # noqa: SLF001
    "$not": Filter._negated,  # noqa: SLF001
}
