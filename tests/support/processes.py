"""Commands as a user runs them, in processes that start where the imports are done: many times as fast."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock, Thread

# Imports what every command imports, once, and runs each in a process of its own from there.
# A folder with a `src` of its own is a copy of this repository, whose commands have to import that one's library.
_COMMANDS = """
import atexit, gc, json, os, pkgutil, runpy, selectors, signal, sys, threading, traceback
import aiosqlite, alembic.autogenerate, alembic.command, alembic.config, asyncpg, mako.template, pydantic
import sqlalchemy.dialects.postgresql.asyncpg, sqlalchemy.dialects.sqlite.aiosqlite, sqlalchemy.ext.asyncio
import cqrs_ddd_persistence_sqlalchemy

sys.dont_write_bytecode = True  # which is read again by its second and size: a test may write a module twice in one
for module in pkgutil.walk_packages(cqrs_ddd_persistence_sqlalchemy.__path__, "cqrs_ddd_persistence_sqlalchemy."):
    if ".migrations" not in module.name and not module.name.endswith("__main__"):
        __import__(module.name)
ours = [name for name in sys.modules if name.startswith(("cqrs_ddd_persistence_sqlalchemy", "cqrs_ddd_advanced_core"))]
library = os.path.dirname(cqrs_ddd_persistence_sqlalchemy.__path__[0])
gc.collect()
gc.freeze()

tasks = open(0, "rb", buffering=0)
selector = selectors.DefaultSelector()
selector.register(tasks, selectors.EVENT_READ)


def perform(folder):
    signal.alarm(120)
    with open(folder + "/task") as file:
        task = json.load(file)
    os.chdir(task["cwd"])
    os.environ.clear()
    os.environ.update(task["environment"])
    for number, name in enumerate([os.devnull, folder + "/out", folder + "/err"]):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT, 0o600), number)
    if os.path.isdir("src") and not os.path.samefile("src", library):
        for name in ours:
            del sys.modules[name]
    sys.argv[1:] = task["arguments"]
    if task["module"] is None:
        alembic.config.main(prog="alembic")
    else:
        sys.path.insert(0, os.getcwd())
        runpy.run_module(task["module"], run_name="__main__", alter_sys=True)


def end(command, folder):
    # As Python does at an exit, but the system takes the imported modules down.
    code = 0
    try:
        command(folder)
    except SystemExit as error:
        code = error.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    gc.collect()  # whose warnings are among what the command says
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)


while True:
    for key, _ in selector.select():
        if key.fileobj is not tasks:  # the process has ended, as nobody else has the other end
            selector.unregister(key.fileobj)
            os.close(key.fileobj)
            child, folder = key.data
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), folder, flush=True)
            continue
        folder = tasks.readline().decode().rstrip("\\n")
        if not folder:
            sys.exit()
        here, there = os.pipe()
        child = os.fork()
        if not child:
            end(perform, folder)
        os.close(there)
        selector.register(here, selectors.EVENT_READ, (child, folder))
"""


class _Commands:
    """The process from which the commands start, and those of them that run."""

    def __init__(self) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen([sys.executable, "-P", "-c", _COMMANDS], **pipes)
        self._running: dict[str, Future[int]] = {}
        self._lock = Lock()
        Thread(target=self._read, daemon=True).start()
        atexit.register(self._end)

    def run(self, folder: str) -> int:
        """Run the task of a folder, beside those of other threads; return its exit code."""
        with self._lock:
            ended = self._running[folder] = Future()
            print(folder, file=self._process.stdin, flush=True)
        return ended.result(timeout=180)

    def _end(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> None:
        for line in self._process.stdout:
            code, folder = line.rstrip("\n").split(" ", 1)
            self._running.pop(folder).set_result(int(code))


@cache
def _commands() -> _Commands:
    return _Commands()


def run_command(
    *arguments: str, cwd: Path, environment: dict[str, str], module: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run alembic as its script does, without the current folder on the module path; or `python -m module`.

    Threads may run several at once.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        task = {"arguments": arguments, "cwd": str(cwd), "environment": environment, "module": module}
        (folder / "task").write_text(json.dumps(task))
        code = _commands().run(name)
        said = [(folder / stream).read_text() for stream in ("out", "err")]
        return subprocess.CompletedProcess(arguments, code, *said)


def environment(url: str | None) -> dict[str, str]:
    """Return the environment of a user who has set DATABASE_URL to the url, or has not."""
    others = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    return others if url is None else others | {"DATABASE_URL": url}
