"""Fresh databases for tests: each an exact copy of one that the library's revisions have migrated."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
from sqlalchemy.engine import make_url

from tests.support.processes import environment, run_command

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.support.pgbouncer import Proxy
    from tests.support.postgres import Server

ROOT = Path(__file__).parents[2]
_numbers = count(1)


@dataclass(frozen=True)
class Database:
    """A database of one test; `kind` is "sqlite" or "postgresql"."""

    kind: str
    #: For engines, with tests.support.engines: through the proxy, where this run has one.
    url: str
    #: To the server itself, where `url` is another one.
    direct: str | None = None

    @property
    def direct_url(self) -> str:
        """For migrations, and for what lasts as long as a session."""
        return self.direct or self.url

    @property
    def dsn(self) -> str:
        """The direct url as asyncpg and psql read it."""
        return self.direct_url.replace("+asyncpg", "")

    @property
    def path(self) -> Path:
        """The file of an SQLite database."""
        return Path(make_url(self.url).database or "")


class Databases:
    """Makes databases, on a server and in a folder."""

    def __init__(self, server: Server, folder: Path, proxy: Proxy | None = None) -> None:
        self.server = server
        self.proxy = proxy
        self._folder = folder
        self._templates: dict[str, str] = {}
        # One connection for all databases that are made: connecting takes longer than making one.
        self._runner = asyncio.Runner()
        self._connection: asyncpg.Connection | None = None

    @contextmanager
    def fresh(self, kind: str, *, migrated: bool = True) -> Iterator[Database]:
        """Make a database, migrated to the head of the library's chain or empty, and remove it afterwards."""
        name = f"test_{os.getpid()}_{next(_numbers)}"
        template = self._template(kind) if migrated else ""
        if kind == "sqlite":
            path = self._folder / f"{name}.db"
            if template:
                shutil.copy(template, path)
            url = f"sqlite+aiosqlite:///{path}"
            yield Database(kind, url)
            for leftover in path.parent.glob(f"{path.name}*"):
                leftover.unlink()
        else:
            self.admin(f"CREATE DATABASE {name} TEMPLATE {template or 'template0'}")
            direct = make_url(self.server.url).set(database=name).render_as_string(hide_password=False)
            try:
                yield Database(kind, self.proxy.url(direct) if self.proxy else direct, direct)
            finally:  # the connections that a proxy keeps are among those that end by force
                self.admin(f"DROP DATABASE {name} WITH (FORCE)")

    def admin(self, statement: str) -> None:
        """Run a statement on the server, outside any test's database."""

        async def run() -> None:
            if self._connection is None or self._connection.is_closed():
                self._connection = await asyncpg.connect(self.server.url.replace("+asyncpg", ""))
            await self._connection.execute(statement)

        self._runner.run(run())

    def close(self) -> None:
        """Remove what the server would otherwise keep, and the connection."""
        if "postgresql" in self._templates:
            self.admin(f"DROP DATABASE {self._templates['postgresql']} WITH (FORCE)")
        if self._connection is not None:
            self._runner.run(self._connection.close())
        self._runner.close()

    def _template(self, kind: str) -> str:
        if kind not in self._templates:
            name = f"template_{os.getpid()}"
            if kind == "sqlite":
                url, self._templates[kind] = f"sqlite:///{self._folder}/{name}.db", f"{self._folder}/{name}.db"
            else:
                self.admin(f"CREATE DATABASE {name} TEMPLATE template0")
                url = make_url(self.server.url).set(database=name).render_as_string(hide_password=False)
                self._templates[kind] = name
            alembic("upgrade", "head", url=url)
        return self._templates[kind]


def alembic(
    *arguments: str, url: str | None = None, cwd: Path = ROOT, check: bool = True, x: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the alembic command line in a process of its own, as a deploy does."""
    options = [part for option in x for part in ("-x", option)]
    done = run_command(*options, *arguments, cwd=cwd, environment=environment(url), module="alembic")
    if check and done.returncode != 0:
        raise AssertionError(f"alembic {' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr}")
    return done
