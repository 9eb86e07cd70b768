"""Migrations by a user who may not create tables."""

from __future__ import annotations

import os
import re

from sqlalchemy.engine import make_url

from tests.support.databases import alembic


def test_a_user_without_rights_is_told_so_in_one_line(databases):
    """PostgreSQL's refusal ends in one line that says what to do, without a traceback."""
    role = f"reader_{os.getpid()}"
    databases.admin(f"CREATE ROLE {role} LOGIN")
    try:
        with databases.fresh("postgresql", migrated=False) as database:
            databases_url = make_url(database.url).set(username=role)
            url = databases_url.render_as_string(hide_password=False)
            done = alembic("upgrade", "head", url=url, check=False)
    finally:
        databases.admin(f"DROP ROLE {role}")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr + done.stdout
    assert re.search(r"FAILED: the database's user may not do this: permission denied for schema public", done.stdout)
