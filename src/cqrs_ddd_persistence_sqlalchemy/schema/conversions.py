"""Which column types can become which, what that may cost, and what rows would not survive it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cqrs_ddd_advanced_core.projections.kinds import INTEGER_BITS, ColumnType, Kind

_TEXTS = frozenset({Kind.VARCHAR, Kind.TEXT})


@dataclass(frozen=True)
class Conversion:
    """How a column's values become values of another type.

    Attributes:
        misfit: an SQL condition, {column} for the column, that is true for rows whose value the new type does not
            hold as it is; None where every value of the old type fits.
        sqlite_misfit: the same for SQLite, where it differs.
        using: what PostgreSQL is told to convert with, {column} and {type} for names; None where it knows by itself.
    """

    misfit: str | None = None
    sqlite_misfit: str | None = None
    using: str | None = None


def conversion(old: ColumnType, new: ColumnType) -> Conversion | None:
    """Return how values of one column type become values of another, exactly and alike on both databases.

    Returns:
        None where there is no such way. A cast would then round, cut, or depend on the session or the database: JSON,
        UUID and times are stored in different forms.
    """
    old, new = old.stored, new.stored
    if old.array or new.array:
        return _of_arrays(old, new)
    if old.kind in _TEXTS and new.kind in _TEXTS:
        return _too_long(old, new)
    if old.kind in INTEGER_BITS:
        return _from_integer(old, new)
    if old.kind is Kind.DECIMAL:
        return _from_decimal(old, new)
    return _from_others(old, new)


def _from_others(old: ColumnType, new: ColumnType) -> Conversion | None:
    if old.kind in _TEXTS and new.kind in INTEGER_BITS:
        return Conversion(
            misfit="{column} IS NOT NULL AND CASE WHEN {column} ~ '^(0|-?[1-9][0-9]*)$'"
            f" THEN CAST({{column}} AS NUMERIC) NOT {_range(new.kind)} ELSE TRUE END",
            sqlite_misfit="CAST(CAST({column} AS INTEGER) AS TEXT) <> {column}"
            f" OR CAST({{column}} AS INTEGER) NOT {_range(new.kind)}",
            using="{column}::{type}",
        )
    if old.kind is Kind.BOOLEAN and new.kind in INTEGER_BITS:
        return Conversion(using="{column}::INTEGER")
    return None


def _of_arrays(old: ColumnType, new: ColumnType) -> Conversion | None:
    """Elements cannot be looked at one by one in the same words on both databases, so all of them have to fit."""
    kinds = {old.kind, new.kind}
    if not (old.array and new.array and (kinds <= _TEXTS or kinds <= set(INTEGER_BITS))):
        return None
    of_elements = conversion(replace(old, array=False), replace(new, array=False))
    return of_elements if of_elements == Conversion() else None


def _too_long(old: ColumnType, new: ColumnType) -> Conversion:
    if new.length is None or (old.length is not None and old.length <= new.length):
        return Conversion()
    return Conversion(misfit=f"length({{column}}) > {new.length}")


def _from_integer(old: ColumnType, new: ColumnType) -> Conversion | None:
    if new.kind in INTEGER_BITS:
        fits = INTEGER_BITS[old.kind] <= INTEGER_BITS[new.kind]
        return Conversion(None if fits else f"{{column}} NOT {_range(new.kind)}")
    if new.kind is Kind.DECIMAL:
        fits = 2 ** INTEGER_BITS[old.kind] < 10 ** _whole_digits(new)
        return Conversion(None if fits else _too_large(new))
    if new.kind in _TEXTS:
        fits = new.length is None or len(str(-(2 ** INTEGER_BITS[old.kind]))) <= new.length
        return Conversion(None if fits else f"length(CAST({{column}} AS TEXT)) > {new.length}")
    if new.kind is Kind.BOOLEAN:
        return Conversion("{column} NOT IN (0, 1)", using="{column}::INTEGER::BOOLEAN")
    return None


def _from_decimal(old: ColumnType, new: ColumnType) -> Conversion | None:
    if new.kind in INTEGER_BITS:
        return Conversion(f"{{column}} <> round({{column}}) OR {{column}} NOT {_range(new.kind)}")
    if new.kind is not Kind.DECIMAL:
        return None
    misfits = []
    if (new.scale or 0) < (old.scale or 0):
        misfits.append(f"{{column}} <> round({{column}}, {new.scale})")
    if _whole_digits(new) < _whole_digits(old):
        misfits.append(_too_large(new))
    return Conversion(" OR ".join(misfits) or None)


def _whole_digits(decimal: ColumnType) -> int:
    return (decimal.precision or 0) - (decimal.scale or 0)


def _too_large(decimal: ColumnType) -> str:
    return f"abs({{column}}) >= 1{'0' * _whole_digits(decimal)}"


def _range(kind: Kind) -> str:
    bits = INTEGER_BITS[kind]
    return f"BETWEEN {-(2**bits)} AND {2**bits - 1}"
