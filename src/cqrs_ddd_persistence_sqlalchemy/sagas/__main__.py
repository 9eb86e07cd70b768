"""Sagas from the command line: list, show and count them."""

from __future__ import annotations

import argparse
import sys

from cqrs_ddd_advanced_core.sagas.status import SagaStatus
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemySagaControl
from cqrs_ddd_persistence_sqlalchemy.command_line.printing import say, say_record, say_rows
from cqrs_ddd_persistence_sqlalchemy.command_line.running import add_database_options, database, run_command

COMMAND = "python -m cqrs_ddd_persistence_sqlalchemy.sagas"
_LISTED = ("id", "saga_type", "correlation_id", "status", "step", "reason", "error", "updated_at")
_COUNTED = ("saga_type", *(status.value.lower() for status in SagaStatus))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 when it is done, 1 when a saga is not there, 2 when it cannot be done.
    """
    return run_command(_run(_parser().parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    add_database_options(parser)
    commands = parser.add_subparsers(dest="command", required=True)
    listed = commands.add_parser("list", help="sagas, those that were written last first")
    listed.add_argument("--status", type=SagaStatus, choices=list(SagaStatus), help="with this status only")
    listed.add_argument("--type", metavar="CLASS", help="of this class only")
    listed.add_argument("--limit", type=int, default=50, metavar="N", help="(%(default)s)")
    show = commands.add_parser("show", help="one saga, with what it remembers and the history of its steps")
    show.add_argument("id", metavar="ID")
    stats = commands.add_parser("stats", help="how many there are of each class and status")
    for command in (listed, show, stats):
        command.add_argument("--json", action="store_true", help="for scripts")
    return parser


async def _run(options: argparse.Namespace) -> int:
    async with database(options) as session_factory:
        control = SQLAlchemySagaControl(session_factory, schema=options.schema)
        match options.command:
            case "list":
                found = await control.list(status=options.status, saga_type=options.type, limit=options.limit)
                say_rows(found, _LISTED, as_json=options.json)
            case "stats":
                say_rows(await control.stats(), _COUNTED, as_json=options.json)
            case "show":
                saga = await control.get(options.id)
                if saga is None:
                    say(f"{options.id}: there is no such saga")
                    return 1
                say_record(saga, as_json=options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
