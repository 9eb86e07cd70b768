"""A program that runs the library's chain, instead of the command line."""

from __future__ import annotations

from alembic.config import Config

from tests.support.databases import ROOT


def chain(given: object = None) -> Config:
    """Return the configuration of a program that runs the chain on what it has at hand."""
    config = Config(ROOT / "alembic.ini")
    config.set_main_option("script_location", str(ROOT / "migrations"))
    config.attributes["connection"] = given
    return config
