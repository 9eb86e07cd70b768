"""The library's own chain of revisions: where it is, how far a database has come, how to bring it to its head."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

import cqrs_ddd_persistence_sqlalchemy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from types import ModuleType

    from sqlalchemy.engine import Connection


LIBRARY_VERSION_TABLE = "cqrs_ddd_alembic_version"
MIGRATIONS_FOLDER = (Path(cqrs_ddd_persistence_sqlalchemy.__file__).parent / "migrations").resolve()
VERSIONS_FOLDER = MIGRATIONS_FOLDER / "versions"
_LIBRARY_REVISION = "cqrs_"


def library_script() -> ScriptDirectory:
    """Return the chain in the library's folder: in a checkout also a team's own revisions behind them."""
    return ScriptDirectory(str(MIGRATIONS_FOLDER))


@cache
def library_revisions() -> Mapping[str, ModuleType]:
    """Return the modules of the library's own revisions by their ids, in order."""
    found = [each for each in library_script().walk_revisions() if each.revision.startswith(_LIBRARY_REVISION)]
    return {each.revision: each.module for each in reversed(found)}


def upgrade_library(prepare: Callable[[MigrationContext], None] | None = None, **context: Any) -> None:
    """Bring the library's chain to its head, inside the caller's lock.

    Args:
        prepare: called with the context before it runs.
        context: what `MigrationContext.configure` takes: a connection, or a dialect and options for `--sql`.
    """
    script = library_script()
    options = context.pop("opts", {})
    options |= {
        "script": script,
        "version_table": LIBRARY_VERSION_TABLE,
        "fn": lambda revision, _context: script._upgrade_revs("heads", revision),  # noqa: SLF001  (as alembic does)
    }
    migration = MigrationContext.configure(opts=options, **context)
    if prepare is not None:
        prepare(migration)
    with Operations.context(migration), migration.begin_transaction():
        migration.run_migrations()


def library_is_behind(connection: Connection) -> str | None:
    """Return in words how far the database is behind the library's chain, or None when it is not."""
    migration = MigrationContext.configure(connection, opts={"version_table": LIBRARY_VERSION_TABLE})
    return missing_revision(migration.get_current_heads())


def missing_revision(current: Collection[str]) -> str | None:
    """Return in words what a database at these revisions lacks of the library's chain, or None."""
    history = _history()
    if not history.keys() >= set(current):
        return None  # a newer release has been here
    applied = {each for head in current for each in history[head]}
    missing = sorted(name for name in history.keys() - applied if name.startswith(_LIBRARY_REVISION))
    at = ", ".join(sorted(current)) or "no revision"
    return f"it is at {at} and {missing[0]} is missing" if missing else None


@cache
def _history() -> Mapping[str, frozenset[str]]:
    """Return all that leads to each revision, itself included. Read once: readiness probes ask again and again."""
    script = library_script()
    names = [each.revision for each in script.walk_revisions()]
    return {name: frozenset(each.revision for each in script.iterate_revisions(name, "base")) for name in names}
