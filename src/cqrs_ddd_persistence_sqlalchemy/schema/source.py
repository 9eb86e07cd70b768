"""Finishing touches to the source of a revision, where Alembic's renderer writes what would not run everywhere."""

from __future__ import annotations

import ast
import re

from cqrs_ddd_persistence_sqlalchemy.core.dialect import UNKNOWN_RESERVED_WORDS
from cqrs_ddd_persistence_sqlalchemy.schema.rendering import colons_escaped

_NAMING_CALLS = frozenset(
    {
        *("Column", "PrimaryKeyConstraint", "UniqueConstraint", "create_table", "drop_table", "create_index"),
        *("batch_alter_table", "add_column", "alter_column", "drop_column", "create_unique_constraint", "drop_index"),
    }
)


def finished(body: str) -> str:
    """Return the body of `upgrade()` or `downgrade()` with reserved words quoted and colons in predicates escaped."""
    header = "def revision():\n    "
    source = header + (body or "pass")
    edits: dict[tuple[int, int, int], str] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            for constant in _names(node):
                if constant.value in UNKNOWN_RESERVED_WORDS:
                    edits[_place(constant)] = f"sa.quoted_name({constant.value!r}, True)"
            for constant in _predicates(node):
                edits[_place(constant)] = repr(colons_escaped(str(constant.value)))
    # Where a block ends in a block, Alembic's printer leaves two empty lines.
    return re.sub(r"\n(\s*\n)+", "\n\n", _edited(source, edits)[len(header) :])


def _names(call: ast.Call) -> list[ast.Constant]:
    assert isinstance(call.func, ast.Attribute)  # noqa: S101  (for the type checker)
    if call.func.attr not in _NAMING_CALLS:
        return []
    args = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "table_name")]
    parts = [part for arg in args for part in (arg.elts if isinstance(arg, ast.List) else [arg])]
    return [part for part in parts if isinstance(part, ast.Constant)]


def _predicates(call: ast.Call) -> list[ast.Constant]:
    texts = [
        keyword.value
        for keyword in call.keywords
        if keyword.arg and keyword.arg.endswith("_where") and isinstance(keyword.value, ast.Call)
    ]
    return [arg for text in texts for arg in text.args if isinstance(arg, ast.Constant)]


def _place(node: ast.Constant) -> tuple[int, int, int]:
    if node.end_lineno != node.lineno or node.end_col_offset is None:
        raise ValueError(f"a literal over several lines: {node.value!r}")
    return node.lineno - 1, node.col_offset, node.end_col_offset


def _edited(source: str, edits: dict[tuple[int, int, int], str]) -> str:
    lines = [line.encode() for line in source.split("\n")]  # ast counts columns in bytes
    for (line, start, end), text in sorted(edits.items(), reverse=True):
        lines[line] = lines[line][:start] + text.encode() + lines[line][end:]
    return "\n".join(line.decode() for line in lines)
