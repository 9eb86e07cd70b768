"""Puts the library's revisions into the wheel (docs/decisions/0001)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class MigrationsHook(BuildHookInterface):
    """Ships `migrations/` inside the package, and of its revisions those named `cqrs_*` alone."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files to a wheel; an editable install finds them through the link in the source tree."""
        if version == "editable":
            return
        folder = Path(self.root) / "migrations"
        shipped = [folder / "env.py", folder / "script.py.mako", *sorted(folder.glob("versions/cqrs_*.py"))]
        for path in shipped:
            target = f"cqrs_ddd_persistence_sqlalchemy/{path.relative_to(self.root).as_posix()}"
            build_data["force_include"][str(path)] = target
