"""Database URLs as people write them, made into ones that SQLAlchemy's async engine takes."""

from __future__ import annotations

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

_DRIVERS = {
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
    "sqlite": "sqlite+aiosqlite",
}


def async_url(text: str, source: str = "") -> URL:
    """Return a database URL with an async driver: `create_async_engine(async_url(os.environ["DATABASE_URL"]))`.

    Args:
        text: such as `postgresql://user:secret@host/name?sslmode=require` or `sqlite:///app.db`; a driver may be named.
        source: where it was found, for errors; the text itself may hold a password and is not repeated.

    Raises:
        ValueError: it is malformed, or names a database or driver that is not supported.
    """
    which = f"the database URL of {source}" if source else "the database URL"
    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError):
        raise ValueError(
            f"cannot read {which}: write it like postgresql://user:password@host:5432/name or sqlite:///app.db"
        ) from None
    url = url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))
    if url.drivername not in _DRIVERS.values():
        raise ValueError(
            f"{which} names the driver {url.drivername!r}: use postgresql or sqlite (postgresql+asyncpg, "
            "sqlite+aiosqlite)"
        )
    return _libpq_options(url)


def _libpq_options(url: URL) -> URL:
    """Translate the one libpq option that hosted databases put into their URLs; asyncpg calls it ssl."""
    sslmode = url.query.get("sslmode")
    if sslmode is None or not url.drivername.startswith("postgresql"):
        return url
    return url.difference_update_query(["sslmode"]).update_query_dict({"ssl": sslmode})
