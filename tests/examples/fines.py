"""Running the traffic fines demo, and comparing what it made with the log it has read."""

from __future__ import annotations

import asyncio
import csv
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionPositionStore, SQLAlchemyProjectionStore
from tests.support.databases import ROOT

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLE = ROOT / "examples" / "traffic_fines"
LOG = ROOT.parent / "shared" / "data" / "traffic_fines.csv"
needs_log = pytest.mark.skipif(not LOG.exists(), reason="the public log is not part of the project; see the example")


@dataclass
class Case:
    """What the log says of one case, summed up without the library."""

    fine_total: Decimal = Decimal(0)
    expense: Decimal = Decimal(0)
    paid: Decimal = Decimal(0)
    last_activity: str = ""
    events: int = 0


def cases_of(path: Path) -> dict[str, Case]:
    """Sum up a log: an amount replaces the fine, expenses and payments add up."""
    cases: dict[str, Case] = defaultdict(Case)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            case = cases[row["case_id"]]
            case.fine_total = Decimal(row["amount"]) if row["amount"] else case.fine_total
            case.expense += Decimal(row["expense"] or 0)
            case.paid += Decimal(row["payment_amount"] or 0)
            case.last_activity = row["activity"].title().replace(" ", "")
            case.events += 1
    return cases


def start(database, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(EXAMPLE / "main.py"), "--url", database.url, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=database.path.parent if database.kind == "sqlite" else None,
    )


def run(database, *arguments: str) -> str:
    process = start(database, *arguments)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output


async def read_back(database) -> tuple[dict[str, Case], list[tuple[str, int]], dict[str, int]]:
    engine = create_async_engine(database.url)
    sessions = async_sessionmaker(engine)
    rows = [row async for row in SQLAlchemyProjectionStore(sessions).stream("fines")]
    events = [(each.event_id, each.version) async for each in SQLAlchemyEventStore(sessions).stream_after(0)]
    positions = await SQLAlchemyProjectionPositionStore(sessions).all_positions()
    await engine.dispose()
    cases = {
        row["case_id"]: Case(
            row["fine_total"], row["expense"], row["paid"], row["last_activity"].title(), row["_version"]
        )
        for row in rows
    }
    return cases, events, positions


def assert_equal_to_log(database, path: Path) -> None:
    """Compare every case, the number of events and their ids with the log."""
    expected = cases_of(path)
    for case in expected.values():
        case.last_activity = case.last_activity.title()
    cases, events, _ = asyncio.run(read_back(database))
    assert cases == expected
    assert len(events) == sum(case.events for case in expected.values())
    assert len(set(events)) == len(events)


def write_log(path: Path, *, cases: int) -> Path:
    """Write a log of our own, three events a case, the cases interleaved."""
    names = [
        "event_no",
        "case_id",
        "version",
        "activity",
        "timestamp",
        "amount",
        "expense",
        "payment_amount",
        "total_payment_amount",
    ]
    steps = [("Create Fine", "35.00", "", ""), ("Send Fine", "", "11.10", ""), ("Payment", "", "", "46.10")]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        number = 0
        for version, (activity, amount, expense, payment) in enumerate(steps, 1):
            for case in range(cases):
                number += 1
                moment = f"2026-0{version}-01T00:{case // 60:02}:{case % 60:02}+00:00"
                writer.writerow([number, f"C{case}", version, activity, moment, amount, expense, payment, payment])
    return path
