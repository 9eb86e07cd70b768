"""The library's revisions, once landed, are history: they stand by themselves and do not change."""

from __future__ import annotations

import ast
import hashlib
import json
from pathlib import Path

import pytest

from tests.schema.revision_files import assignments, imports, unfixed_names
from tests.support.databases import ROOT

REVISIONS = sorted((ROOT / "migrations" / "versions").glob("cqrs_*.py"))
RECORD = Path(__file__).with_name("frozen.json")
# Options of a column that make a constraint or an index without a name.
NAMELESS = {"primary_key", "unique", "index"}


def digest(path: Path) -> str:
    """Return the hash of a file's text, whatever the line ends of the checkout."""
    return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


@pytest.mark.parametrize("path", REVISIONS, ids=lambda path: path.stem)
def test_a_revision_stands_by_itself(path):
    """A revision imports nothing but SQLAlchemy and Alembic, so that no change of the code reaches it."""
    assert imports(path) <= {"__future__", "alembic", "sqlalchemy", "sqlalchemy.dialects"}


@pytest.mark.parametrize("path", REVISIONS, ids=lambda path: path.stem)
def test_a_revision_names_what_it_makes(path):
    """Every constraint and index has its name in op.f(), and no column makes a nameless one."""
    assert unfixed_names(path) == []
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    columns = [call for call in calls if ast.unparse(call.func) == "sa.Column"]
    nameless = [column for column in columns if {keyword.arg for keyword in column.keywords} & NAMELESS]
    assert [ast.unparse(column) for column in nameless] == []


def test_revisions_follow_each_other():
    """The ids are cqrs_0001, cqrs_0002 and so on, each after the one before, none with labels or dependencies."""
    written = [assignments(path) for path in REVISIONS]
    ids = [f"cqrs_{number:04}" for number in range(1, len(REVISIONS) + 1)]
    assert [path.name[:10] for path in REVISIONS] == [f"{revision}_" for revision in ids]
    assert [each["revision"] for each in written] == ids
    assert [each["down_revision"] for each in written] == [None, *ids[:-1]]
    assert {(each["branch_labels"], each["depends_on"]) for each in written} == {(None, None)}


def test_landed_revisions_do_not_change():
    """Every revision has the hash that was recorded when it landed."""
    recorded = json.loads(RECORD.read_text())
    found = {path.name: digest(path) for path in REVISIONS}
    changed = sorted(name for name in recorded if found.get(name) != recorded[name])
    assert not changed, (
        f"{', '.join(changed)} changed or went missing after landing, and databases have run it as it was: take the "
        "edit back (git checkout main -- migrations/versions) and write what you wanted as the next revision"
    )
    new = sorted(set(found) - set(recorded))
    lines = ",\n".join(f'  "{name}": "{found[name]}"' for name in new)
    assert not new, f"{', '.join(new)} is not recorded; when it is about to land, add to {RECORD}:\n{lines}"
