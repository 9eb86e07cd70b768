"""What a deploy decides, read from the environment once, in create_app and in the worker's main."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Settings:
    """The settings of one process.

    Attributes:
        database_url: such as sqlite:///orders.db or postgresql://user:password@host/name; a driver may be named.
        with_workers: whether the web process does the work in the background, too.
    """

    database_url: str = "sqlite:///orders.db"
    with_workers: bool = True

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read DATABASE_URL, and WITH_WORKERS, which is yes or no."""
        with_workers = environment.get("WITH_WORKERS", "yes")
        if with_workers not in {"yes", "no"}:
            raise ValueError(f"WITH_WORKERS is {with_workers!r}: say yes or no")
        return cls(environment.get("DATABASE_URL", cls.database_url), with_workers == "yes")
