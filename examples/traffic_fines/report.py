"""What a person sees of a run: bars on standard error while it works, tables on standard output at the end."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from totals import Totals, Work


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar for each step, where standard error is a terminal; say how far it is with (step, done, of)."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks = {}

        def show(step: str, done: int, of: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=of)
            bars.update(tasks[step], completed=done, total=of)

        yield show


def print_totals(totals: Totals) -> None:
    """Print some cases, the sums over all, and how long it took."""
    table = Table("case", box=SIMPLE, title="The largest fines of each status", title_justify="left")
    for heading in ("fine", "expense", "paid"):
        table.add_column(heading, justify="right")
    table.add_column("status")
    table.add_column("last activity")
    for row in totals.sample:
        amounts = (f"{row[column]:,.2f}" for column in ("fine_total", "expense", "paid"))
        table.add_row(row["case_id"], *amounts, row["status"], row["last_activity"])
    Console().print(table)
    statuses = ", ".join(f"{number:,} {status}" for status, number in totals.by_status.items())
    print(f"{totals.cases:,} cases of {totals.events:,} events: {statuses}")
    print(f"fines {totals.fine_total:,.2f}, expenses {totals.expense:,.2f}, paid {totals.paid:,.2f}")
    print(f"imported {_pace(totals.imported)}, projected {_pace(totals.projected)}")


def _pace(work: Work) -> str:
    if not work.events:
        return "nothing new"
    return f"{work.events:,} events in {work.seconds:.1f} s ({work.events / work.seconds:,.0f} a second)"
