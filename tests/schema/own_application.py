"""An application whose Alembic environment is its own, and the commands that its developers run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.support.command_line import VERSION_TABLE, column, run, succeed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.databases import Database


# As `alembic init -t async` writes it, with what docs/migrations.md says to add.
ENV = """
import asyncio
import os

from alembic import context
from sqlalchemy import make_url, pool
from sqlalchemy.ext.asyncio import create_async_engine

from cqrs_ddd_persistence_sqlalchemy import schema
from models import metadata

url = make_url(os.environ["DATABASE_URL"])
url = url.set(drivername={"postgresql": "postgresql+asyncpg", "sqlite": "sqlite+aiosqlite"}[url.get_backend_name()])
options = {
    "target_metadata": metadata,
    "include_name": schema.include_name,
    "render_item": schema.render_item,
    "compare_type": schema.compare_type,
}


def run_offline():
    context.configure(url=url, literal_binds=True, dialect_opts={"paramstyle": "named"}, **options)
    with context.begin_transaction():
        context.run_migrations()


def run_on(connection):
    with schema.migration_lock(connection):
        context.configure(connection=connection, render_as_batch=True, **options)
        with context.begin_transaction():
            context.run_migrations()


async def run_online():
    engine = create_async_engine(url, poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(run_on)
    await engine.dispose()


if context.is_offline_mode():
    run_offline()
else:
    asyncio.run(run_online())
"""

TEMPLATE = '''"""${message}

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}
Create Date: ${create_date}

"""
from typing import Sequence, Union

from alembic import op
import sqlalchemy as sa
${imports if imports else ""}

revision: str = ${repr(up_revision)}
down_revision: Union[str, None] = ${repr(down_revision)}
branch_labels: Union[str, Sequence[str], None] = ${repr(branch_labels)}
depends_on: Union[str, Sequence[str], None] = ${repr(depends_on)}


def upgrade() -> None:
    """Upgrade schema."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Downgrade schema."""
    ${downgrades if downgrades else "pass"}
'''

MODELS = """
import sqlalchemy as sa

metadata = sa.MetaData()
sa.Table(
    "customers",
    metadata,
    sa.Column("id", sa.Integer(), primary_key=True),
    sa.Column("name", sa.String(100), nullable=False),
)
"""

OWN_TABLES = {"customers", "alembic_version"}


def write_application(folder: Path) -> Path:
    """Make an application with one table, of which no revision tells yet."""
    (folder / "migrations" / "versions").mkdir(parents=True)
    (folder / "alembic.ini").write_text(
        "[alembic]\nscript_location = %(here)s/migrations\nprepend_sys_path = .\npath_separator = os\n"
    )
    (folder / "migrations" / "env.py").write_text(ENV)
    (folder / "migrations" / "script.py.mako").write_text(TEMPLATE)
    (folder / "models.py").write_text(MODELS)
    return folder


def follow(application: Path, *arguments: str) -> tuple[int, str]:
    """Run the command that writes the revision of the library; return its code and what it said."""
    return schema_command(application, "revision", *arguments)


def schema_command(application: Path, *arguments: str) -> tuple[int, str]:
    """Run the library's command without a database."""
    done = run(*arguments, cwd=application, module="cqrs_ddd_persistence_sqlalchemy.schema")
    return done.returncode, done.stdout + done.stderr


def revision_by_hand(application: Path, upgrade: str, downgrade: str) -> None:
    """Write a revision at the head, as a person does who calls the library."""
    succeed("revision", "-m", "library", cwd=application, url="sqlite://")
    path = max((application / "migrations" / "versions").glob("*_library.py"), key=lambda path: path.stat().st_mtime_ns)
    text = path.read_text().replace("import sqlalchemy as sa\n", "from cqrs_ddd_persistence_sqlalchemy import schema\n")
    path.write_text(text.replace("    pass", f"    {upgrade}", 1).replace("    pass", f"    {downgrade}", 1))


def library_revision(database: Database) -> list[str]:
    """Return where the library's tables are."""
    return column(database, f"SELECT version_num FROM {VERSION_TABLE}")


def of_library(texts: list[str]) -> list[str]:
    """Leave out what the application's own tables and versions say."""
    own = re.compile(r"\b(customers\w*|alembic_version\w*)\b")
    return [text for text in texts if not own.search(text.replace(VERSION_TABLE, ""))]
