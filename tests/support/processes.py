"""Commands as a user runs them, in processes that start where the imports are done: many times as fast."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

# Imports what every command imports, once, and runs each in a process of its own from there.
# A folder with a `src` of its own is a copy of this repository, whose commands have to import that one's library.
_COMMANDS = """
import gc, json, os, pkgutil, runpy, signal, sys
import aiosqlite, alembic.autogenerate, alembic.command, alembic.config, asyncpg, mako.template, pydantic
import sqlalchemy.dialects.postgresql.asyncpg, sqlalchemy.dialects.sqlite.aiosqlite, sqlalchemy.ext.asyncio
import cqrs_ddd_persistence_sqlalchemy

sys.dont_write_bytecode = True  # which is read again by its second and size: a test may write a module twice in one
for module in pkgutil.walk_packages(cqrs_ddd_persistence_sqlalchemy.__path__, "cqrs_ddd_persistence_sqlalchemy."):
    if ".migrations" not in module.name and not module.name.endswith("__main__"):
        __import__(module.name)
ours = [name for name in sys.modules if name.startswith(("cqrs_ddd_persistence_sqlalchemy", "cqrs_ddd_advanced_core"))]
gc.collect()
gc.freeze()

for line in sys.stdin:
    task = json.loads(line)
    child = os.fork()
    if not child:
        signal.alarm(120)
        os.chdir(task["cwd"])
        os.environ.clear()
        os.environ.update(task["environment"])
        for number, name in enumerate([os.devnull, *task["output"]]):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT, 0o600), number)
        if os.path.isdir("src"):
            for name in ours:
                del sys.modules[name]
        sys.argv[1:] = task["arguments"]
        if task["module"] is None:
            alembic.config.main(prog="alembic")
        else:
            sys.path.insert(0, os.getcwd())
            runpy.run_module(task["module"], run_name="__main__", alter_sys=True)
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@cache
def _commands() -> subprocess.Popen[str]:
    """Start the process from which the commands start."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-P", "-c", _COMMANDS], **pipes)
    atexit.register(process.communicate)
    return process


def run_command(
    *arguments: str, cwd: Path, environment: dict[str, str], module: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run alembic as its script does, without the current folder on the module path; or `python -m module`."""
    commands = _commands()
    with tempfile.TemporaryDirectory() as folder:
        output = [f"{folder}/out", f"{folder}/err"]
        task = {"arguments": arguments, "cwd": str(cwd), "environment": environment, "output": output, "module": module}
        print(json.dumps(task), file=commands.stdin, flush=True)
        code = int(commands.stdout.readline())
        return subprocess.CompletedProcess(arguments, code, *(Path(name).read_text() for name in output))


def environment(url: str | None) -> dict[str, str]:
    """Return the environment of a user who has set DATABASE_URL to the url, or has not."""
    others = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    return others if url is None else others | {"DATABASE_URL": url}
