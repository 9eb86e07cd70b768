"""`python -m cqrs_ddd_persistence_sqlalchemy.schema check`: fails when a schema has changed without a revision."""

from __future__ import annotations

import argparse
import os
import sys

from alembic.config import Config
from alembic.util import CommandError

from cqrs_ddd_persistence_sqlalchemy.schema.check import unrecorded_changes


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 when every schema has its revision, 1 when one has not, 2 when it cannot be told.
    """
    parser = argparse.ArgumentParser(
        prog="python -m cqrs_ddd_persistence_sqlalchemy.schema", description="Revisions and the schemas they are for."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="fail when a schema has changed without a revision; needs no database")
    check.add_argument(
        "-c",
        "--config",
        help="the ini or toml file of Alembic; otherwise alembic.ini and pyproject.toml, as Alembic does",
    )
    check.add_argument("-n", "--name", default="alembic", help="the section of the ini file (alembic)")
    options = parser.parse_args(arguments)
    try:
        changes = unrecorded_changes(_config(options.config, options.name))
    except CommandError as error:
        print(f"FAILED: {error}", file=sys.stderr)  # noqa: T201
        return 2
    for change in changes:
        print(change)  # noqa: T201
    if changes:
        print('run: alembic revision --autogenerate -m "..."', file=sys.stderr)  # noqa: T201
    return 1 if changes else 0


def _config(path: str | None, section: str) -> Config:
    path = path or os.environ.get("ALEMBIC_CONFIG")
    files = [path] if path else ["alembic.ini", "pyproject.toml"]
    present = [each for each in files if os.path.exists(each)]  # noqa: PTH110
    if not present:
        raise CommandError(f"there is no {' or '.join(files)} here: run it where you run alembic, or pass -c")
    toml = [each for each in present if each.endswith(".toml")]
    ini = [each for each in present if not each.endswith(".toml")]
    return Config(ini[0] if ini else None, toml_file=toml[0] if toml else None, ini_section=section)


if __name__ == "__main__":
    sys.exit(main())
