"""Alembic's configuration, found as Alembic finds it, for commands beside Alembic's own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from cqrs_ddd_persistence_sqlalchemy.core.dialect import async_url

if TYPE_CHECKING:
    import argparse

    from sqlalchemy.engine import URL

DEFAULT_URL = "sqlite+aiosqlite:///app.db"

#: What is wrong with a configuration, under a name for those who do not import alembic.
ConfigurationError = CommandError

#: How a configuration names the modules with the schemas, in either kind of file.
PROJECTIONS_SETTING = 'projections = ["package.read_models"] (in alembic.ini: projections = package.read_models)'


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Let a command be told which configuration to use."""
    parser.add_argument(
        "-c",
        "--config",
        help="the ini or toml file of Alembic; otherwise alembic.ini and pyproject.toml, as Alembic does",
    )
    parser.add_argument("-n", "--name", dest="section", default="alembic", help="the section of the ini file (alembic)")


def load_config(path: str | None, section: str) -> Config:
    """Read the configuration in a file, or in the ones that Alembic would read.

    Raises:
        CommandError: there is none.
    """
    path = path or os.environ.get("ALEMBIC_CONFIG")
    files = [path] if path else ["alembic.ini", "pyproject.toml"]
    present = [each for each in files if Path(each).exists()]
    if not present:
        raise CommandError(f"there is no {' or '.join(files)} here: run it where you run alembic, or pass -c")
    toml = [each for each in present if each.endswith(".toml")]
    ini = [each for each in present if not each.endswith(".toml")]
    return Config(ini[0] if ini else None, toml_file=toml[0] if toml else None, ini_section=section)


def chain_of(config: Config) -> ScriptDirectory:
    """Return the chain of a configuration; from now on its modules are found, too."""
    script = ScriptDirectory.from_config(config)  # also puts prepend_sys_path in place
    prepare_imports(config)
    return script


def refuse_several_heads(script: ScriptDirectory) -> None:
    """Stop where a chain forks, so that nobody can say which revision comes last.

    Raises:
        CommandError: naming the heads.
    """
    heads = script.get_heads()
    if len(heads) > 1:
        raise CommandError(f"there are {len(heads)} heads, {', '.join(heads)}; run: alembic merge heads")


def prepare_imports(config: Config) -> None:
    """Let modules be found beside the configuration, unless prepend_sys_path says where they are."""
    found = config.config_file_name or config.toml_file_name
    if found and not config.get_prepend_sys_paths_list():
        folder = str(Path(found).resolve().parent)
        if folder not in sys.path:
            sys.path.insert(0, folder)


def given_url(given: str | None, option: str) -> URL | None:
    """Return the database that an option gives, else DATABASE_URL; None where neither is there.

    Raises:
        CommandError: naming the one that cannot be used.
    """
    if given:
        return _url(given, option)
    return _url(os.environ["DATABASE_URL"], "DATABASE_URL") if os.environ.get("DATABASE_URL") else None


def configured_url(config: Config) -> URL:
    """Return the database where nothing else says which: the configuration's sqlalchemy.url, or the embedded default.

    Raises:
        CommandError: it cannot be used.
    """
    return _url(config.get_alembic_option("sqlalchemy.url") or DEFAULT_URL, "sqlalchemy.url in the configuration")


def _url(text: str, source: str) -> URL:
    try:
        return async_url(text, source)
    except ValueError as error:
        raise CommandError(str(error)) from None
