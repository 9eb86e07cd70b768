"""`python -m cqrs_ddd_persistence_sqlalchemy.schema`: whether schemas have revisions, and following the library."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from alembic.script import ScriptDirectory
from alembic.util import CommandError

from cqrs_ddd_persistence_sqlalchemy.schema.check import unrecorded_changes
from cqrs_ddd_persistence_sqlalchemy.schema.configuration import add_config_options, load_config
from cqrs_ddd_persistence_sqlalchemy.schema.library_revision import is_own_environment, write_library_revision

if TYPE_CHECKING:
    from alembic.config import Config

COMMAND = "python -m cqrs_ddd_persistence_sqlalchemy.schema"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 when it is done and every schema has its revision, 1 when one has not, 2 when it cannot be told or done.
    """
    options = _parser().parse_args(arguments)
    try:
        config = load_config(options.config, options.section)
        if options.command == "check":
            return _check(config)
        written = write_library_revision(config, message=options.message, version_path=options.version_path)
    except CommandError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 2
    if written is None:  # otherwise Alembic has said what it wrote
        print("the revisions come to the newest one already")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=COMMAND, description="Revisions and what they are for.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="fail when a schema has changed without a revision; needs no database")
    revision = commands.add_parser(
        "revision", help="for an Alembic environment of your own: write what brings the library's tables up to date"
    )
    revision.add_argument("-m", "--message", help="of the revision; says where it goes unless given")
    revision.add_argument("--version-path", help="the folder for it, where version_locations has several")
    for command in (check, revision):
        add_config_options(command)
    return parser


def _check(config: Config) -> int:
    changes = unrecorded_changes(config)
    for change in changes:
        print(change)
    if changes:
        follows = is_own_environment(ScriptDirectory.from_config(config))
        command = f"{COMMAND} revision" if follows else 'alembic revision --autogenerate -m "..."'
        print(f"run: {command}", file=sys.stderr)
    return 1 if changes else 0


if __name__ == "__main__":
    sys.exit(main())
