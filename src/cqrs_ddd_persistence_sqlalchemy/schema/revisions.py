"""Fills the revisions that Alembic is about to write: for one projection, or for all that have changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alembic.operations import ops
from alembic.util import CommandError, rev_id

from cqrs_ddd_persistence_sqlalchemy.schema.operations import changes
from cqrs_ddd_persistence_sqlalchemy.schema.planning import Part, Plan, plan_change, plan_creation, plan_drop
from cqrs_ddd_persistence_sqlalchemy.schema.recorded import recorded_projections
from cqrs_ddd_persistence_sqlalchemy.schema.registry import load_schema, registered_schemas
from cqrs_ddd_persistence_sqlalchemy.schema.rendering import render_item
from cqrs_ddd_persistence_sqlalchemy.schema.source import finished

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy.engine import Connection

    from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
    from cqrs_ddd_persistence_sqlalchemy.schema.settings import Settings


class ProjectionRevision:
    """The revision, or the few, that a command writes; `check` looks at the same and writes nothing.

    Args:
        settings: of the run.
        script: the chain that the revisions become part of.
        config: where to print what would be lost.

    Attributes:
        options: what `context.configure` needs.
    """

    def __init__(self, settings: Settings, script: ScriptDirectory, config: Config) -> None:
        self._settings = settings
        self._script = script
        self._config = config
        self._records: dict[str, dict[str, Any]] = {}
        self.options: dict[str, Any] = {
            "process_revision_directives": self._fill,
            "template_args": {"records": self._records, "finished": finished},
            "render_item": render_item,
            "render_as_batch": True,
        }

    def _fill(self, context: MigrationContext, _revision: object, directives: list[Any]) -> None:
        command = self._settings.command
        plans: list[Plan] = []
        if command == "revision" and self._settings.projection is not None:
            plans = [self._creation(load_schema(self._settings.projection))]
        elif command in {"autogenerate", "check"}:
            assert context.connection is not None  # noqa: S101  (only scripts go without)
            plans = self._compared(context.connection)
        if command == "check":
            directives[0].upgrade_ops.ops += [
                op for plan in plans for part in plan.parts for op in changes(part.upgrade)
            ]
            return
        self._write(directives, plans)
        if command == "autogenerate" and not plans and directives[0].upgrade_ops.is_empty():
            directives.clear()  # nothing has changed: no file

    def _creation(self, schema: ProjectionSchema) -> Plan:
        record = recorded_projections(self._script).get(schema.collection)
        if record is not None and not record.dropped:
            raise CommandError(
                f"collection {schema.collection!r} has its revision already, {record.revision}: write the one of a "
                'change with alembic revision --autogenerate -m "..."'
            )
        return plan_creation(schema)

    def _compared(self, connection: Connection) -> list[Plan]:
        """Plan what turns the database's tables into those of the registered schemas."""
        settings = self._settings
        records = recorded_projections(self._script)
        if settings.projection is not None:
            schema = load_schema(settings.projection)
            schemas = {schema.collection: schema}
        else:
            schemas = registered_schemas(settings.projection_modules or "")
        plans: list[Plan] = []
        for collection, schema in schemas.items():
            record = records.get(collection)
            if record is None or record.dropped:
                plans.append(plan_creation(schema))
            else:
                plan = plan_change(connection, schema, record)
                if any(part.upgrade for part in plan.parts) or record.fingerprint != schema.fingerprint:
                    plans.append(plan)
        if settings.projection is None and settings.projection_modules is not None:
            gone = [name for name in sorted(records) if name not in schemas and not records[name].dropped]
            plans += [plan_drop(connection, name, records[name]) for name in gone]
        return plans

    def _write(self, directives: list[Any], plans: list[Plan]) -> None:
        """Put the main parts of all plans into the first revision, and every other part into one of its own."""
        first = directives[0]
        sheets = list(_sheets(plans))
        if not first.upgrade_ops.is_empty() and sheets and sheets[0].part.title:
            sheets.insert(0, _Sheet(Part(), [], []))  # the library's own changes come first, and alone
        message = first.message
        for number, sheet in enumerate(sheets):
            if number > 0:
                directives.append(_next(first, directives[-1].rev_id))
            if sheet.part.title and len(sheets) > 1:
                directives[-1].message = f"{message}: {sheet.part.title}" if message else sheet.part.title
            directives[-1].upgrade_ops.ops += sheet.part.upgrade
            directives[-1].downgrade_ops.ops += sheet.part.downgrade
            self._records[directives[-1].rev_id] = {
                "projections": tuple(sheet.collections),
                "schemas": {plan.collection: plan.schema for plan in sheet.finished},
            }
        for line in (line for plan in plans for line in plan.destroys):
            self._config.print_stdout(f"DESTRUCTIVE: {line}")


@dataclass
class _Sheet:
    """One revision: its steps, the collections they are about, and the plans that are complete with it."""

    part: Part
    collections: list[str]
    finished: list[Plan]


def _sheets(plans: list[Plan]) -> Iterator[_Sheet]:
    together = [plan for plan in plans if plan.main.upgrade or not plan.following]
    if together:
        part = Part()
        for plan in together:
            part.upgrade += plan.main.upgrade
            part.downgrade[:0] = plan.main.downgrade
        complete = [plan for plan in together if not plan.following]
        yield _Sheet(part, [plan.collection for plan in together], complete)
    for plan in plans:
        for part in plan.following:
            yield _Sheet(part, [plan.collection], [plan] if part is plan.following[-1] else [])


def _next(first: ops.MigrationScript, head: str) -> ops.MigrationScript:
    return ops.MigrationScript(
        rev_id(),
        ops.UpgradeOps([]),
        ops.DowngradeOps([]),
        head=head,
        splice=False,
        version_path=first.version_path,
    )
