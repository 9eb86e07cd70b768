"""The schemas that revisions are written for: one by `-x projection=`, all by `projections =` in the configuration."""

from __future__ import annotations

import importlib
import re
import sys
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic.util import CommandError

from cqrs_ddd_advanced_core.projections.projection import Projection
from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.tables import build_table
from cqrs_ddd_persistence_sqlalchemy.schema.chain import LIBRARY_VERSION_TABLE
from cqrs_ddd_persistence_sqlalchemy.schema.configuration import PROJECTIONS_SETTING, chain_of
from cqrs_ddd_persistence_sqlalchemy.schema.target import LIBRARY_TABLES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import ModuleType

    from alembic.config import Config

RESERVED_TABLES = LIBRARY_TABLES | {LIBRARY_VERSION_TABLE, "alembic_version"}


def load_schema(target: str) -> ProjectionSchema:
    """Import a schema by `package.module:name`.

    Raises:
        CommandError: saying what is wrong with the target.
    """
    option = f"-x projection={target}"
    module_name, colon, name = target.partition(":")
    if not colon or not all(part.isidentifier() for part in [*module_name.split("."), name]):
        raise CommandError(f"{option}: write it as package.module:schema")
    module = _import(module_name, option)
    schema = getattr(module, name, None)
    if not isinstance(schema, ProjectionSchema):
        found = "has no such name" if schema is None else f"has a {type(schema).__name__} there"
        names = [key for key, value in vars(module).items() if isinstance(value, ProjectionSchema)]
        known = f"; its schemas: {', '.join(names)}" if names else ""
        raise CommandError(f"{option}: {module_name} {found}, not a ProjectionSchema{known}")
    check_collection(schema)
    return schema


def registered_schemas(setting: str | list[str]) -> dict[str, ProjectionSchema]:
    """Import all schemas that the modules of `projections =` hold, by collection.

    Schemas count by themselves and in lists, tuples, sets and dicts at the top of a module.

    Args:
        setting: the names of modules, as a list or separated by spaces, line ends or commas.

    Raises:
        CommandError: saying which module cannot be imported, or which schemas are in each other's way.
    """
    found: dict[str, ProjectionSchema] = {}
    for module_name, module in _modules(setting):
        for schema in _schemas_in(module):
            check_collection(schema)
            if found.setdefault(schema.collection, schema) != schema:
                raise CommandError(
                    f"collection {schema.collection!r} has two different schemas, one of them in {module_name}: "
                    "keep one"
                )
    _refuse_clashes(found.values())
    return dict(sorted(found.items()))


def chosen_projections(config: Config, names: list[str]) -> list[Projection]:
    """Return the projections of these names among those that the configuration registers, or all.

    Raises:
        CommandError: there is none, or not one of that name.
    """
    modules = config.get_alembic_option("projections")
    if modules is None:
        raise CommandError(
            f"name the modules that declare your projections in the configuration, as in {PROJECTIONS_SETTING}"
        )
    chain_of(config)  # also lets the modules be found
    found = registered_projections(modules)
    if not found:
        raise CommandError(f"projections = {modules}: no Projection(...) is at the top of these modules")
    unknown = [name for name in names if name not in found]
    if unknown:
        raise CommandError(f"there is no projection {unknown[0]!r}; there are {', '.join(map(repr, found))}")
    return [found[name] for name in names] or list(found.values())


def registered_projections(setting: str | list[str]) -> dict[str, Projection]:
    """Import all projections that the modules of `projections =` hold at their top, by name.

    Raises:
        CommandError: saying which module cannot be imported, or which name two projections share.
    """
    found: dict[str, Projection] = {}
    modules: dict[str, str] = {}
    for module_name, module in _modules(setting):
        for projection in vars(module).values():
            if not isinstance(projection, Projection):
                continue
            other = modules.setdefault(projection.name, module_name)
            if found.setdefault(projection.name, projection) is not projection:
                raise CommandError(
                    f"two projections are called {projection.name!r}, in {other} and in {module_name}: positions are "
                    "kept by name, so give one another name, or leave one out"
                )
    _refuse_shared_tables(found.values())
    return dict(sorted(found.items()))


def _refuse_shared_tables(projections: Iterable[Projection]) -> None:
    owners: dict[str, str] = {}
    for projection in projections:
        other = owners.setdefault(projection.schema.collection, projection.name)
        if other != projection.name:
            raise CommandError(
                f"projections {other!r} and {projection.name!r} share the table {projection.schema.collection!r}: a "
                "rebuild of one would lose the rows of the other; give each a table of its own"
            )


def _modules(setting: str | list[str]) -> Iterator[tuple[str, ModuleType]]:
    names = re.split(r"[\s,]+", setting) if isinstance(setting, str) else setting
    return ((name, _import(name, f"projections = {name}")) for name in names if name)


def check_collection(schema: ProjectionSchema) -> None:
    """Refuse a collection with the name of one of the library's tables.

    Raises:
        CommandError: naming it.
    """
    if schema.collection.lower() in RESERVED_TABLES:
        raise CommandError(f"collection {schema.collection!r} has the name of a table of the library: choose another")


def _import(module_name: str, option: str) -> ModuleType:
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise CommandError(f"{option}: {module_name!r} is not the name of a module; write it as package.module")
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise CommandError(
            f"{option}: there is no module {error.name!r} in {sys.path[0] or 'the current folder'} or "
            "among the installed packages (prepend_sys_path in the configuration says where else to look)"
        ) from error
    except Exception as error:  # the module is the application's: importing it may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise CommandError(f"{option}: importing {module_name} failed: {reason}") from error


def _schemas_in(module: ModuleType) -> Iterator[ProjectionSchema]:
    for value in vars(module).values():
        members: Iterable[Any] = (value,)
        if isinstance(value, dict):
            members = value.values()
        elif isinstance(value, list | tuple | set | frozenset):
            members = value
        for each in members:
            if isinstance(each, ProjectionSchema):
                yield each
            elif isinstance(each, Projection):
                yield each.schema


def _refuse_clashes(schemas: Iterable[ProjectionSchema]) -> None:
    """Tables and indexes share one set of names in a database, in which SQLite tells no upper from lower case."""
    owners: dict[str, str] = {}
    for schema in schemas:
        for name, what in _relations(schema).items():
            owner = f"{what} of collection {schema.collection!r}"
            other = owners.setdefault(name.lower(), owner)
            if other != owner:
                raise CommandError(
                    f"{other} and {owner} would both be called {name!r} in the database: "
                    "rename one (an index with ProjectionIndex(..., name=...))"
                )


def _relations(schema: ProjectionSchema) -> Mapping[str, str]:
    table = build_table(schema, sa.MetaData())
    keys = {str(each.name): "a key" for each in table.constraints}
    return {table.name: "the table"} | keys | {str(each.name): "an index" for each in table.indexes}
