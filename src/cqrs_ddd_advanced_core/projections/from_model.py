"""Column definitions from the fields of a pydantic model."""

import types
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    Union,
    get_args,
    get_origin,
)
from uuid import UUID

from pydantic import AwareDatetime, BaseModel
from pydantic.fields import FieldInfo

from cqrs_ddd_advanced_core.exceptions import SchemaError
from cqrs_ddd_advanced_core.projections.kinds import MAX_LENGTH, ColumnType, Kind

_KINDS: Mapping[object, Kind] = {
    bool: Kind.BOOLEAN,
    int: Kind.BIGINT,
    float: Kind.DOUBLE,
    datetime: Kind.TIMESTAMP,
    AwareDatetime: Kind.TIMESTAMP,
    date: Kind.DATE,
    time: Kind.TIME,
    UUID: Kind.UUID,
    bytes: Kind.BYTEA,
}
_JSON = ColumnType(Kind.JSON)


class _Hint(NamedTuple):
    """An annotation without its wrappers: the bare type, whether it may be None, what Annotated said."""

    type: Any
    nullable: bool
    metadata: tuple[object, ...]


def definitions_from_model(model: type[BaseModel]) -> list[tuple[str, str]]:
    """Return one (column name, definition) pair for each key that `model_dump(by_alias=True)` writes.

    A column is called like the field's alias if there is one, the serialization alias first. Optional fields
    are nullable, all others NOT NULL. Excluded fields have no column, computed ones do. A field's default is
    not made the column's: rows are written with all fields of the model, and two defaults would drift apart.

    Raises:
        SchemaError: not a complete pydantic model, or a field whose type says too little; the field is named.
    """
    if not isinstance(model, type) or not issubclass(model, BaseModel):
        raise SchemaError(f"from_model takes a pydantic model class, not {model!r}")
    if not model.__pydantic_complete__:
        model.model_rebuild(raise_errors=False)
    if not model.__pydantic_complete__:
        raise SchemaError(f"{model.__name__} refers to types that are not defined yet; call model_rebuild() later")
    pairs: list[tuple[str, str]] = []
    for name, alias, annotation, metadata in _written_fields(model):
        try:
            hint = _unwrap(annotation, metadata)
            column_type = _column_type(hint)
        except SchemaError as error:
            raise SchemaError(f"field {name!r} of {model.__name__}: {error}") from None
        pairs.append((alias, f"{column_type} {'NULL' if hint.nullable else 'NOT NULL'}"))
    return pairs


def _written_fields(model: type[BaseModel]) -> Iterator[tuple[str, str, object, tuple[object, ...]]]:
    for name, field in model.model_fields.items():
        if not field.exclude:
            yield (
                name,
                field.serialization_alias or field.alias or name,
                field.annotation,
                tuple(field.metadata),
            )
    for name, computed in model.model_computed_fields.items():
        yield name, computed.alias or name, computed.return_type, ()


def _unwrap(annotation: object, metadata: tuple[object, ...] = ()) -> _Hint:
    """Take off Annotated, NewType, type aliases and Optional, from the outside in."""
    nullable = False
    while True:
        arguments = get_args(annotation)
        if get_origin(annotation) is Annotated:
            annotation, metadata = arguments[0], (*metadata, *_flattened(arguments[1:]))
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        elif hasattr(annotation, "__value__"):
            annotation = annotation.__value__
        elif get_origin(annotation) in {Union, types.UnionType} and type(None) in arguments:
            nullable = True
            annotation = Union[tuple(each for each in arguments if each is not type(None))]  # noqa: UP007  built from a tuple
        elif get_origin(annotation) is Literal and None in arguments:
            nullable = True
            annotation = Literal[tuple(each for each in arguments if each is not None)]
        else:
            return _Hint(annotation, nullable, metadata)


def _flattened(metadata: tuple[object, ...]) -> Iterator[object]:
    for each in metadata:
        yield from each.metadata if isinstance(each, FieldInfo) else (each,)


def _column_type(hint: _Hint) -> ColumnType:
    found = _scalar_type(hint) or _document_type(hint)
    if found is None:
        raise SchemaError(f"no column type for {hint.type!r}; build the schema from fields=[...] instead")
    return found


def _scalar_type(hint: _Hint) -> ColumnType | None:
    if hint.type is str:
        return _text_type(hint.metadata)
    if hint.type is Decimal:
        return _decimal_type(hint.metadata)
    if get_origin(hint.type) is Literal:
        return ColumnType(Kind.TEXT) if all(isinstance(each, str) for each in get_args(hint.type)) else None
    if isinstance(hint.type, type) and issubclass(hint.type, Enum):
        return _enum_type(hint.type)
    kind = _KINDS.get(hint.type) if isinstance(hint.type, type) else None
    return ColumnType(kind) if kind else None


def _text_type(metadata: tuple[object, ...]) -> ColumnType:
    limits = [limit for each in metadata if isinstance(limit := getattr(each, "max_length", None), int)]
    if limits and 1 <= min(limits) <= MAX_LENGTH:
        return ColumnType(Kind.VARCHAR, length=min(limits))
    return ColumnType(Kind.TEXT)


def _decimal_type(metadata: tuple[object, ...]) -> ColumnType:
    digits = [limit for each in metadata if isinstance(limit := getattr(each, "max_digits", None), int)]
    places = [limit for each in metadata if isinstance(limit := getattr(each, "decimal_places", None), int)]
    if not digits or not places:
        raise SchemaError("a Decimal needs Field(max_digits=..., decimal_places=...), so that no digit is lost")
    return ColumnType(Kind.DECIMAL, precision=min(digits), scale=min(places))


def _enum_type(enum: type[Enum]) -> ColumnType:
    if issubclass(enum, str):
        return ColumnType(Kind.TEXT)
    if issubclass(enum, int):
        return ColumnType(Kind.BIGINT)
    raise SchemaError(f"{enum.__name__} is neither a StrEnum nor an IntEnum")


def _document_type(hint: _Hint) -> ColumnType | None:
    origin = get_origin(hint.type) or hint.type
    if origin is list:
        return _list_type(get_args(hint.type))
    if isinstance(origin, type) and issubclass(origin, (dict, BaseModel)):  # a TypedDict is a dict as well
        return _JSON
    return None


def _list_type(arguments: tuple[object, ...]) -> ColumnType:
    """Return an array for a list of one scalar type, JSON for any other list."""
    item = _unwrap(arguments[0]) if arguments else _Hint(Any, nullable=True, metadata=())
    scalar = _scalar_type(item)
    if scalar is None or item.nullable:
        return _JSON
    return ColumnType(scalar.kind, scalar.length, scalar.precision, scalar.scale, array=True)
