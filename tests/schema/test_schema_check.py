"""`python -m cqrs_ddd_persistence_sqlalchemy.schema check`: every schema has its revision, asked without a database."""

from __future__ import annotations

import pytest

from cqrs_ddd_advanced_core.projections import ProjectionSchema
from tests.support.command_line import DEAD, declare, generate, make_application, run, succeed

KEY = ("id", "TEXT PRIMARY KEY")
ORDERS = ProjectionSchema("orders", [KEY, ("total", "INTEGER")], ["total"])


@pytest.fixture
def app(tmp_path, databases):
    """An application with one projection, created by a revision."""
    folder = make_application(tmp_path / "app")
    with databases.fresh("sqlite") as database:
        generate(folder, database, "create", ORDERS)
    return folder


def check(app, *arguments: str) -> tuple[int, str]:
    """Run the command where no database can be reached; return its code and what it said."""
    done = run("check", *arguments, cwd=app, url=DEAD, module="cqrs_ddd_persistence_sqlalchemy.schema")
    return done.returncode, done.stdout + done.stderr


def test_nothing_to_say(app):
    """Where every schema has its revision the command succeeds in silence, whatever the order of columns."""
    assert check(app) == (0, "")
    declare(app, ProjectionSchema("orders", [("total", "INT"), KEY], ["total"]))
    assert check(app, "-c", "alembic.ini") == (0, "")


@pytest.mark.parametrize(
    ("schemas", "said"),
    [
        ([ProjectionSchema("orders", [KEY, ("total", "BIGINT")])], "column total was INTEGER and is BIGINT; index"),
        ([ProjectionSchema("orders", [KEY, ("sum", "INTEGER")])], "column total is gone; column sum is new"),
        ([ORDERS, ProjectionSchema("lines", [KEY])], "lines: no revision creates it"),
        ([], "orders: no schema is registered for it, and no revision drops it"),
    ],
)
def test_a_change_without_a_revision_fails(app, schemas, said):
    """A schema that is new, gone or different from what the revisions record is named, with what to run."""
    declare(app, *schemas)
    code, output = check(app)
    assert code == 1
    assert said in output
    assert "run: alembic revision --autogenerate" in output


def test_a_revision_by_hand_says_what_it_leaves(app):
    """A revision written by hand that names the collection and its fingerprint satisfies the check."""
    changed = ProjectionSchema("orders", [KEY, ("total", "BIGINT")], ["total"])
    declare(app, changed)
    succeed("revision", "-m", "by hand", cwd=app, url=DEAD)
    [path] = (app / "versions").glob("*by_hand.py")
    assert check(app)[0] == 1
    path.write_text(f"{path.read_text()}\nfingerprints = {{'orders': {changed.fingerprint!r}}}\n")
    assert check(app) == (0, "")
    path.write_text(f"{path.read_text()}\nfingerprints = {{'orders': None}}\n")
    assert "orders: no revision creates it" in check(app)[1]


def test_a_collection_without_a_fingerprint_is_named(app):
    """Where a revision does not record what it leaves, the command says what to write there."""
    [path] = (app / "versions").glob("*create.py")
    text = path.read_text().replace("fingerprints: dict", "others: dict")
    path.write_text(text)
    code, output = check(app)
    assert code == 1
    assert f"fingerprints = {{'orders': {ORDERS.fingerprint!r}}}" in output


def test_two_heads_are_refused(app):
    """With two heads there is no telling what the revisions leave."""
    succeed("revision", "-m", "one", cwd=app, url=DEAD)
    succeed("revision", "-m", "two", "--head", "base", "--splice", cwd=app, url=DEAD)
    code, output = check(app)
    assert code == 2
    assert "run: alembic merge heads" in output


def test_missing_configuration_is_named(app, tmp_path):
    """Without a configuration, or without `projections` in it, the command says what is missing."""
    assert check(tmp_path)[0] == 2
    assert "there is no alembic.ini or pyproject.toml here" in check(tmp_path)[1]
    ini = app / "alembic.ini"
    ini.write_text(ini.read_text().replace("projections = read_models\n", ""))
    code, output = check(app)
    assert code == 2
    assert "projections = package.read_models" in output
