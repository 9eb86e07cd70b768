"""Sagas whose workers die in the middle of a payment and of a refund, and how they end all the same."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

from alembic import command
from alembic.config import Config
from outside import Bank, Books, Hotel
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from trip import Trip

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork, configure_engine
from cqrs_ddd_persistence_sqlalchemy.advanced import SagaRunner, SQLAlchemySagaRepository

HERE = Path(__file__).parent
# A worker that has died keeps the next one waiting for so long; a real one would be given half a minute.
LEASE = timedelta(seconds=2)


async def work(trips: SQLAlchemySagaRepository[Trip], books: Books) -> None:
    """Run sagas until none is left to be run."""
    runner = SagaRunner(
        trips,
        services={"bank": Bank(books), "hotel": Hotel(books)},
        lease=LEASE,
        backoff=timedelta(milliseconds=100),
        concurrency=1,
    )
    running = asyncio.create_task(runner.run())
    while any(not trip.status.is_terminal for trip in await trips.list()):  # noqa: ASYNC110  (it waits for a lease)
        await asyncio.sleep(0.1)
    runner.stop()
    await running


async def start_worker(arguments: argparse.Namespace, crash_at: str | None) -> int:
    """Run a worker in a process of its own; return how it ended."""
    options = ["--url", arguments.url, "--books", arguments.books, "--worker", crash_at or ""]
    process = await asyncio.create_subprocess_exec(sys.executable, str(HERE / "main.py"), *options)
    return await process.wait()


async def show(arguments: argparse.Namespace, trips: SQLAlchemySagaRepository[Trip]) -> None:
    """Start the sagas, let two workers die and a third one finish; print what has become of everything."""
    for traveller in ("Alice", "Bob"):
        await trips.add(Trip(traveller=traveller, price=100, correlation_id=f"trip of {traveller}"))
    for number, crash_at in enumerate(("charge Alice", "refund of: charge Bob", None), start=1):
        print(f"\nWorker {number}:", flush=True)
        if await start_worker(arguments, crash_at):
            print("   It is dead. Whoever comes next waits until its lease ends.", flush=True)
    print("\nThe sagas:")
    for trip in await trips.list():
        print(f"   {trip.traveller}: {trip.status}" + (f", as {trip.reason}" if trip.reason else ""))
        for record in trip.step_history:
            print(f"      {record.name}: {record.status}, begun {record.attempts} times")
    print("\nWhat was done outside, each once, however often it was asked for:")
    for what, asked in Books(Path(arguments.books)).read():
        print(f"   {what} (asked for {asked} times)")


def migrate(url: str) -> None:
    """Bring the database to the newest schema."""
    config = Config(HERE / "alembic.ini")
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    command.upgrade(config, "head")


async def main(arguments: argparse.Namespace) -> None:
    """Be the worker, or the one who looks on."""
    engine: AsyncEngine = configure_engine(create_async_engine(arguments.url))
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    trips = SQLAlchemySagaRepository(Trip, lambda: SQLAlchemyUnitOfWork(sessions))
    try:
        if arguments.worker is None:
            await show(arguments, trips)
        else:
            await work(trips, Books(Path(arguments.books), arguments.worker or None))
    finally:
        await engine.dispose()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--url", default=f"sqlite+aiosqlite:///{folder}/trips.db", help="a database without sagas")
        parser.add_argument("--books", default=f"{folder}/books.db", help=argparse.SUPPRESS)
        parser.add_argument("--worker", help=argparse.SUPPRESS)
        given = parser.parse_args()
        if given.worker is None:
            migrate(given.url)
        asyncio.run(main(given))
