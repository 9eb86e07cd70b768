"""Conditions of partial indexes: one column against one constant, so that no SQL can hide in them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from cqrs_ddd_advanced_core.exceptions import SchemaError
from cqrs_ddd_advanced_core.projections.column_types import ColumnSpec
from cqrs_ddd_advanced_core.projections.literals import fit, plain

_SCALARS = (str, int, Decimal, date, time, UUID)


@dataclass(frozen=True)
class Condition:
    """One column compared with one constant.

    Attributes:
        column: the column's name.
        value: the constant; None compares with NULL.
        negated: False for 'equals' (or IS NULL), True for 'differs from' (or IS NOT NULL).
    """

    column: str
    value: Any
    negated: bool = False

    def fitted(self, column: ColumnSpec) -> "Condition":
        """Return the condition with its constant in the form that such a column keeps.

        Raises:
            SchemaError: the constant does not fit, or no constant can be compared with that column.
        """
        if self.value is None:
            return self
        if not column.type.indexable or column.type.inexact:
            raise SchemaError(f"where: column {column.name!r} is {column.type}, which is compared with None only")
        try:
            return replace(self, value=fit(column.type, self.value))
        except SchemaError as error:
            raise SchemaError(f"where: column {column.name!r}: {error}") from None


def read_where(where: object) -> tuple[Condition, ...]:
    """Read {column: value}, {column: None} and {column: {"$ne": ...}}, or conditions that were read before.

    Returns:
        The conditions by column; none for None.

    Raises:
        SchemaError: it has another shape, or two conditions for one column.
    """
    if where is None:
        return ()
    if isinstance(where, Mapping):
        found = [_condition(column, value) for column, value in where.items()]
    elif isinstance(where, tuple) and all(isinstance(each, Condition) for each in where):
        found = [_condition(each.column, _as_filter(each)) for each in where]
    else:
        raise SchemaError(f"where is a mapping of columns to values, not {where!r}")
    if len({condition.column for condition in found}) < len(found):
        raise SchemaError("where has two conditions for one column")
    return tuple(sorted(found, key=lambda condition: condition.column))


def write_where(conditions: Iterable[Condition]) -> dict[str, Any] | None:
    """Return the mapping that `read_where` takes, made of what JSON can hold; None for no conditions."""
    return {each.column: _as_filter(replace(each, value=plain(each.value))) for each in conditions} or None


def _as_filter(condition: Condition) -> object:
    return {"$ne": condition.value} if condition.negated else condition.value


def _condition(column: object, value: object) -> Condition:
    negated = isinstance(value, Mapping) and list(value) == ["$ne"]
    constant = value["$ne"] if negated and isinstance(value, Mapping) else value
    if not isinstance(column, str) or not (constant is None or isinstance(constant, _SCALARS)):
        raise SchemaError(f"where takes a value, None or {{'$ne': ...}} for a column, not {column!r}: {value!r}")
    return Condition(column, constant, negated)
