"""A real PgBouncer in front of the tests' PostgreSQL, for the run that TEST_POSTGRES_PROXY=pgbouncer asks for."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url

from tests.support import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pwd import struct_passwd

    from tests.support.postgres import Server

VARIABLE = "TEST_POSTGRES_PROXY"
#: Server connections for each database: so few that the tests' clients share them.
POOL_SIZE = 5

_NO_PGBOUNCER = """\
No PgBouncer for the tests. Either of these gives them one:
  - install it: apt-get install pgbouncer, brew install pgbouncer; it need not run as a service
  - name the program in PGBOUNCER_BIN"""
_SYSTEM_DIRECTORIES = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin")
# Each of these databases is any database of the server's, also those that are made later.
_CONFIGURATION = """\
[databases]
* = {target}
[pgbouncer]
pool_mode = {pool_mode}
default_pool_size = {pool_size}
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir = {directory}
logfile = {directory}/pgbouncer.log
auth_type = any
max_client_conn = 500
query_wait_timeout = 60
"""
_START_TIMEOUT_SECONDS = 20


@dataclass(frozen=True)
class Proxy:
    """A running PgBouncer."""

    port: int

    def url(self, direct: str) -> str:
        """Return the way through the proxy to the database of a URL."""
        through = make_url(direct).set(host="127.0.0.1", port=self.port)
        return through.render_as_string(hide_password=False)


def is_wanted() -> bool:
    """Tell whether this run, and the processes that it starts, go through a proxy."""
    kind = os.environ.get(VARIABLE)
    if kind not in {None, "", "pgbouncer"}:
        raise RuntimeError(f"{VARIABLE}={kind}: the only proxy that the tests know is pgbouncer")
    return kind == "pgbouncer"


@contextmanager
def running_pgbouncer(server: Server, *, pool_mode: str = "transaction", pool_size: int = POOL_SIZE) -> Iterator[Proxy]:
    """Yield a PgBouncer in front of the server; it is stopped and its files removed at the end, whatever happens."""
    program = find_pgbouncer()
    account = postgres._unprivileged_account()  # PgBouncer refuses root as PostgreSQL does
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix=postgres._PREFIX, dir=postgres._scratch_base(account)))
        stack.callback(postgres._remove, directory)
        (directory / "owner").write_text(str(os.getpid()))  # the next run removes it if we are killed
        settings = {"pool_mode": pool_mode, "pool_size": pool_size, "target": _target(server.url)}
        *ports, last = random.SystemRandom().sample(postgres._PORTS, 10)
        for port in ports:
            with suppress(postgres._PortTakenError):
                process = _start(program, directory, account, settings | {"port": port})
                break
        else:
            port, process = last, _start(program, directory, account, settings | {"port": last})
        stack.callback(_stop, process)
        yield Proxy(port)


def find_pgbouncer() -> Path:
    """Return the program to use; raises RuntimeError where there is none."""
    if forced := os.environ.get("PGBOUNCER_BIN"):
        if os.access(forced, os.X_OK) and Path(forced).is_file():
            return Path(forced).absolute()
        raise RuntimeError(f"PGBOUNCER_BIN={forced} is not a program.\n{_NO_PGBOUNCER}")
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SYSTEM_DIRECTORIES])
    if found := shutil.which("pgbouncer", path=path):
        return Path(found).absolute()
    raise RuntimeError(_NO_PGBOUNCER)


def _target(url: str) -> str:
    """Return where the proxy connects to, as its configuration spells it."""
    parts = make_url(url)
    given = {"host": parts.host, "port": parts.port, "user": parts.username, "password": parts.password}
    return " ".join(f"{name}='{str(value).replace(chr(39), chr(39) * 2)}'" for name, value in given.items() if value)


def _start(
    program: Path, directory: Path, account: struct_passwd | None, settings: dict[str, object]
) -> subprocess.Popen[bytes]:
    """Start on a port and return when it answers."""
    ini = directory / "pgbouncer.ini"
    ini.write_text(_CONFIGURATION.format(directory=directory, **settings))
    postgres._give(directory, account)
    options = {"cwd": directory, "start_new_session": True, "stdin": subprocess.DEVNULL}
    options |= {
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
        "preexec_fn": postgres._end_with_parent(signal.SIGKILL),
    }
    if account is not None:
        options |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    fork = postgres._forking_thread.submit(lambda: subprocess.Popen([program, ini], **options))
    process = fork.result()
    deadline = time.monotonic() + _START_TIMEOUT_SECONDS
    while not (answers := _answers(directory / f".s.PGSQL.{settings['port']}")) and process.poll() is None:
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    log = directory / "pgbouncer.log"
    said = log.read_text(errors="replace") if log.exists() else ""
    log.unlink(missing_ok=True)
    taken = "in use" in said  # it says so, and is content with its socket in the file system
    if answers and not taken:
        return process
    _stop(process)
    error = postgres._PortTakenError if taken else RuntimeError
    raise error(f"{program} did not start; the end of its log:\n{said[-2000:]}")


def _answers(path: Path) -> bool:
    """Tell whether the socket in our directory, where no other program listens, is served."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(path))
        return True
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Kill it: its gentler signals have changed their meanings between versions, and it has nothing to save."""
    process.kill()
    process.wait()
