"""What this run of Alembic is about: which chain, which database, which options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import alembic.context
from alembic.util import CommandError

from cqrs_ddd_persistence_sqlalchemy.schema.chain import LIBRARY_VERSION_TABLE, VERSIONS_FOLDER
from cqrs_ddd_persistence_sqlalchemy.schema.configuration import configured_url, given_url
from cqrs_ddd_persistence_sqlalchemy.schema.locking import DEFAULT_LOCK_WAIT_SECONDS
from cqrs_ddd_persistence_sqlalchemy.schema.tenant_schemas import checked_schema

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from sqlalchemy.engine import URL

_X_OPTIONS = {
    "url": "the database, before DATABASE_URL and the ini file",
    "schema": "the PostgreSQL schema to migrate, a tenant's; created if missing",
    "projection": "package.module:schema, the ProjectionSchema to write a revision for",
    "allow-data-loss": "yes: let a downgrade drop tables with rows in them",
    "allow-proxy": "yes: migrate through a proxy that pools by session",
}
_WRITING = {"upgrade", "downgrade", "do_stamp", "do_ensure_version"}
_CREATING = {"upgrade", "do_stamp", "do_ensure_version"}
DEFAULT_LOCK_TIMEOUT_SECONDS = 2
DEFAULT_LOCK_TIMEOUT_RETRIES = 30


@dataclass(frozen=True)
class Settings:
    """One run of Alembic.

    Attributes:
        command: what Alembic was asked for: "revision", "autogenerate" (revision --autogenerate), "check", or the name
            of its function: "upgrade", "downgrade", "do_stamp", "do_ensure_version", "display_version" (current), ...
        is_application: True for an application's own chain, which the library's goes before; False for the library's.
        schema: the one to work in, None for the connection's default.
        projection: the target of `-x projection=`, or None.
        projection_modules: what `projections =` says: the modules that declare all schemas, or None.
        lock_wait_seconds: how long to wait for another migration.
        lock_timeout_seconds: how long to wait for a table that is in use, on PostgreSQL.
        lock_timeout_retries: how often to try again after that.
    """

    command: str
    is_application: bool
    schema: str | None
    projection: str | None
    projection_modules: str | list[str] | None
    allow_data_loss: bool
    allow_proxy: bool
    lock_wait_seconds: float
    lock_timeout_seconds: float
    lock_timeout_retries: int

    @property
    def version_table(self) -> str:
        """The table that holds the head of this chain."""
        return "alembic_version" if self.is_application else LIBRARY_VERSION_TABLE

    @property
    def has_projections(self) -> bool:
        """Whether there are schemas to compare the database with."""
        return self.projection is not None or self.projection_modules is not None

    @property
    def writes(self) -> bool:
        """Whether the command changes the database, and so needs the lock."""
        return self.command in _WRITING

    @property
    def creates_schema(self) -> bool:
        """Whether the command makes the schema that it is told and does not find."""
        return self.command in _CREATING


def read_settings() -> Settings:
    """Read the settings of the command that is running.

    Raises:
        CommandError: for unknown or repeated -x options and contradictory configuration.
    """
    options = _x_options()
    config: Config = alembic.context.config
    script: ScriptDirectory = alembic.context.script
    is_application = _is_application(config, script)
    command = _command(config)
    if command == "revision" and "schema" in options:
        raise CommandError("a revision is the same for every schema: leave -x schema= out")
    if command in {"revision", "autogenerate"} and not is_application:
        _refuse_revision_in_package(config)
    return Settings(
        command=command,
        is_application=is_application,
        schema=checked_schema(options["schema"], "-x schema=") if "schema" in options else None,
        projection=options.get("projection"),
        projection_modules=config.get_alembic_option("projections"),
        allow_data_loss="allow-data-loss" in options,
        allow_proxy="allow-proxy" in options,
        lock_wait_seconds=_number(config, "lock_wait_seconds", DEFAULT_LOCK_WAIT_SECONDS),
        lock_timeout_seconds=_number(config, "lock_timeout_seconds", DEFAULT_LOCK_TIMEOUT_SECONDS),
        lock_timeout_retries=int(_number(config, "lock_timeout_retries", DEFAULT_LOCK_TIMEOUT_RETRIES)),
    )


def database_url() -> URL:
    """Return the database of this run: -x url=, DATABASE_URL, the ini's sqlalchemy.url, or the embedded default."""
    return given_url(_x_options().get("url"), "-x url=") or configured_url(alembic.context.config)


def _command(config: Config) -> str:
    # Alembic tells env.py everything but which command it serves; `context_opts` knows, behind the module's proxy.
    options: dict[str, Any] = alembic.context._proxy.context_opts  # type: ignore[attr-defined]  # noqa: SLF001
    revision = options.get("revision_context")
    if revision is None:
        return str(options["fn"].__name__)
    if not revision.command_args["autogenerate"]:
        return "revision"
    # `check` compares like `revision --autogenerate` does, but never has a message.
    by_command_line = getattr(config.cmd_opts, "autogenerate", False)
    return "autogenerate" if by_command_line or revision.command_args["message"] is not None else "check"


def _x_options() -> dict[str, str]:
    options: dict[str, str] = {}
    for argument in alembic.context.get_x_argument():
        name, _, value = argument.partition("=")
        if name not in _X_OPTIONS:
            known = "; ".join(f"-x {name}= ({meaning})" for name, meaning in _X_OPTIONS.items())
            raise CommandError(f"unknown option -x {name}; known are: {known}")
        if name in options:
            raise CommandError(f"-x {name} is given twice")
        if not value:
            raise CommandError(f"-x {name} needs a value: -x {name}=... ({_X_OPTIONS[name]})")
        if name.startswith("allow-") and value != "yes":
            raise CommandError(f"-x {name}={value}: the only value is yes ({_X_OPTIONS[name]})")
        options[name] = value
    return options


def _is_application(config: Config, script: ScriptDirectory) -> bool:
    """Tell an application's versions folder from the library's."""
    if not config.get_version_locations_list():
        return False
    folders = {Path(folder).resolve() for folder in script._version_locations}  # noqa: SLF001  (no public list)
    if VERSIONS_FOLDER not in folders:
        return True
    if len(folders) > 1:
        raise CommandError(
            "version_locations names the library's revisions beside your own, which makes two heads: name your own "
            "folder only, the library's chain is brought to its head first by itself"
        )
    return False


def _refuse_revision_in_package(config: Config) -> None:
    location = config.get_alembic_option("script_location") or ""
    if ":" in location and not Path(location).is_absolute():
        raise CommandError(
            "a new revision would land in the installed package: set version_locations to a folder of your application"
        )


def _number(config: Config, name: str, default: float) -> float:
    text = config.get_alembic_option(name) or str(default)
    try:
        number = float(text)
    except ValueError:
        number = -1
    whole = not name.endswith("_retries") or number.is_integer()
    if not (0 <= number < float("inf") and whole):
        unit = "seconds" if name.endswith("_seconds") else "retries"
        raise CommandError(f"{name} = {text!r}: give a number of {unit}")
    return number
