"""Projections from the command line: how they are, run, rebuild, pause and resume them, and what they have parked."""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyDeadLetterStore, SQLAlchemyProjectionControl
from cqrs_ddd_persistence_sqlalchemy.command_line.printing import Bar, say, say_rows
from cqrs_ddd_persistence_sqlalchemy.command_line.running import add_database_options, database, run_command
from cqrs_ddd_persistence_sqlalchemy.exceptions import PROJECTIONS_COMMAND
from cqrs_ddd_persistence_sqlalchemy.projections.running import run_until_told
from cqrs_ddd_persistence_sqlalchemy.schema import abandon_rebuild, rebuild
from cqrs_ddd_persistence_sqlalchemy.schema.configuration import load_config
from cqrs_ddd_persistence_sqlalchemy.schema.registry import chosen_projections

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from cqrs_ddd_advanced_core.projections.projection import Projection

_STATUS = (
    "name",
    "state",
    "position",
    "lag_events",
    "lag_seconds",
    "owner",
    "parked",
    "failures",
    "error_position",
    "error",
)
_LETTERS = ("event_position", "event_type", "aggregate_id", "failures", "replay_requested", "parked_at", "error")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 when it is done, 1 for `status` when a projection is paused, 2 when it cannot be done.
    """
    return run_command(_run(_parser().parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROJECTIONS_COMMAND, description=__doc__)
    add_database_options(parser)
    commands = parser.add_subparsers(dest="command", required=True)
    status = commands.add_parser("status", help="position, lag, state and owner of each; exits with 1 if one is paused")
    status.add_argument("--json", action="store_true", help="for scripts")
    run = commands.add_parser("run", help="keep projections up to date until SIGTERM or SIGINT")
    run.add_argument("names", nargs="*", metavar="NAME", help="all that `projections =` names, unless given")
    run.add_argument("--batch-size", type=int, default=500, metavar="N", help="events a transaction (%(default)s)")
    run.add_argument(
        "--lease-seconds", type=float, default=30, metavar="S", help="how long others wait for a dead one (%(default)s)"
    )
    run.add_argument("--on-failure", choices=["pause", "park"], default="pause", help="(%(default)s)")
    again = commands.add_parser("rebuild", help="make a projection anew from all events, then swap it in")
    again.add_argument("name", metavar="NAME")
    again.add_argument("--batch-size", type=int, default=1000, metavar="N", help="events a transaction (%(default)s)")
    again.add_argument("--restart", action="store_true", help="do not go on where an interrupted rebuild has stopped")
    again.add_argument("--abandon", action="store_true", help="drop what an interrupted rebuild has left")
    for name, text in (("pause", "stop a projection where it is"), ("resume", "let a paused projection go on")):
        commands.add_parser(name, help=text).add_argument("name", metavar="NAME")
    parked = commands.add_parser("parked", help="list the events that a projection went on without")
    parked.add_argument("name", metavar="NAME")
    parked.add_argument("--json", action="store_true", help="for scripts")
    parked.add_argument("--limit", type=int, default=100, metavar="N", help="(%(default)s)")
    for name, text in (("replay", "let the runner try parked events again"), ("discard", "forget parked events")):
        letters = commands.add_parser(name, help=text)
        letters.add_argument("name", metavar="NAME")
        letters.add_argument("positions", nargs="*", type=int, metavar="POSITION", help="of some; all unless given")
    return parser


async def _run(options: argparse.Namespace) -> int:
    config = load_config(options.config, options.section)
    async with database(options) as session_factory:
        control = SQLAlchemyProjectionControl(session_factory, schema=options.schema)
        letters = SQLAlchemyDeadLetterStore(session_factory, schema=options.schema)
        match options.command:
            case "status":
                found = await control.status()
                say_rows(found, _STATUS, as_json=options.json)
                return int(any(each.state == "paused" for each in found))
            case "run":
                chosen = chosen_projections(config, options.names)
                await run_until_told(
                    chosen,
                    session_factory,
                    batch_size=options.batch_size,
                    lease=timedelta(seconds=options.lease_seconds),
                    on_failure=options.on_failure,
                    schema=options.schema,
                )
            case "rebuild":
                await _rebuild(chosen_projections(config, [options.name])[0], session_factory, options)
            case "pause":
                say("paused" if await control.pause(options.name) else "was paused already")
            case "resume":
                say("resumed" if await control.resume(options.name) else "was not paused")
            case "parked":
                rows = await letters.parked(options.name, limit=options.limit)
                say_rows(rows, _LETTERS, as_json=options.json)
            case "replay":
                count = await letters.request_replay(options.name, options.positions or None)
                say(f"{count} events will be tried again by the projection's runner")
            case "discard":
                say(f"{await letters.discard(options.name, options.positions or None)} events are forgotten")
    return 0


async def _rebuild(
    projection: Projection, session_factory: async_sessionmaker[AsyncSession], options: argparse.Namespace
) -> None:
    if options.abandon:
        dropped = await abandon_rebuild(projection, session_factory, schema=options.schema)
        say("dropped" if dropped else "there was nothing to drop")
        return
    bar = Bar()
    try:
        position = await rebuild(
            projection,
            session_factory,
            restart=options.restart,
            batch_size=options.batch_size,
            progress=bar.show,
            schema=options.schema,
        )
    finally:
        bar.end()
    say(f"rebuilt from the events up to position {position}")


if __name__ == "__main__":
    sys.exit(main())
