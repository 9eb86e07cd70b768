"""What migrations/env.py runs, here and in applications: online, as a script, or to write a revision."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import contextmanager, nullcontext
from functools import partial
from io import StringIO
from logging.config import fileConfig
from typing import TYPE_CHECKING, Any, NoReturn

from alembic import context
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_of, prepare_for_reflection
from cqrs_ddd_persistence_sqlalchemy.schema.chain import (
    LIBRARY_VERSION_TABLE,
    library_is_behind,
    library_script,
    upgrade_library,
)
from cqrs_ddd_persistence_sqlalchemy.schema.configuration import PROJECTIONS_SETTING, prepare_imports
from cqrs_ddd_persistence_sqlalchemy.schema.data_loss import nothing_lost
from cqrs_ddd_persistence_sqlalchemy.schema.errors import connection_errors_in_one_line, schema_errors_in_one_line
from cqrs_ddd_persistence_sqlalchemy.schema.lock_timeout import limit_in_script, with_short_locks
from cqrs_ddd_persistence_sqlalchemy.schema.locking import migration_lock
from cqrs_ddd_persistence_sqlalchemy.schema.revisions import ProjectionRevision
from cqrs_ddd_persistence_sqlalchemy.schema.settings import Settings, database_url, read_settings
from cqrs_ddd_persistence_sqlalchemy.schema.target import compare_options
from cqrs_ddd_persistence_sqlalchemy.schema.tenant_schemas import (
    create_schema,
    inside_schema,
    refuse_missing_schema,
    script_begin,
    script_end,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy.engine import URL


def run() -> None:
    """Do what the running Alembic command asks for.

    A connection in `config.attributes["connection"]` (a Connection, an Engine or an AsyncEngine) is used as it is; a
    transaction that is open on it is joined, and stays the caller's to commit.

    Raises:
        CommandError: for everything a user can set right, in one line.
    """
    config = context.config
    if config.cmd_opts is not None and config.config_file_name and config.file_config.has_section("loggers"):
        fileConfig(config.config_file_name, disable_existing_loggers=False)
    settings = read_settings()
    prepare_imports(config)
    if settings.command == "autogenerate" and settings.is_application and not settings.has_projections:
        raise CommandError(
            "there is nothing to compare the database with: name the module that declares your schemas in the "
            f"configuration, as in {PROJECTIONS_SETTING}"
        )
    if settings.projection is not None and settings.command not in {"revision", "autogenerate"}:
        raise CommandError(
            "-x projection= writes one projection's revision: use it as "
            'alembic -x projection=package.module:schema revision -m "..."'
        )
    if settings.command == "revision":
        _write_revision(settings)
    elif context.is_offline_mode():
        _write_script(settings, database_url())
    else:
        _run_online(settings, config.attributes.get("connection"))


def _write_revision(settings: Settings) -> None:
    """Render a revision without a database: its DDL is the same on all of them."""
    revision = ProjectionRevision(settings, context.script, context.config)
    logger = logging.getLogger("alembic.runtime.migration")
    logger.disabled = True  # it would tell of a database, and there is none
    try:
        context.configure(url="postgresql+asyncpg://", as_sql=True, **revision.options)
        context.run_migrations()
    finally:
        logger.disabled = False


def _write_script(settings: Settings, url: URL) -> None:
    """Write SQL to standard output."""
    limit = partial(limit_in_script, seconds=settings.lock_timeout_seconds)
    script = StringIO()  # half of one would be worse than none
    script.write(script_begin(url.get_dialect()(), settings.schema, create=settings.creates_schema))
    options: dict[str, Any] = {"as_sql": True, "output_buffer": script, "transactional_ddl": True}
    if settings.is_application and settings.command == "upgrade":
        if context.get_starting_revision_argument() is None:
            upgrade_library(limit, url=url, dialect_opts={"paramstyle": "named"}, opts=dict(options))
        else:
            print(  # noqa: T201  (beside the script, which goes to standard output)
                "the script begins at a revision of yours, so the library's chain is taken to be at its head",
                file=sys.stderr,
            )
    context.configure(
        url=url,
        literal_binds=True,
        dialect_opts={"paramstyle": "named"},
        version_table=settings.version_table,
        transaction_per_migration=True,
        **options,
    )
    limit(context.get_context())
    prepare_for_reflection(context.get_context().dialect)
    try:
        with context.begin_transaction():
            context.run_migrations()
    except CommandError as error:
        if "requires a live database connection" not in str(error):
            raise
        raise CommandError(
            "a revision changes columns or constraints, for which SQLite has to copy the table as it finds it: that "
            "cannot be written as a script; run alembic upgrade on the database itself"
        ) from error
    script.write(script_end(settings.schema))
    (context.config.output_buffer or sys.stdout).write(script.getvalue())


def _run_online(settings: Settings, given: Any) -> None:
    if isinstance(given, Connection):
        _run_on(given, settings)
    elif given is None or isinstance(given, AsyncEngine):
        _refuse_running_loop()
        asyncio.run(_run_async(settings, given))
    elif callable(getattr(given, "connect", None)):  # an Engine, or what a test tool wraps around a connection
        with given.connect() as connection:
            _run_on(connection, settings)
    else:
        raise CommandError(
            f"config.attributes['connection'] is a {type(given).__name__}: give a Connection, as in "
            "await connection.run_sync(lambda sync: command.upgrade(config_with(sync), 'head'))"
        )


async def _run_async(settings: Settings, given: AsyncEngine | None) -> None:
    if given is not None:
        async with given.connect() as connection:
            await connection.run_sync(_run_on, settings)
        return
    engine = create_async_engine(database_url(), poolclass=NullPool)
    dialect_of(engine).prepare_for_migrations(engine.sync_engine)
    # Through a proxy, what other clients have prepared would fail us before the proxy is recognised and refused.
    dialect_of(engine).prepare_for_transaction_pooling(engine.sync_engine)
    try:
        with connection_errors_in_one_line(engine):
            dialect_of(engine).probe(engine.url)
            connection = await engine.connect()
        try:
            await connection.run_sync(_run_on, settings)
        finally:
            await connection.close()
    finally:
        await engine.dispose()


def _run_on(connection: Connection, settings: Settings) -> None:
    lock = _lock(connection, settings) if settings.writes else nullcontext()
    with schema_errors_in_one_line(connection), inside_schema(connection, settings.schema), lock:
        if settings.creates_schema:
            create_schema(connection, settings.schema)
        with _looking_only(connection):
            refuse_missing_schema(connection, settings.schema)
            _refuse_newer_database(connection, settings)
            if settings.is_application and settings.command == "check":
                _refuse_old_library(connection)
        with_short_locks(connection, settings, lambda: _migrate(connection, settings))


def _lock(connection: Connection, settings: Settings) -> AbstractContextManager[None]:
    return migration_lock(
        connection,
        wait_seconds=settings.lock_wait_seconds,
        allow_proxy=settings.allow_proxy,
        schema=settings.schema,
    )


def _migrate(connection: Connection, settings: Settings) -> None:
    joined = connection.in_transaction()
    if settings.is_application and settings.command == "upgrade":
        upgrade_library(connection=connection, opts=_transactions(settings, connection))
        if not joined:
            connection.commit()  # a transaction left open by looking would be taken for the caller's
    revision = ProjectionRevision(settings, context.script, context.config)
    context.configure(
        connection=connection,
        version_table=settings.version_table,
        **_transactions(settings, connection),
        **compare_options(settings, connection.dialect),
        **revision.options,
    )
    prepare_for_reflection(context.get_context().dialect)
    if joined:
        context.get_context().autocommit_block = _refuse_autocommit  # type: ignore[method-assign]  # it has no hook
    with context.begin_transaction(), nothing_lost(connection, drops_refused=_must_keep_rows(settings)):
        context.run_migrations()


def _refuse_autocommit() -> NoReturn:
    """Say what Alembic only asserts."""
    raise CommandError(
        "a revision builds an index CONCURRENTLY, which PostgreSQL cannot do inside a transaction: hand over a "
        "connection that is in none"
    )


def _transactions(settings: Settings, connection: Connection) -> dict[str, Any]:
    """One transaction a revision going up, so that locks are short; one for all going down: all or nothing."""
    one = dialect_of(connection).migrates_in_one_transaction or settings.command == "downgrade"
    return {"transactional_ddl": True, "transaction_per_migration": not one}


def _must_keep_rows(settings: Settings) -> bool:
    return settings.command == "downgrade" and not settings.allow_data_loss


@contextmanager
def _looking_only(connection: Connection) -> Iterator[None]:
    """End the transaction that looking began: Alembic would take it for the caller's, and commit nothing."""
    joined = connection.in_transaction()
    yield
    if not joined:
        connection.rollback()


def _refuse_newer_database(connection: Connection, settings: Settings) -> None:
    """Say what an unknown revision in a version table means; Alembic only says that it cannot locate it."""
    chains = [(settings.version_table, context.script)]
    if settings.is_application:
        chains.append((LIBRARY_VERSION_TABLE, library_script()))
    for table, script in chains:
        migration = MigrationContext.configure(connection, opts={"version_table": table})
        unknown = set(migration.get_current_heads()) - {each.revision for each in script.walk_revisions()}
        if unknown and settings.command != "do_stamp":
            raise CommandError(
                f"the database is at revision {', '.join(sorted(unknown))} ({table}), which this code does not have: "
                "it was migrated by a newer release, so run that one; nothing is changed"
            )


def _refuse_old_library(connection: Connection) -> None:
    behind = library_is_behind(connection)
    if behind:
        raise CommandError(f"the database is behind the library: {behind}; run: alembic upgrade head")


def _refuse_running_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise CommandError(
        "called from inside a running event loop: hand over a connection, as in "
        "async with engine.connect() as connection: await connection.run_sync(migrate), where migrate(sync) sets "
        "config.attributes['connection'] = sync and calls command.upgrade(config, 'head')"
    )
