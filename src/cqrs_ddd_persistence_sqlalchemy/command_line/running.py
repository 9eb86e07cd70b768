"""How a command is run: on its database, with errors that a person can read."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from cqrs_ddd_persistence_sqlalchemy.core.dialect import DIALECTS, configure_engine
from cqrs_ddd_persistence_sqlalchemy.exceptions import PersistenceError
from cqrs_ddd_persistence_sqlalchemy.schema.configuration import (
    ConfigurationError,
    add_config_options,
    configured_url,
    given_url,
    load_config,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Coroutine
    from typing import Any

    from sqlalchemy.ext.asyncio import AsyncSession


def run_command(command: Coroutine[Any, Any, int]) -> int:
    """Run a command to its end.

    Returns:
        What the command returns; 2 when it cannot be done, as standard error then says; 130 when interrupted.
    """
    try:
        return asyncio.run(command)
    except (ConfigurationError, PersistenceError, ValueError) as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        return _failed("interrupted", code=130)
    except Exception as error:  # what the drivers and the network raise, wrapped or not
        reasons = (dialect.connect_error(error) for dialect in DIALECTS.values())
        reason = next((reason for reason in reasons if reason is not None), None)
        if reason is None:
            raise
        return _failed(f"the database does not answer as it should: {reason}")


def add_database_options(parser: argparse.ArgumentParser) -> None:
    """Let a command be told which database."""
    add_config_options(parser)
    parser.add_argument("--url", help="the database; otherwise DATABASE_URL, the ini's sqlalchemy.url, or app.db")
    parser.add_argument("--schema", help="of the tables, a tenant's; otherwise the database user's default one")
    parser.add_argument(
        "--transaction-pooling", action="store_true", help="it is behind a proxy that pools by transaction (PgBouncer)"
    )


@asynccontextmanager
async def database(options: argparse.Namespace) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Open the database that a command was told; the configuration is asked only where nothing else says which."""
    url = given_url(options.url, "--url") or configured_url(load_config(options.config, options.section))
    if options.schema is not None and not DIALECTS[url.get_backend_name()].has_schemas:
        raise ConfigurationError(
            f"--schema {options.schema}: SQLite has no schemas; give each tenant a file of its own, with --url or "
            "DATABASE_URL"
        )
    engine = configure_engine(create_async_engine(url), transaction_pooling=options.transaction_pooling)
    try:
        yield async_sessionmaker(engine, expire_on_commit=False)
    finally:
        await engine.dispose()


def _failed(message: str, code: int = 2) -> int:
    print(f"FAILED: {message}", file=sys.stderr)
    return code
