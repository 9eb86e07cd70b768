"""Import traffic fines as events, project them into one row a case, print the result. Run again to go on."""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from operator import length_hint
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from csv_events import CsvError, CsvEvents
from generated_events import GeneratedEvents
from projection import fines_by_case
from read_models import fines
from report import print_totals, progress_bars
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidRequestError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from totals import Totals, Work, read_totals

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore, SQLAlchemyUnitOfWork, async_url, configure_engine
from cqrs_ddd_persistence_sqlalchemy.advanced import (
    ProjectionRunner,
    SQLAlchemyProjectionPositionStore,
    SQLAlchemyProjectionStore,
)
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError, PersistenceError
from cqrs_ddd_persistence_sqlalchemy.schema import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy.engine import Connection
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

    from cqrs_ddd_advanced_core import StoredEvent

    Progress = Callable[[str, int, int], None]

IMPORT = "traffic_fines.import"
# A run that was killed keeps the next one waiting for so long.
LEASE = timedelta(seconds=3)
DEFAULT_URL = "sqlite+aiosqlite:///traffic_fines.db"


class RunError(Exception):
    """Something that the person at the keyboard can set right; the message says what."""


@dataclass(frozen=True)
class Application:
    """The stores on one database."""

    session_factory: async_sessionmaker[AsyncSession]
    events: SQLAlchemyEventStore
    fines: SQLAlchemyProjectionStore
    positions: SQLAlchemyProjectionPositionStore

    @classmethod
    def on(cls, engine: AsyncEngine) -> Application:
        """Make the stores of an engine's database."""
        session_factory = async_sessionmaker(engine)
        return cls(
            session_factory,
            SQLAlchemyEventStore(session_factory),
            SQLAlchemyProjectionStore(session_factory, schemas=[fines]),
            SQLAlchemyProjectionPositionStore(session_factory),
        )


async def run(
    url: str, events: Iterable[StoredEvent], batch_size: int = 500, progress: Progress | None = None
) -> Totals:
    """Bring a database up to date: its schema, then its events, then its read model.

    May be killed at any moment: whatever is committed is consistent, and the next run goes on from there.

    Args:
        url: of the database, such as sqlite:///file.db or postgresql://user:password@host/name.
        events: in the same order whenever they are iterated over; those imported already are passed over.
        batch_size: events a transaction.
        progress: called after each batch with the step's name, the events done and the events there are.

    Raises:
        RunError: the database cannot be used, or does not fit the events.
        CsvError: raised by `events` on the way.
        PersistenceError: the schema is not what it should be.
    """
    engine = _open(url)
    show = progress or (lambda _step, _done, _of: None)
    try:
        await _migrate(engine)
        await verify(engine, schemas=[fines])
        app = Application.on(engine)
        imported = await import_events(app, events, batch_size, show)
        projected = await project_events(app, batch_size, show)
        return await read_totals(app.fines, imported=imported, projected=projected)
    finally:
        await engine.dispose()


async def import_events(app: Application, events: Iterable[StoredEvent], batch_size: int, show: Progress) -> Work:
    """Append the events that are not in the store yet."""
    started, imported, known = perf_counter(), 0, length_hint(events)
    while True:
        cursor = await app.positions.get_position(IMPORT) or 0
        remaining = await _behind(app, events, cursor)
        try:
            for batch in _batches(remaining, batch_size):
                await _append(app, batch, cursor)
                cursor += len(batch)
                imported += len(batch)
                show("importing", cursor, max(known, cursor))
            return Work(imported, perf_counter() - started)
        except OptimisticConcurrencyError as conflict:
            if conflict.entity_id != IMPORT:
                raise RunError(f"the events do not go on where the stored ones end: {conflict}") from conflict
            # Another run is importing the same: go on where it has come to.


async def project_events(app: Application, batch_size: int, show: Progress) -> Work:
    """Fold the events that are not in the read model yet into their cases' rows, or wait for another run to do it."""
    started, before = perf_counter(), await app.positions.get_position(fines_by_case.name) or 0
    runner = ProjectionRunner(
        app.events,
        fines_by_case,
        lambda: SQLAlchemyUnitOfWork(app.session_factory),
        batch_size=batch_size,
        lease=LEASE,
    )
    position = await runner.catch_up(lambda done, of: show("projecting", done, of))
    return Work(position - before, perf_counter() - started)


async def _append(app: Application, batch: list[StoredEvent], cursor: int) -> None:
    """Append a batch and move the cursor, both or neither.

    The cursor goes first: a second run waits there and is then refused, and an append holds up readers by position
    until its transaction ends, so it should come late.
    """
    async with SQLAlchemyUnitOfWork(app.session_factory) as uow:
        await app.positions.save_position(IMPORT, cursor + len(batch), expected=cursor, uow=uow)
        await app.events.append(batch, uow=uow)


async def _behind(app: Application, events: Iterable[StoredEvent], cursor: int) -> Iterator[StoredEvent]:
    """Return the events behind the cursor.

    Raises:
        RunError: when the one before it is not the last one that was imported.
    """
    remaining = iter(events)
    last = next(islice(remaining, cursor - 1, cursor), None) if cursor else None
    if cursor and not (last and await _is_stored(app, last)):
        raise RunError("this database holds the events of another import: name another database with --url")
    return remaining


async def _is_stored(app: Application, event: StoredEvent) -> bool:
    stored = await app.events.get_events(event.aggregate_id)
    return (event.event_id, event.payload) in ((each.event_id, each.payload) for each in stored)


def _batches(events: Iterator[StoredEvent], size: int) -> Iterator[list[StoredEvent]]:
    while batch := list(islice(events, size)):
        yield batch


def _open(url: str) -> AsyncEngine:
    try:
        return configure_engine(create_async_engine(async_url(url)))
    except (ArgumentError, InvalidRequestError, ImportError, PersistenceError, ValueError) as error:
        raise RunError(
            "the database URL cannot be used: write it like sqlite:///file.db or postgresql://user:password@host/name"
        ) from error


async def _migrate(engine: AsyncEngine) -> None:
    """Do what `alembic upgrade head` does, on a connection of this engine."""
    config = Config(Path(__file__).with_name("alembic.ini"))

    def upgrade(connection: Connection) -> None:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    try:
        connection = await engine.connect()
    except Exception as error:  # the drivers' own, OSError, or SQLAlchemy's: it cannot be reached either way
        shown = engine.url.render_as_string(hide_password=True)
        raise RunError(f"cannot connect to {shown}: {getattr(error, 'orig', error)}") from error
    try:
        await connection.run_sync(upgrade)
    finally:
        await connection.close()


def main(argv: list[str] | None = None) -> int:
    """Run with command line arguments; return the exit code: 0, or 2 after saying what to set right."""
    arguments = _arguments(argv)
    try:
        source = CsvEvents(arguments.events) if arguments.events else GeneratedEvents(arguments.cases)
        with progress_bars() as show:
            totals = asyncio.run(run(arguments.url, source, arguments.batch_size, show))
    except (CsvError, RunError, CommandError, PersistenceError) as error:
        return _fail(str(error))
    except DBAPIError as error:
        return _fail(f"the database failed: {error.orig}; run again to go on")
    except KeyboardInterrupt:
        return _fail("stopped; run again to go on", code=130)
    print_totals(totals)
    return 0


def _fail(message: str, code: int = 2) -> int:
    print(f"main.py: {message}", file=sys.stderr)
    return code


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--events", metavar="PATH", type=Path, help="a CSV file of events; made-up ones without it")
    source.add_argument("--cases", metavar="N", type=_positive, default=2000, help="made-up cases (%(default)s)")
    parser.add_argument("--url", default=DEFAULT_URL, help="the database (%(default)s)")
    parser.add_argument(
        "--batch-size", metavar="N", type=_positive, default=500, help="events a transaction (%(default)s)"
    )
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
