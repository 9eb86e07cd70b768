"""Database URLs as people write them, made into ones that SQLAlchemy's async engine takes."""

from __future__ import annotations

from alembic.util import CommandError
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from cqrs_ddd_persistence_sqlalchemy.core.dialect import DIALECTS

DEFAULT_URL = "sqlite+aiosqlite:///app.db"

_DRIVERS = {
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
    "sqlite": "sqlite+aiosqlite",
}


def async_url(text: str, source: str) -> URL:
    """Return the URL with an async driver.

    Args:
        text: such as `postgresql://user:secret@host/name?sslmode=require` or `sqlite:///app.db`.
        source: where it was found, for errors; the text itself may hold a password and is not repeated.

    Raises:
        CommandError: when it is malformed, or names a database or driver that is not supported.
    """
    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError):
        raise CommandError(
            f"cannot read the database URL of {source}: "
            "write it like postgresql://user:password@host:5432/name or sqlite:///app.db"
        ) from None
    url = url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))
    if url.drivername not in _DRIVERS.values():
        raise CommandError(
            f"the database URL of {source} names the driver {url.drivername!r}: use {' or '.join(DIALECTS)} "
            "(postgresql+asyncpg, sqlite+aiosqlite)"
        )
    return _libpq_options(url)


def _libpq_options(url: URL) -> URL:
    """Translate the one libpq option that hosted databases put into their URLs; asyncpg calls it ssl."""
    sslmode = url.query.get("sslmode")
    if sslmode is None or not url.drivername.startswith("postgresql"):
        return url
    return url.difference_update_query(["sslmode"]).update_query_dict({"ssl": sslmode})
