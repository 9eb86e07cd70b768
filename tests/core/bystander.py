"""What a session beside those of the test sees of the database; it waits for nobody."""

from __future__ import annotations

import sqlalchemy as sa


async def scalar(engine, statement, **parameters):
    """Return the one value that a statement asks for."""
    async with engine.connect() as connection:
        # The lock that SQLite's transactions take as they begin would make it wait for writers.
        await connection.execution_options(sqlite_begin="DEFERRED")
        return await connection.scalar(sa.text(statement), parameters)


async def locks(engine):
    """Count the advisory locks in this PostgreSQL database."""
    return await scalar(
        engine,
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )


async def waiting(engine):
    """Count the sessions of this PostgreSQL database that wait for another one's lock."""
    return await scalar(
        engine,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )


async def so_many_wait(engine, count):
    """Tell whether exactly this number of sessions wait for another one's lock."""
    return await waiting(engine) == count
