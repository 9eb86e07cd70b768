"""The rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for path in (ROOT / "src").rglob("*.py") if "migrations" not in path.parts)
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
DIALECT_ROOM = ROOT / "src/cqrs_ddd_persistence_sqlalchemy/core/dialect"


def relative(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_file_can_be_read_in_one_go(path):
    """No source file has more than 300 lines."""
    assert len(path.read_text().splitlines()) <= 300


@pytest.mark.parametrize("path", [path for path in SOURCES if DIALECT_ROOM not in path.parents], ids=relative)
def test_only_the_dialect_room_asks_which_database_it_is(path):
    """No other room imports sqlalchemy.dialects or compares a dialect's name."""
    tree = ast.parse(path.read_text())
    imported = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert not [name for name in imported if name.startswith("sqlalchemy.dialects")]
    compared = [node for node in ast.walk(tree) if isinstance(node, ast.Compare)]
    names = {"sqlite", "postgresql"}
    assert not [
        node
        for node in compared
        if any(isinstance(part, ast.Constant) and part.value in names for part in (node.left, *node.comparators))
    ]


@pytest.mark.parametrize("path", TESTS, ids=relative)
def test_a_test_says_in_a_sentence_what_it_shows(path):
    """Each test has a docstring of at least one sentence."""
    tests = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]
    silent = [test.name for test in tests if not (ast.get_docstring(test) or "").strip().endswith((".", "?"))]
    assert silent == []


def test_links_between_pages_lead_somewhere():
    """Every relative link of README, CHANGELOG and docs is a file."""
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    broken = [
        (relative(page), target)
        for page in pages
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_the_readme_names_the_two_commands_on_its_first_screen():
    """`make demo` and `make test` are within the first twenty lines."""
    first = "\n".join((ROOT / "README.md").read_text().splitlines()[:20])
    assert "make demo" in first
    assert "make test" in first
