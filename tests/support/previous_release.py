"""A rolling deploy: the stores of the previous release, and all their tests, on the schema of this one.

`python -m tests.support.previous_release` takes the newest tag, or where there is none yet the commit before the newest
revision was added, into a temporary folder and runs the stores' tests there. Their databases are migrated by the
revisions of this tree. Needs the history of the repository.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
STORES = ("tests/core", "tests/advanced", "tests/test_ports.py", "tests/test_specification_*.py")
_VERSIONS = "migrations/versions"


def pytest_configure() -> None:
    """Let the older release's tests migrate their databases by the revisions of this tree."""
    from tests.support import databases  # the older release's

    assert Path(databases.__file__).parents[2] != ROOT, "this is for the tests of another release"
    databases.alembic = functools.partial(databases.alembic, cwd=ROOT)


def previous() -> str:
    """Return the commit of the release before this one."""
    newest = max((ROOT / _VERSIONS).glob("cqrs_*.py")).name
    tags = _git("tag", "--list", "v*", "--sort=-version:refname", "--merged", "HEAD").split()
    older = [tag for tag in tags if newest not in _git("ls-tree", "--name-only", f"{tag}:{_VERSIONS}").split()]
    if older:
        return older[0]
    added = _git("log", "--diff-filter=A", "--format=%H", "-1", "--", f"{_VERSIONS}/{newest}").strip()
    if not added:
        raise SystemExit("the history does not say when the newest revision was added: fetch all of it and commit")
    return f"{added}^"


def main() -> int:
    """Run the tests of the previous release; the exit code is theirs."""
    commit = previous()
    with tempfile.TemporaryDirectory(prefix="previous-release-") as folder:
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        heads = [max((root / _VERSIONS).glob("cqrs_*.py")).stem for root in (Path(folder), ROOT)]
        sys.stderr.write(f"stores and tests of {commit}, which ends at {heads[0]}, on the schema of {heads[1]}\n")
        plugin = Path(folder) / "on_the_newer_schema.py"
        plugin.write_text(Path(__file__).read_text().replace("Path(__file__).parents[2]", f"Path({str(ROOT)!r})"))
        environment = os.environ | {"PYTHONPATH": f"{folder}/src{os.pathsep}{folder}"}
        paths = [str(path.relative_to(folder)) for name in STORES for path in sorted(Path(folder).glob(name))]
        command = [sys.executable, "-m", "pytest", "-p", plugin.stem, "-n", "auto", "--dist", "worksteal", *paths]
        return subprocess.run([*command, *sys.argv[1:]], cwd=folder, env=environment, check=False).returncode


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
