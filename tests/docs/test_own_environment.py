"""The steps for an application with an Alembic environment of its own, as the page shows them."""

from __future__ import annotations

import re

from tests.docs.pages import DOCS, blocks
from tests.support.command_line import LIBRARY_TABLES, run, succeed, tables

MODELS = """\
import sqlalchemy as sa

metadata = sa.MetaData()
sa.Table("customers", metadata, sa.Column("id", sa.Integer(), primary_key=True), sa.Column("name", sa.String(100)))
"""
URL = 'config.set_main_option("sqlalchemy.url", os.environ["DATABASE_URL"])'


def test_the_four_steps_lead_to_a_migrated_database(empty_database, tmp_path):
    """Alembic's async environment with the page's function and projections: one history, and nothing left to do."""
    steps = [block for block in blocks(DOCS / "migrations.md") if block.directive == "elsewhere"]
    function, revision, projections = (block.text for block in steps)
    succeed("init", "-t", "async", "migrations", cwd=tmp_path)
    (tmp_path / "models.py").write_text(MODELS)
    (tmp_path / "read_models.py").write_text(
        next(block.text for block in blocks(DOCS / "start.md") if block.file_name == "read_models.py")
    )
    path = tmp_path / "migrations" / "env.py"
    env, replaced = re.subn(
        r"def do_run_migrations.*?\n\n\n", lambda _: function + "\n\n", path.read_text(), flags=re.DOTALL
    )
    assert replaced == 1
    target = f"import os\nfrom models import metadata\n\ntarget_metadata = metadata\n{URL}\n"
    imported, _, added = projections.partition("\n\n")
    schema = "from cqrs_ddd_persistence_sqlalchemy import schema\n"
    env = env.replace("target_metadata = None", f"{schema}\n{imported}\n{target}\n{added}")
    path.write_text(env.replace("render_as_batch=True,", "render_as_batch=True, render_item=schema.render_item,"))

    url = empty_database.url
    written = run("revision", cwd=tmp_path, url=url, module="cqrs_ddd_persistence_sqlalchemy.schema")
    assert written.returncode == 0, written.stderr
    (file,) = (tmp_path / "migrations" / "versions").glob("*.py")
    shown = re.findall(r"schema\.\w+\(.*\)", revision)
    assert re.findall(r"schema\.(?:up|down)grade\(.*\)", file.read_text()) == shown
    succeed("upgrade", "head", cwd=tmp_path, url=url)
    succeed("revision", "--autogenerate", "-m", "customers and balances", cwd=tmp_path, url=url)
    succeed("upgrade", "head", cwd=tmp_path, url=url)
    succeed("check", cwd=tmp_path, url=url)
    assert tables(empty_database) == LIBRARY_TABLES | {"alembic_version", "customers", "balances"}


def test_an_environment_of_ones_own_does_not_know_the_commands_of_hints(empty_database, tmp_path):
    """What docs/errors.md says of the hints: such an environment does not look at `-x projection=`."""
    succeed("init", "-t", "async", "migrations", cwd=tmp_path)
    path = tmp_path / "migrations" / "env.py"
    path.write_text(path.read_text().replace("target_metadata = None", f"import os\ntarget_metadata = None\n{URL}"))
    command = ("-x", "projection=read_models:balances", "revision", "-m", "create balances")
    succeed(*command, cwd=tmp_path, url=empty_database.url)
    (file,) = (tmp_path / "migrations" / "versions").glob("*.py")
    assert "balances'" not in file.read_text()
