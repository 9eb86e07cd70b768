"""What the revisions say of the projections: which exist, and what each looked like after its last revision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cqrs_ddd_advanced_core.exceptions import SchemaError
from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema

if TYPE_CHECKING:
    from alembic.script import Script, ScriptDirectory


@dataclass(frozen=True)
class Record:
    """What the newest revision of a collection says of it.

    Attributes:
        revision: the newest that names the collection in `projections`.
        fingerprint: of the schema as the revisions leave it; None where no revision says so.
        schema: the same, whole; None where no revision says so.
        dropped: whether the table is gone.
    """

    revision: str
    fingerprint: str | None = None
    schema: ProjectionSchema | None = None
    dropped: bool = False


def recorded_projections(script: ScriptDirectory) -> dict[str, Record]:
    """Return what the revisions of a chain record, by collection."""
    newest: dict[str, str] = {}
    records: dict[str, Record] = {}
    for revision in script.walk_revisions():
        for collection in _projections(revision):
            newest.setdefault(collection, revision.revision)
            if collection not in records and collection in _of(revision, "fingerprints"):
                records[collection] = _record(revision, collection, newest[collection])
    return {collection: records.get(collection, Record(revision)) for collection, revision in newest.items()}


def _projections(revision: Script) -> tuple[str, ...]:
    """Return the collections that a revision names, also one written by hand that gives fingerprints only."""
    named = getattr(revision.module, "projections", ())
    return tuple(dict.fromkeys([*named, *_of(revision, "fingerprints")]))


def _of(revision: Script, name: str) -> dict[str, Any]:
    found = getattr(revision.module, name, None)
    return found if isinstance(found, dict) else {}


def _record(revision: Script, collection: str, newest: str) -> Record:
    fingerprint = _of(revision, "fingerprints")[collection]
    if fingerprint is None:
        return Record(newest, dropped=True)
    data = _of(revision, "schemas").get(collection)
    try:
        schema = ProjectionSchema.from_dict({"collection": collection, **data}) if data else None
    except (SchemaError, TypeError):
        schema = None  # edited by hand: what the database has is looked at instead
    return Record(newest, fingerprint, schema)
