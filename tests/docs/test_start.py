"""The five-minute start, done as a stranger would: an empty folder, the wheel, the page and nothing else."""

from __future__ import annotations

from tests.docs.pages import DOCS, blocks
from tests.docs.running import Reader, commands
from tests.support.databases import Database
from tests.test_package import built, installed, made_once, source, wheel  # noqa: F401  (fixtures)

SET_UP = ["python3 -m venv .venv", ". .venv/bin/activate", "pip install cqrs-ddd-persistence-sqlalchemy"]


async def test_the_page_is_all_that_a_stranger_needs(installed, empty_postgresql, tmp_path):  # noqa: F811
    """What the page says works on SQLite; with another URL, the revision, programs and commands do on PostgreSQL.

    The first block is what the fixture has done, with the wheel's path in the place of its name.
    """
    set_up, *page = blocks(DOCS / "start.md")
    assert commands(set_up.text) == SET_UP
    on_file = Database("sqlite", f"sqlite+aiosqlite:///{tmp_path / 'app.db'}")
    on_sqlite = Reader(tmp_path, on_file, {}, programs=installed, says_url=False)
    *steps, changed_url = page
    for step in steps:
        await on_sqlite.do(step)
    assert [path.name.partition("_")[2] for path in (tmp_path / "versions").glob("*.py")] == ["create_balances.py"]

    assert commands(changed_url.text)[0].startswith("export DATABASE_URL=postgresql://")
    on_postgresql = Reader(tmp_path, empty_postgresql, {}, programs=installed)
    first_events = next(number for number, step in enumerate(steps) if step.file_name == "pay.py")
    for step in [changed_url, *steps[first_events:]]:
        await on_postgresql.do(step)
    assert len(list((tmp_path / "versions").glob("*.py"))) == 1
