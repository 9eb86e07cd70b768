"""ProjectionSchema: the table of one read model as plain data."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from pydantic import BaseModel

from cqrs_ddd_advanced_core.exceptions import SchemaError
from cqrs_ddd_advanced_core.projections.column_types import ColumnSpec
from cqrs_ddd_advanced_core.projections.from_model import definitions_from_model
from cqrs_ddd_advanced_core.projections.indexes import ProjectionIndex, resolve_indexes
from cqrs_ddd_advanced_core.projections.rules import check_collection, check_fields, read_columns

IndexLike = ProjectionIndex | str | Sequence[str] | Mapping[str, Any]
"""What stands for an index: one column, several, or the whole description."""


@dataclass(frozen=True, init=False)
class ProjectionSchema:
    """The collection's name, columns, key and indexes, checked and brought into one spelling.

    Two schemas are equal when they say the same, however it was written: `decimal(10,2)` is `NUMERIC(10, 2)`,
    a PRIMARY KEY field is `primary_key=[...]`.

    Attributes:
        collection: the table's name.
        fields: (name, canonical definition) pairs in the order given.
        indexes: with names, and with predicates in the types of their columns.
        primary_key: the key's columns in the key's order.
        columns: the fields as parsed, in the same order.
    """

    collection: str
    fields: tuple[tuple[str, str], ...]
    indexes: tuple[ProjectionIndex, ...]
    primary_key: tuple[str, ...]
    columns: tuple[ColumnSpec, ...] = field(init=False, repr=False, compare=False)

    def __init__(
        self,
        collection: str,
        fields: Iterable[Sequence[str]],
        indexes: Iterable[IndexLike] = (),
        primary_key: str | Iterable[str] | None = None,
    ) -> None:
        """Read the definitions; nothing is left to be found wrong later.

        Args:
            collection: the table's name.
            fields: (name, "SQL type and options") pairs; `projections.column_types` has the grammar.
            indexes: column names, tuples of them, or ProjectionIndex objects.
            primary_key: names in the key's order; needed when no field is marked PRIMARY KEY.

        Raises:
            SchemaError: what cannot be made a table on both databases; collection and column are named.
        """
        check_collection(collection)
        pairs = check_fields(collection, fields)
        try:
            columns, key = read_columns(pairs, primary_key)
            resolved = resolve_indexes(collection, columns, indexes)
        except SchemaError as error:
            raise SchemaError(f"collection {collection!r}: {error}") from None
        object.__setattr__(self, "collection", collection)
        object.__setattr__(self, "fields", tuple((column.name, column.definition) for column in columns))
        object.__setattr__(self, "indexes", resolved)
        object.__setattr__(self, "primary_key", key)
        object.__setattr__(self, "columns", columns)

    @classmethod
    def from_model(
        cls,
        model: type[BaseModel],
        *,
        collection: str,
        primary_key: str | Iterable[str],
        indexes: Iterable[IndexLike] = (),
    ) -> Self:
        """Make the schema of a table that holds what `model_dump(by_alias=True)` writes.

        str becomes TEXT, or VARCHAR(n) with a max_length; int BIGINT, float DOUBLE PRECISION, Decimal
        DECIMAL(p, s) from max_digits and decimal_places; bool, datetime, date, time, UUID and bytes their
        counterparts; enums and Literals of strings TEXT; lists of those arrays; dicts, models and other lists
        JSONB. Optional fields may be NULL, all others may not. Defaults stay the model's own.

        Args:
            model: a pydantic model class.
            collection: the table's name.
            primary_key: the column, or the columns in the key's order, by alias where the field has one.
            indexes: as for the class itself.

        Raises:
            SchemaError: as for the class itself, or a field whose type says too little about its column.
        """
        check_collection(collection)
        try:
            fields = definitions_from_model(model)
        except SchemaError as error:
            raise SchemaError(f"collection {collection!r}: {error}") from None
        return cls(collection, fields, indexes, primary_key)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Make the schema that `to_dict` described.

        Raises:
            SchemaError: a key is missing or unknown, or the schema is refused.
        """
        if not isinstance(data, Mapping):
            raise SchemaError(f"a schema is a mapping with collection, fields and so on, not {data!r}")
        unknown = set(data) - {"collection", "fields", "indexes", "primary_key"}
        if unknown or not {"collection", "fields"} <= set(data):
            keys = sorted(map(str, data))
            raise SchemaError(f"a schema has collection, fields, and maybe indexes and primary_key, not {keys}")
        return cls(**data)

    @property
    def key(self) -> tuple[str, ...]:
        """The names of the primary key's columns in the key's order."""
        return self.primary_key

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change exactly when the table would.

        The order of columns and of indexes does not count: a column that a migration adds ends up last,
        wherever the schema lists it. The order of the key's columns does. CHAR(n) and VARCHAR(n) make the
        same table, and so do REAL and DOUBLE PRECISION.
        """
        canonical = [
            self.collection,
            sorted((each.name, replace(each, type=each.type.stored).definition) for each in self.columns),
            self.primary_key,
            sorted((index.to_dict() for index in self.indexes), key=lambda index: str(index["name"])),
        ]
        text = json.dumps(canonical, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def column(self, name: str) -> ColumnSpec:
        """Return the column of that name.

        Raises:
            SchemaError: there is none.
        """
        for column in self.columns:
            if column.name == name:
                return column
        names = ", ".join(column.name for column in self.columns)
        raise SchemaError(f"collection {self.collection!r} has no column {name!r}; there are {names}")

    def to_dict(self) -> dict[str, Any]:
        """Return the schema as data that JSON can hold; `from_dict` makes an equal one of it."""
        return {
            "collection": self.collection,
            "fields": [list(pair) for pair in self.fields],
            "indexes": [index.to_dict() for index in self.indexes],
            "primary_key": list(self.primary_key),
        }
