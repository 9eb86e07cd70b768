"""`python -m cqrs_ddd_persistence_sqlalchemy.schema check`: fails when a schema has changed without a revision."""

from __future__ import annotations

import argparse
import sys

from alembic.util import CommandError

from cqrs_ddd_persistence_sqlalchemy.schema.check import unrecorded_changes
from cqrs_ddd_persistence_sqlalchemy.schema.configuration import add_config_options, load_config


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
    add_config_options(check)
    options = parser.parse_args(arguments)
    try:
        changes = unrecorded_changes(load_config(options.config, options.section))
    except CommandError as error:
        print(f"FAILED: {error}", file=sys.stderr)  # noqa: T201
        return 2
    for change in changes:
        print(change)  # noqa: T201
    if changes:
        print('run: alembic revision --autogenerate -m "..."', file=sys.stderr)  # noqa: T201
    return 1 if changes else 0


if __name__ == "__main__":
    sys.exit(main())
