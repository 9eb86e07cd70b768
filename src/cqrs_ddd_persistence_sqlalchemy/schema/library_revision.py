"""The revisions by which an application's own Alembic environment follows the library's chain."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

from alembic.script import ScriptDirectory
from alembic.util import CommandError, rev_id

from cqrs_ddd_persistence_sqlalchemy.schema.chain import MIGRATIONS_FOLDER, library_revisions
from cqrs_ddd_persistence_sqlalchemy.schema.configuration import refuse_several_heads

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.config import Config

_IMPORT = "from cqrs_ddd_persistence_sqlalchemy import schema"


def is_own_environment(script: ScriptDirectory) -> bool:
    """Tell whether the env.py is the application's, which follows the library's chain by revisions of its own."""
    return Path(script.dir).resolve() != MIGRATIONS_FOLDER


def followed_up_to(script: ScriptDirectory) -> str | None:
    """Return the library's revision that an application's revisions come to; None where none calls for one.

    Raises:
        CommandError: the chain has several heads.
    """
    refuse_several_heads(script)
    for revision in script.walk_revisions():
        targets = list(_targets(Path(revision.path).read_text(encoding="utf-8")))
        if targets:
            return targets[-1]
    return None


def write_library_revision(
    config: Config, *, message: str | None = None, version_path: str | None = None
) -> str | None:
    """Write the revision that brings the library's tables to the newest one of the installed release.

    Args:
        config: of the application's environment.
        message: of the revision; says where it goes unless given.
        version_path: the folder for it, where the environment has several.

    Returns:
        The new file; None when the revisions that are there come so far already.

    Raises:
        CommandError: the environment is the library's, has several heads, or follows a newer release.
    """
    script = ScriptDirectory.from_config(config)
    if not is_own_environment(script):
        raise CommandError(
            "this environment is the library's, which brings its own tables to their newest revision by itself; "
            "run: alembic upgrade head"
        )
    known = list(library_revisions())
    before, newest = followed_up_to(script), known[-1]
    if before == newest:
        return None
    if before is not None and before not in known:
        raise CommandError(
            f"the revisions here come to {before}, and this release of the library ends at {newest}: install the "
            "release that they were written for, or a newer one"
        )
    begin = "" if before is None else f', from_="{before}"'
    end = "" if before is None else f'to="{before}", '
    written = script.generate_revision(
        rev_id(),
        message or f"library tables to {newest}",
        head="head",
        refresh=True,
        version_path=version_path,
        imports=_IMPORT,
        upgrades=f'schema.upgrade(to="{newest}"{begin})',
        downgrades=f'schema.downgrade({end}from_="{newest}")',
    )
    if written is None or list(_targets(Path(written.path).read_text(encoding="utf-8"))) != [newest]:
        raise CommandError(
            f"the template of this environment ({script.dir}/script.py.mako) does not write imports, upgrades and "
            "downgrades as Alembic's own do; complete the new revision by hand"
        )
    return str(written.path)


def _targets(source: str) -> Iterator[str]:
    """Yield the `to` of each `schema.upgrade(to="...")`, in the order of their lines."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    for node in sorted(calls, key=lambda call: call.lineno):
        if ast.unparse(node.func).rpartition(".")[2] == "upgrade":
            for keyword in node.keywords:
                if keyword.arg == "to" and isinstance(keyword.value, ast.Constant):
                    yield str(keyword.value.value)
