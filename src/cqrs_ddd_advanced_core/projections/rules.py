"""What a collection and its columns may be called, and which columns make its key."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from cqrs_ddd_advanced_core.exceptions import SchemaError
from cqrs_ddd_advanced_core.identifiers import RULE, check_identifier
from cqrs_ddd_advanced_core.projections.column_types import ColumnSpec, Kind, parse_column

MAX_COLUMNS = 1000  # PostgreSQL ends at 1600 or at 8 kB a row, SQLite at 2000
MAX_KEY_COLUMNS = 32  # PostgreSQL's limit for one index

_RESERVED_PREFIXES = {
    "sqlite_": "SQLite keeps names that begin with sqlite_ for itself",
    "pg_": "PostgreSQL looks for names that begin with pg_ among its own catalogues first",
}
_ROW_PROPOSED = "excluded"  # in ON CONFLICT DO UPDATE, where a table of that name cannot be told from it
_SYSTEM_COLUMNS = {
    **dict.fromkeys(
        ("ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"),
        "every PostgreSQL table has a system column of that name",
    ),
    "oid": "SQLite calls the row id so, and PostgreSQL did so up to version 11",
}
# The store counts and compares in these, so that only types that can hold a count or an id will do.
_HOUSEKEEPING = {
    "_version": (Kind.SMALLINT, Kind.INTEGER, Kind.BIGINT),
    "_last_event_id": (Kind.VARCHAR, Kind.TEXT),
    "_last_event_position": (Kind.BIGINT,),
}


def check_collection(name: object) -> str:
    """Return the name if a table may be called so.

    Raises:
        SchemaError: it is no identifier, begins like a database's own tables, or means something else in an upsert.
    """
    try:
        checked = check_identifier(name, kind="table")
    except ValueError as error:
        raise SchemaError(f"{error}; {RULE}") from None
    for prefix, reason in _RESERVED_PREFIXES.items():
        if checked.lower().startswith(prefix):
            raise SchemaError(f"Invalid SQL table name: {name!r}; {reason}")
    if checked.lower() == _ROW_PROPOSED:
        raise SchemaError(f"Invalid SQL table name: {name!r}; SQL calls the row of an upsert so")
    return checked


def check_fields(collection: str, fields: object) -> list[tuple[str, str]]:
    """Return the fields as pairs whose first halves are names of columns, each used once.

    Raises:
        SchemaError: no fields, too many, not pairs, or a name that no column can have.
    """
    if isinstance(fields, str | Mapping) or not isinstance(fields, Iterable):
        raise SchemaError(f"collection {collection!r}: fields is a list of (name, definition) pairs, not {fields!r}")
    pairs: list[tuple[str, str]] = []
    for field in fields:
        if not isinstance(field, Sequence) or isinstance(field, str) or len(field) != 2:  # noqa: PLR2004  a pair
            raise SchemaError(f"collection {collection!r}: a field is a (name, definition) pair, not {field!r}")
        pairs.append((field[0], field[1]))
    if not 1 <= len(pairs) <= MAX_COLUMNS:
        raise SchemaError(f"collection {collection!r} has {len(pairs)} fields; it may have 1 to {MAX_COLUMNS}")
    seen: dict[str, str] = {}
    for name, _ in pairs:
        _check_column_name(collection, name)
        if other := seen.get(name.lower()):
            raise SchemaError(
                f"collection {collection!r}: column {name!r} is there twice, before as {other!r}; "
                "SQLite takes names that differ in case only for one"
            )
        seen[name.lower()] = name
    return pairs


def read_columns(
    pairs: Sequence[tuple[str, str]], primary_key: object
) -> tuple[tuple[ColumnSpec, ...], tuple[str, ...]]:
    """Parse the fields and settle the key.

    Args:
        pairs: what `check_fields` returned.
        primary_key: None for the PRIMARY KEY fields in their order, else a name, or names in the key's order.

    Returns:
        The columns in the order of the fields, those of the key marked as such, and the key's names in order.

    Raises:
        SchemaError: a definition cannot be read, or there is no key, or it contradicts the definitions.
    """
    columns = {name: parse_column(name, definition) for name, definition in pairs}
    key = tuple(name for name, column in columns.items() if column.primary_key)
    if primary_key is not None:
        named = _key_names(primary_key, columns)
        if key and set(key) != set(named):
            raise SchemaError(f"primary_key={list(named)!r} contradicts the PRIMARY KEY fields {list(key)!r}")
        key = named
    if not 1 <= len(key) <= MAX_KEY_COLUMNS:
        raise SchemaError(
            f"its primary key has {len(key)} columns, it takes 1 to {MAX_KEY_COLUMNS}; "
            "mark a field PRIMARY KEY, or pass primary_key=[...]"
        )
    for name, definition in pairs:
        if name in key and not columns[name].primary_key:
            columns[name] = parse_column(name, f"{definition} PRIMARY KEY")
        _check_housekeeping(columns[name])
    if len(key) == 1:
        # A key of one column is unique by itself; the same table either way, so the same schema.
        columns[key[0]] = replace(columns[key[0]], unique=False)
    return tuple(columns.values()), key


def _check_column_name(collection: str, name: object) -> None:
    try:
        checked = check_identifier(name, kind="column")
    except ValueError as error:
        raise SchemaError(f"{error} in collection {collection!r}; {RULE}") from None
    if checked in _SYSTEM_COLUMNS:
        raise SchemaError(f"Invalid SQL column name: {name!r} in collection {collection!r}; {_SYSTEM_COLUMNS[checked]}")


def _key_names(primary_key: object, columns: Mapping[str, ColumnSpec]) -> tuple[str, ...]:
    if isinstance(primary_key, str):
        primary_key = [primary_key]
    if not isinstance(primary_key, Iterable):
        raise SchemaError(f"primary_key is a list of columns, not {primary_key!r}")
    names = tuple(primary_key)
    for name in names:
        if not isinstance(name, str) or name not in columns:
            raise SchemaError(f"primary_key names an unknown column {name!r}; there are {', '.join(columns)}")
        if names.count(name) > 1:
            raise SchemaError(f"primary_key names the column {name!r} twice")
    return names


def _check_housekeeping(column: ColumnSpec) -> None:
    wanted = _HOUSEKEEPING.get(column.name)
    if wanted and (column.type.array or column.type.kind not in wanted):
        raise SchemaError(f"column {column.name!r} must be {' or '.join(wanted)}, not {column.type}")
