"""Entities to models and back, column by column, and the mark that says which version an entity was stored with."""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import sqlalchemy as sa
from pydantic import AliasChoices, AliasPath, BaseModel
from sqlalchemy.orm import Mapper, class_mapper

from cqrs_ddd_persistence_sqlalchemy.core.json_documents import jsonable
from cqrs_ddd_persistence_sqlalchemy.core.models import in_schema

if TYPE_CHECKING:
    from collections.abc import Callable

Model = TypeVar("Model", bound=BaseModel)
T = TypeVar("T")

VERSION = "version"

# In an entity's __dict__: so it is copied and pickled with the entity, and no part of its data.
_MARK = "__stored_version__"


def _of_class(function: Callable[[type], T]) -> Callable[[type], T]:
    """Remember what a function has found out about classes, of which mypy does not know that they are hashable."""
    return lru_cache(maxsize=1024)(function)


class EntityTable:
    """The table of a model, and what its columns are to the entities of a class.

    Attributes:
        table: in the database schema of the repository.
        columns: by attribute of the model; in the database they may have other names.
        key: the primary key's column, and `id_attribute` its attribute.
        has_unique: whether a row may meet another one beside its key.

    Raises:
        TypeError: the model lacks what a repository needs.
    """

    def __init__(self, entity_cls: type, model_cls: type, schema: str | None) -> None:
        mapper: Mapper[Any] = class_mapper(model_cls)
        local: Any = mapper.local_table
        self.table: sa.Table = in_schema(local, schema)
        self.columns: dict[str, sa.Column[Any]] = {
            each.key: self.table.c[each.columns[0].name] for each in mapper.column_attrs
        }
        key = [name for name, column in self.columns.items() if column.primary_key]
        if len(key) != 1 or VERSION not in self.columns:
            raise TypeError(
                f"{model_cls.__name__} needs a primary key of one column and a column {VERSION!r}, an integer"
            )
        self.id_attribute = key[0]
        self.key = self.columns[key[0]]
        unique = [each for each in self.table.constraints if isinstance(each, sa.UniqueConstraint)]
        self.has_unique = bool(unique) or any(index.unique for index in self.table.indexes)
        self._entity_cls = entity_cls
        self._model_cls = model_cls

    def values(self, model: Any) -> dict[str, Any]:
        """Return what the model holds, by attribute; what it was not given is left to the column's default."""
        given = sa.inspect(model).dict
        return {name: given[name] for name in self.columns if name in given and name != VERSION}

    def check_class(self, entity: object) -> None:
        """Refuse an entity of another class.

        Raises:
            TypeError: naming both.
        """
        if type(entity) is not self._entity_cls:
            raise TypeError(
                f"this repository stores {self._entity_cls.__name__}, not {type(entity).__name__}: what a subclass "
                "adds would be lost"
            )

    def refuse_loss(self) -> None:
        """Refuse a class with fields that no column stores.

        Raises:
            TypeError: naming them.
        """
        lost = sorted(field_names(self._entity_cls) - {VERSION} - self.columns.keys())
        if lost:
            raise TypeError(
                f"{self._model_cls.__name__} has no column for {', '.join(lost)} of {self._entity_cls.__name__}: add "
                "them, or override to_model and from_model"
            )


def stored_version(entity: Any) -> int | None:
    """Return the version that an entity was loaded or last saved with; None for one that is new.

    Without a mark, a public version from 1 on is taken for it: so comes an entity that another process has sent.
    """
    values = vars(entity)
    mark: int | None = values.get(_MARK)
    if mark is not None:
        return mark
    # Asking pydantic for an attribute that is not there costs more than all the rest.
    public = values.get(VERSION) if VERSION in values or not _has_version(type(entity)) else getattr(entity, VERSION)
    return public if isinstance(public, int) and not isinstance(public, bool) and public >= 1 else None


def stamp(entity: Any, version: int) -> tuple[int | None, Any]:
    """Mark an entity as stored with a version, which its public one becomes too; return what was there before."""
    values = vars(entity)
    before = values.get(_MARK), values.get(VERSION)
    values[_MARK] = version
    if VERSION in field_names(type(entity)):
        values[VERSION] = version
    return before


def restore(entity: Any, before: tuple[int | None, Any]) -> None:
    """Take a stamp back."""
    values = vars(entity)
    mark, public = before
    if mark is None:
        values.pop(_MARK, None)
    else:
        values[_MARK] = mark
    if VERSION in field_names(type(entity)):
        values[VERSION] = public


@_of_class
def _has_version(entity_cls: type) -> bool:
    """Tell whether a class says what the public version of its objects is, by a property or as a constant."""
    return any(VERSION in vars(base) for base in entity_cls.__mro__)


@_of_class
def field_names(entity_cls: type) -> frozenset[str]:
    """Return the names of an entity's fields: of a pydantic model, a dataclass, or any class with annotations."""
    if issubclass(entity_cls, BaseModel):
        return frozenset(entity_cls.model_fields)
    return frozenset(name for base in entity_cls.__mro__ for name in getattr(base, "__annotations__", {}))


def column_value(column: sa.Column[Any], value: Any, name: str) -> Any:
    """Return what to bind for an entity's value.

    Raises:
        ValueError: naming what JSON cannot hold.
    """
    if value is None:
        return None
    if _is_json(column.type):
        return jsonable(value, name)
    if isinstance(value, Enum) and not isinstance(column.type, sa.Enum):
        return value.value
    return value


def make_entity(entity_cls: type, values: dict[str, Any]) -> Any:
    """Make an entity of stored values: JSON's lists and texts become what the fields say."""
    return validated(entity_cls, values) if issubclass(entity_cls, BaseModel) else entity_cls(**values)


def dumped(entity: BaseModel, *, exclude: set[str]) -> dict[str, Any]:
    """Return an entity's fields in the form of JSON, by their names, whatever aliases they have.

    Models within it are written with their aliases, by which they are read again; computed fields are left out.
    """
    values = entity.model_dump(mode="json", by_alias=True, round_trip=True, exclude=exclude)
    names = _aliases(type(entity)).written
    return {names.get(key, key): value for key, value in values.items()} if names else values


def validated(entity_cls: type[Model], values: dict[str, Any]) -> Model:
    """Make a model of what `dumped` returned."""
    keys = _aliases(entity_cls).read
    named = {keys.get(name, name): value for name, value in values.items()} if keys else values
    return entity_cls.model_validate(named, strict=False)


class _Aliases(NamedTuple):
    """What a class calls its fields in JSON.

    Attributes:
        written: the field by the name it is written with, where that is another.
        read: the name it is read by, where that is another.
    """

    written: dict[str, str]
    read: dict[str, str]


@lru_cache(maxsize=1024)
def _aliases(entity_cls: type[BaseModel]) -> _Aliases:
    fields = entity_cls.model_fields
    written = {each.serialization_alias: name for name, each in fields.items() if each.serialization_alias}
    keys = {name: _validation_key(name, each.validation_alias) for name, each in fields.items()}
    return _Aliases(written, {name: key for name, key in keys.items() if key != name})


def _validation_key(name: str, alias: str | AliasPath | AliasChoices | None) -> str:
    if isinstance(alias, AliasChoices):
        alias = next((choice for choice in alias.choices if isinstance(choice, str)), None)
    return alias if isinstance(alias, str) else name


def _is_json(type_: sa.types.TypeEngine[Any]) -> bool:
    return isinstance(type_, sa.JSON) or (isinstance(type_, sa.TypeDecorator) and isinstance(type_.impl, sa.JSON))
