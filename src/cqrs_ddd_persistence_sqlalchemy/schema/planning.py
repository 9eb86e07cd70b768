"""From a table as it is to what its schema says: the steps, and which of them share a revision."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic.operations import ops
from alembic.util import CommandError

from cqrs_ddd_persistence_sqlalchemy.advanced.projections.tables import build_table
from cqrs_ddd_persistence_sqlalchemy.schema import steps
from cqrs_ddd_persistence_sqlalchemy.schema.comparison import Comparison, PresentTable
from cqrs_ddd_persistence_sqlalchemy.schema.conversions import Conversion, conversion
from cqrs_ddd_persistence_sqlalchemy.schema.operations import CommentOp, ConvertColumnOp, RefuseMisfitsOp

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from cqrs_ddd_advanced_core.projections.kinds import ColumnType
    from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
    from cqrs_ddd_persistence_sqlalchemy.schema.comparison import ColumnChange
    from cqrs_ddd_persistence_sqlalchemy.schema.recorded import Record

Operations = list[ops.MigrateOperation]


@dataclass
class Part:
    """What goes into one revision.

    Attributes:
        title: what it does, for the name of a revision of its own.
        upgrade: operations in order.
        downgrade: the way back, in its order.
    """

    title: str = ""
    upgrade: Operations = field(default_factory=list)
    downgrade: Operations = field(default_factory=list)


@dataclass
class Plan:
    """All that has to be done about one collection.

    Attributes:
        schema: of the table as the plan leaves it; None for a dropped one.
        main: what can share a revision with the main parts of other plans.
        following: what needs revisions of its own, in order.
        destroys: what is lost, a line each.
    """

    collection: str
    schema: ProjectionSchema | None
    main: Part = field(default_factory=Part)
    following: list[Part] = field(default_factory=list)
    destroys: list[str] = field(default_factory=list)

    @property
    def parts(self) -> list[Part]:
        """All parts in order."""
        return [self.main, *self.following]


def plan_creation(schema: ProjectionSchema) -> Plan:
    """Create a table with its indexes."""
    table = build_table(schema, sa.MetaData())
    main = Part(upgrade=steps.create_table(table, table.indexes), downgrade=[ops.DropTableOp(table.name)])
    return Plan(schema.collection, schema, main)


def plan_drop(connection: Connection, collection: str, record: Record) -> Plan:
    """Drop a table, if it is there."""
    plan = Plan(collection, None)
    if sa.inspect(connection).has_table(collection):
        present = PresentTable(connection, collection, record.schema)
        plan.destroys = [f"drops table {collection!r} with all its rows"]
        plan.main.upgrade = [_warning(plan.destroys[0]), ops.DropTableOp(present.name)]
        plan.main.downgrade = steps.create_table(present.table(), present.indexes().values())
    return plan


def plan_change(connection: Connection, schema: ProjectionSchema, record: Record) -> Plan:
    """Make the table in the database what the schema says.

    Raises:
        CommandError: for a change that cannot be made, or not with the rows that are there; it says what can be done.
    """
    name = schema.collection
    if not sa.inspect(connection).has_table(name):
        raise CommandError(
            f"collection {name!r} is not in this database, though revision {record.revision} has made or changed it. "
            f"If another revision drops it, write there: fingerprints = {{{name!r}: None}}"
        )
    comparison = Comparison(connection, schema, record.schema)
    if comparison.key != comparison.wanted_key:
        raise CommandError(
            f"the primary key of {name!r} is ({', '.join(comparison.key)}), not ({', '.join(comparison.wanted_key)}): "
            "a key cannot be changed in place. Declare a collection of another name and fill it from the events, "
            "or drop this one in one revision and create it in the next"
        )
    plan = Plan(name, schema)
    _plan_columns(plan, comparison, connection)
    _plan_following(plan, comparison)
    return plan


def _plan_columns(plan: Plan, comparison: Comparison, connection: Connection) -> None:
    name, main, kept = plan.collection, plan.main, comparison.kept_indexes()
    new, gone = comparison.added_columns(), comparison.removed_columns()
    changed = list(comparison.changed_columns())
    tightened = [change.new for change in changed if change.nullable and not change.new.nullable]
    _refuse_missing_values(connection, name, new, tightened)
    dropped_indexes, dropped_unique = comparison.removed_indexes(), comparison.removed_unique()

    main.upgrade += [steps.drop_index(index, name) for index in dropped_indexes]
    forwards, backwards = Alterations(plan, changed, back=False), Alterations(plan, changed, back=True)
    drops = [steps.drop_unique(name, unique) for unique in dropped_unique]
    creates = [steps.create_unique(name, unique) for unique in dropped_unique]
    plain, copying = steps.added(name, new)
    main.upgrade += forwards.checks + steps.altered(name, drops + forwards.operations + copying, kept) + plain
    for column in gone:
        plan.destroys.append(f"drops column {column.name!r} of {name!r} with all its values")
        main.upgrade += [_warning(plan.destroys[-1]), ops.DropColumnOp(name, column.name)]
    for column in tightened:
        main.upgrade += steps.promise_not_null(name, column.name)

    for column in reversed(tightened):
        main.downgrade += steps.forget_not_null(name, column.name)
    main.downgrade += steps.restored(name, gone, kept)
    main.downgrade += [ops.DropColumnOp(name, column.name) for column in reversed(new)]
    main.downgrade += backwards.checks + steps.altered(name, backwards.operations + creates, kept)
    main.downgrade += [ops.CreateIndexOp.from_index(index) for index in dropped_indexes]

    for column in tightened:
        plan.following.append(
            Part(
                f"{name}.{column.name} not null",
                steps.keep_not_null(name, column, kept),
                steps.altered(name, [steps.alteration(column, name, modify_nullable=True)], kept)
                + steps.promise_not_null(name, column.name),
            )
        )


def _plan_following(plan: Plan, comparison: Comparison) -> None:
    """Plan what takes long on a table with many rows: each in a revision of its own, that can be run again."""
    name, kept = plan.collection, comparison.kept_indexes()
    for unique in comparison.added_unique():
        build = Part(
            f"index for {unique.name}",
            steps.unique_index_without_locking(name, unique),
            steps.drop_unique_index(name, unique),
        )
        attach = Part(
            f"constraint {unique.name}",
            steps.unique_by_index(name, unique, kept),
            steps.altered(name, [steps.drop_unique(name, unique)], kept),
        )
        plan.following += [build, attach]
    before = {str(index.name): index for index in kept}
    for index in comparison.added_indexes():
        back: Operations = [steps.drop_index(index, name)]
        if str(index.name) in before:
            back.append(ops.CreateIndexOp.from_index(before[str(index.name)]))
        plan.following.append(Part(f"index {index.name}", steps.index_without_locking(index), back))


class Alterations:
    """The changes of columns that stay, forwards or back.

    Attributes:
        checks: what comes before, and stops where a value would be lost.
        operations: on the table.
    """

    def __init__(self, plan: Plan, changed: list[ColumnChange], *, back: bool) -> None:
        self.checks: Operations = []
        self.operations: Operations = []
        self._table = plan.collection
        self._back = back
        for change in reversed(changed) if back else changed:
            old, new = (change.new, change.old) if back else (change.old, change.new)
            if change.type:
                types = (change.new_type, change.old_type) if back else (change.old_type, change.new_type)
                narrows = self._convert(old, new, *types)
                if narrows and not back:
                    plan.destroys.append(narrows)
            if change.type or change.default:
                self._set_default(old, new, dropped=change.type and _differ_in_kind(old, new))
            if change.nullable and change.new.nullable:  # the other way has a revision of its own
                self.operations.append(steps.alteration(new, self._table, modify_nullable=new.nullable))

    def _convert(
        self, old: sa.Column[Any], new: sa.Column[Any], old_type: ColumnType | None, new_type: ColumnType | None
    ) -> str | None:
        how = None if old_type is None or new_type is None else conversion(old_type, new_type)
        what = f"column {old.name!r} of {self._table!r} from {old_type or old.type} to {new_type or new.type}"
        if how is None and self._back:
            how = Conversion()  # elements of arrays: PostgreSQL stops at one that does not fit
        if how is None:
            raise CommandError(
                f"no exact conversion exists for {what}: add a column of another name, fill it from the events and "
                "drop this one in a later revision, or write the revision by hand"
            )
        narrows = None
        if how.misfit is not None:
            narrows = f"narrows {what}; stops where a value does not fit"
            quoted = {"column": f'"{old.name}"'}
            conditions = (how.misfit.format(**quoted), (how.sqlite_misfit or how.misfit).format(**quoted))
            self.checks += [_warning(narrows), RefuseMisfitsOp(self._table, old.name, str(new_type), *conditions)]
        using = None if how.using is None else how.using.format(column=f'"{old.name}"', type=new_type)
        if old.server_default is not None and _differ_in_kind(old, new):
            # A default of the old type may not be one of the new.
            self.operations.append(steps.alteration(old, self._table, modify_server_default=None))
        self.operations.append(
            ConvertColumnOp(self._table, old.name, existing_type=old.type, modify_type=new.type, using=using)
        )
        return narrows

    def _set_default(self, old: sa.Column[Any], new: sa.Column[Any], *, dropped: bool) -> None:
        if new.server_default is not None or (old.server_default is not None and not dropped):
            self.operations.append(steps.alteration(new, self._table, modify_server_default=new.server_default))


def _differ_in_kind(old: sa.Column[Any], new: sa.Column[Any]) -> bool:
    return type(old.type) is not type(new.type)


def _refuse_missing_values(
    connection: Connection, table: str, new: list[sa.Column[Any]], tightened: list[sa.Column[Any]]
) -> None:
    rows = sa.table(sa.sql.quoted_name(table, quote=True))
    for column in new:
        if column.nullable or column.server_default is not None:
            continue
        if connection.scalar(sa.select(sa.literal(1)).select_from(rows).limit(1)) is not None:
            raise CommandError(
                f"column {column.name!r} of {table!r} is NOT NULL without a default, and the table has rows: give it "
                "a DEFAULT for them; or leave NOT NULL out, fill the column, and say NOT NULL in a later revision"
            )
    for column in tightened:
        present: sa.ColumnClause[Any] = sa.column(column.name)
        if connection.scalar(sa.select(sa.literal(1)).select_from(rows).where(present.is_(None)).limit(1)) is not None:
            raise CommandError(
                f"column {column.name!r} of {table!r} is to be NOT NULL, and there are rows with NULL in it: "
                "fill them first, or leave NOT NULL out"
            )


def _warning(destroys: str) -> CommentOp:
    return CommentOp(f"DESTRUCTIVE: {destroys}.")
