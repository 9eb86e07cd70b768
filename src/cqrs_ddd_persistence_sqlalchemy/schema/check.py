"""Whether every schema has its revision: asked without a database, in CI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic.util import CommandError

from cqrs_ddd_persistence_sqlalchemy.schema.chain import library_revisions
from cqrs_ddd_persistence_sqlalchemy.schema.configuration import PROJECTIONS_SETTING, chain_of, refuse_several_heads
from cqrs_ddd_persistence_sqlalchemy.schema.library_revision import followed_up_to, is_own_environment
from cqrs_ddd_persistence_sqlalchemy.schema.recorded import recorded_projections
from cqrs_ddd_persistence_sqlalchemy.schema.registry import registered_schemas

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.config import Config
    from alembic.script import ScriptDirectory

    from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
    from cqrs_ddd_persistence_sqlalchemy.schema.recorded import Record


def unrecorded_changes(config: Config) -> list[str]:
    """Compare the registered schemas with what the revisions record of them.

    Args:
        config: of Alembic, with `projections` naming the modules that declare the schemas. Of an environment of the
            application's own, which compares those itself, it is looked whether it follows the library's chain.

    Returns:
        What differs, a line for each collection; nothing when every schema has its revision.

    Raises:
        CommandError: `projections` is not set, a module cannot be imported, or the chain has several heads.
    """
    modules = config.get_alembic_option("projections")
    script = chain_of(config)
    if is_own_environment(script):
        return list(_library_changes(script))
    if modules is None:
        raise CommandError(
            "there is nothing to check: name the module that declares your schemas in the configuration, as in "
            f"{PROJECTIONS_SETTING}"
        )
    refuse_several_heads(script)
    return list(_differences(registered_schemas(modules), recorded_projections(script)))


def _library_changes(script: ScriptDirectory) -> Iterator[str]:
    followed, newest = followed_up_to(script), list(library_revisions())[-1]
    if followed != newest:
        yield f"the library's tables: the revisions here come to {followed or 'none'}, this release's to {newest}"


def _differences(schemas: dict[str, ProjectionSchema], records: dict[str, Record]) -> Iterator[str]:
    for collection, schema in schemas.items():
        record = records.get(collection)
        if record is None or record.dropped:
            yield f"{collection}: no revision creates it"
        elif record.fingerprint is None:
            yield (
                f"{collection}: revision {record.revision} does not say what it leaves; if the table is as declared, "
                f"write there: fingerprints = {{{collection!r}: {schema.fingerprint!r}}}"
            )
        elif record.fingerprint != schema.fingerprint:
            what = "; ".join(_changes(record.schema, schema)) if record.schema else "it"
            yield f"{collection}: changed since revision {record.revision}: {what}"
    for collection in sorted(records.keys() - schemas.keys()):
        if not records[collection].dropped:
            yield f"{collection}: no schema is registered for it, and no revision drops it"


def _changes(old: ProjectionSchema, new: ProjectionSchema) -> Iterator[str]:
    before, after = dict(old.fields), dict(new.fields)
    for name in before | after:
        if name not in after:
            yield f"column {name} is gone"
        elif name not in before:
            yield f"column {name} is new"
        elif before[name] != after[name]:
            yield f"column {name} was {before[name]} and is {after[name]}"
    if old.primary_key != new.primary_key:
        yield f"the key was ({', '.join(old.primary_key)}) and is ({', '.join(new.primary_key)})"
    indexes, wanted = ({index.name: index for index in schema.indexes} for schema in (old, new))
    for index in indexes | wanted:
        if indexes.get(index) != wanted.get(index):
            state = "gone" if index not in wanted else "new" if index not in indexes else "different"
            yield f"index {index} is {state}"
