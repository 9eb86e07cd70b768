"""A ProjectionSchema becomes the DDL of a revision."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic.operations import ops
from alembic.util import CommandError

from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.tables import build_table
from cqrs_ddd_persistence_sqlalchemy.core.models import NAMING_CONVENTION
from cqrs_ddd_persistence_sqlalchemy.schema.chain import LIBRARY_VERSION_TABLE
from cqrs_ddd_persistence_sqlalchemy.schema.rendering import render_item
from cqrs_ddd_persistence_sqlalchemy.schema.source import finished
from cqrs_ddd_persistence_sqlalchemy.schema.target import LIBRARY_TABLES

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    from cqrs_ddd_persistence_sqlalchemy.schema.settings import Settings

RESERVED_TABLES = LIBRARY_TABLES | {LIBRARY_VERSION_TABLE, "alembic_version"}


class ProjectionRevision:
    """Fills the revision that Alembic is about to write.

    Args:
        settings: of the run; `projection` names the schema.
        script: the chain that the revision becomes part of.

    Attributes:
        options: what `context.configure` needs for it.
    """

    def __init__(self, settings: Settings, script: ScriptDirectory) -> None:
        self._settings = settings
        self._script = script
        self._collections: list[str] = []
        self.options: dict[str, Any] = {
            "process_revision_directives": self._fill,
            "template_args": {"projections": self._collections, "finished": finished},
            "render_item": render_item,
        }

    def _fill(self, _context: MigrationContext, _revision: object, directives: list[Any]) -> None:
        if self._settings.projection is not None:
            self._create(directives[0], load_schema(self._settings.projection))
        elif self._settings.command == "autogenerate" and directives[0].upgrade_ops.is_empty():
            directives.clear()  # nothing has changed: no file

    def _create(self, directive: ops.MigrationScript, schema: ProjectionSchema) -> None:
        check_collection(schema)
        self._refuse_second_creation(schema)
        table = build_table(schema, sa.MetaData(naming_convention=NAMING_CONVENTION))
        create: list[ops.MigrateOperation] = [ops.CreateTableOp.from_table(table)]
        create += [ops.CreateIndexOp.from_index(index) for index in sorted(table.indexes, key=lambda i: str(i.name))]
        drop: list[ops.MigrateOperation] = [ops.DropTableOp(table.name)]
        directive.upgrade_ops = ops.UpgradeOps(create)
        directive.downgrade_ops = ops.DowngradeOps(drop)
        self._collections.append(schema.collection)

    def _refuse_second_creation(self, schema: ProjectionSchema) -> None:
        for revision in self._script.walk_revisions():
            if schema.collection in getattr(revision.module, "projections", ()):
                raise CommandError(
                    f"collection {schema.collection!r} has its revision already: {revision.revision} "
                    f'({revision.path}). Change the table with a revision written by hand: alembic revision -m "..."'
                )


def load_schema(target: str) -> ProjectionSchema:
    """Import a schema by `package.module:name`.

    Raises:
        CommandError: saying what is wrong with the target.
    """
    module_name, colon, name = target.partition(":")
    parts = [*module_name.split("."), name]
    if not colon or not all(part.isidentifier() for part in parts):
        raise CommandError(f"-x projection={target}: write it as package.module:schema")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise CommandError(
            f"-x projection={target}: there is no module {error.name!r} in {sys.path[0] or 'the current folder'} or "
            "among the installed packages (prepend_sys_path in alembic.ini says where modules are looked for)"
        ) from error
    except Exception as error:  # the module is the application's: importing it may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise CommandError(f"-x projection={target}: importing {module_name} failed: {reason}") from error
    schema = getattr(module, name, None)
    if not isinstance(schema, ProjectionSchema):
        found = "has no such name" if schema is None else f"has a {type(schema).__name__} there"
        names = [key for key, value in vars(module).items() if isinstance(value, ProjectionSchema)]
        known = f"; its schemas: {', '.join(names)}" if names else ""
        raise CommandError(f"-x projection={target}: {module_name} {found}, not a ProjectionSchema{known}")
    return schema


def check_collection(schema: ProjectionSchema) -> None:
    """Refuse a collection with the name of one of the library's tables.

    Raises:
        CommandError: naming it.
    """
    if schema.collection.lower() in RESERVED_TABLES:
        raise CommandError(f"collection {schema.collection!r} has the name of a table of the library: choose another")
