"""Background jobs from the command line: list and show them, let them run again, cancel them, count and watch them."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING

from cqrs_ddd_advanced_core.background_jobs.status import JobStatus
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyJobControl
from cqrs_ddd_persistence_sqlalchemy.command_line.printing import as_bar, as_table, say, say_record, say_rows
from cqrs_ddd_persistence_sqlalchemy.command_line.running import add_database_options, database, run_command

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from cqrs_ddd_persistence_sqlalchemy.advanced import JobInfo

COMMAND = "python -m cqrs_ddd_persistence_sqlalchemy.jobs"
_LISTED = ("id", "job_type", "queue", "status", "progress", "retry_count", "due_at", "worker_id", "error")
_COMPUTED: Mapping[str, Callable[[JobInfo], str]] = {
    "progress": lambda job: as_bar(job.processed_items, job.total_items)
}
_COUNTED = ("job_type", "queue", "pending", "running", "completed", "failed", "cancelled", "waiting_seconds")
_CLEAR = "\x1b[H\x1b[2J"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 when it is done, 1 when a job is not there or cannot be changed, 2 when it cannot be done.
    """
    options = _parser().parse_args(arguments)
    return run_command(_run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    add_database_options(parser)
    commands = parser.add_subparsers(dest="command", required=True)
    listed = commands.add_parser("list", help="jobs, those that were written last first")
    listed.add_argument("--limit", type=int, default=50, metavar="N", help="(%(default)s)")
    watch = commands.add_parser("watch", help="the jobs that run, again and again, until interrupted")
    watch.add_argument("--seconds", type=float, default=1.0, metavar="S", help="between looks (%(default)s)")
    watch.add_argument("--times", type=int, metavar="N", help="so often, then end")
    watch.set_defaults(status=JobStatus.RUNNING, limit=50)
    for command in (listed, watch):
        command.add_argument("--type", metavar="CLASS", help="of this class only")
        command.add_argument("--queue", metavar="NAME", help="in this queue only")
    listed.add_argument("--status", type=JobStatus, choices=list(JobStatus), help="with this status only")
    stats = commands.add_parser("stats", help="how many there are of each class and queue")
    show = commands.add_parser("show", help="one job, with what it remembers")
    show.add_argument("id", metavar="ID")
    for command in (listed, stats, show):
        command.add_argument("--json", action="store_true", help="for scripts")
    for name, text in (
        ("retry", "let FAILED or CANCELLED jobs run again, with all their attempts"),
        ("cancel", "cancel jobs that wait, ask those that run to stop"),
    ):
        commands.add_parser(name, help=text).add_argument("ids", nargs="+", metavar="ID")
    return parser


async def _run(options: argparse.Namespace) -> int:
    async with database(options) as session_factory:
        control = SQLAlchemyJobControl(session_factory, schema=options.schema)
        match options.command:
            case "list":
                say_rows(await _found(control, options), _LISTED, as_json=options.json, computed=_COMPUTED)
            case "watch":
                await _watch(control, options)
            case "stats":
                say_rows(await control.stats(), _COUNTED, as_json=options.json)
            case "show":
                job = await control.get(options.id)
                if job is None:
                    say(f"{options.id}: there is no such job")
                    return 1
                say_record(job, as_json=options.json)
            case "retry":
                return await _each(options.ids, control.retry, "waits to be run again", "FAILED or CANCELLED")
            case "cancel":
                return await _each(options.ids, control.cancel, "is cancelled, or asked to stop", "PENDING or RUNNING")
    return 0


async def _found(control: SQLAlchemyJobControl, options: argparse.Namespace) -> list[JobInfo]:
    return await control.list(status=options.status, job_type=options.type, queue=options.queue, limit=options.limit)


async def _watch(control: SQLAlchemyJobControl, options: argparse.Namespace) -> None:
    if not options.seconds > 0:
        raise ValueError(f"--seconds is {options.seconds}: give a number above 0")
    times = 0
    while options.times is None or times < options.times:
        if times:
            await asyncio.sleep(options.seconds)
        table = as_table(await _found(control, options), _LISTED, computed=_COMPUTED)
        counts = as_table(await control.stats(), _COUNTED)
        say(f"{_CLEAR if sys.stdout.isatty() else ''}{counts}\n\n{table}")
        times += 1


async def _each(ids: Sequence[str], change: Callable[[str], Awaitable[bool]], done: str, needed: str) -> int:
    missing = 0
    for job_id in ids:
        try:
            changed, problem = await change(job_id), f"{job_id}: there is no such job that is {needed}"
        except ValueError as error:
            changed, problem = False, str(error)
        say(f"{job_id} {done}" if changed else problem)
        missing = missing if changed else 1
    return missing


if __name__ == "__main__":
    sys.exit(main())
