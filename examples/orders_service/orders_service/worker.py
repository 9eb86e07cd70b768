"""The work in the background in a process of its own: `python -m orders_service.worker`."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

from cqrs_ddd_persistence_sqlalchemy.exceptions import SchemaOutOfDateError
from orders_service.settings import Settings
from orders_service.wiring import open_parts
from orders_service.workers import Workers


async def work(settings: Settings) -> int:
    """Work until SIGTERM or SIGINT; return the exit code, 1 when something has ended by itself."""
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    async with open_parts(settings) as parts, Workers(parts) as workers:
        ends = {asyncio.create_task(told.wait()), asyncio.create_task(workers.wait_for_death())}
        _, waiting = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()
        return 1 if workers.dead else 0


def main() -> int:
    """Run with the settings of the environment."""
    logging.basicConfig(level=logging.INFO)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # which otherwise tells how it looks at the database
    try:
        return asyncio.run(work(Settings.from_environment()))
    except SchemaOutOfDateError as error:
        print(f"orders_service.worker: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
