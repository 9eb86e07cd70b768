"""What the file of a revision says, read without importing it."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def assignments(path: Path) -> dict[str, Any]:
    """Return the constants that a revision assigns, without importing it."""
    found: dict[str, Any] = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            found[ast.unparse(target)] = ast.literal_eval(node.value)
    return found


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}


def unfixed_names(path: Path) -> list[str]:
    """Return the calls that make a constraint or an index whose name is not spelled out in op.f()."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        function = ast.unparse(node.func)
        names = [keyword.value for keyword in node.keywords if keyword.arg == "name"]
        if function in {"op.create_index", "op.drop_index"}:
            names = node.args[:1]
        elif not function.endswith("Constraint"):
            continue
        if not [name for name in names if ast.unparse(name).startswith("op.f(")]:
            found.append(ast.unparse(node))
    return found
