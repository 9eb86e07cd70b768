"""Runs the blocks of a page as a reader would: in their order, in one folder, in one program."""

from __future__ import annotations

import ast
import asyncio
import configparser
import contextlib
import inspect
import io
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from time import monotonic, sleep
from types import CodeType, ModuleType
from typing import TYPE_CHECKING

import sqlalchemy as sa

from tests.support.command_line import column
from tests.support.processes import environment, run_command

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import Any

    from tests.docs.pages import Block
    from tests.support.databases import Database

_MODULE = "the_page"
_SOON_SECONDS = 0.3
_PATIENCE_SECONDS = 60.0


class Reader:
    """Somebody who does what a page says, in a folder, on a database.

    Blocks whose first line is a comment with a file's name become that file. Other Python runs in one namespace, with
    `await` at the top; shell runs as commands with DATABASE_URL set; SQL runs on the database; `text` is compared with
    what the block before it has printed. A directive before the block may say

    - `exits 1`: the command ends with that code;
    - `raises NameOfError`: the Python block does;
    - `until stopped NAME`: NAME.stop() is called while the Python block runs;
    - `beside NAME`: NAME.run() goes on while it does;
    - `until stopped`: the command runs until SIGTERM, and ends well then;
    - `sqlite` or `postgresql`: for that database only;
    - `until told`: the process gets SIGTERM while the Python block runs, which ends well then;
    - `elsewhere`: a test of its own tries the block;
    - `parses`: the configuration of another program, which is only read.
    """

    def __init__(
        self,
        folder: Path,
        database: Database,
        names: dict[str, Any],
        *,
        programs: Path | None = None,
        says_url: bool = True,
    ) -> None:
        """Begin in a folder, with names that the page takes for given, and DATABASE_URL where it `says_url`.

        The programs are those of the tests' environment, unless a folder says where others are.
        """
        self.folder = folder
        self.database = database
        self.programs = programs
        self.surroundings = {
            name: value
            for name, value in environment(database.dsn if says_url else None).items()
            if name != "VIRTUAL_ENV"
        }
        if programs is not None:
            for name in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE"):  # as compiling again takes seconds
                self.surroundings.pop(name, None)
        path = os.pathsep.join([str(programs or Path(sys.executable).parent), self.surroundings["PATH"]])
        self.surroundings["PATH"] = path
        self.module = ModuleType(_MODULE)
        self.names = self.module.__dict__
        self.names.update(names)
        self.said = ""

    @contextlib.contextmanager
    def at_work(self):
        """Import from the folder, and forget what was imported afterwards."""
        before, path = set(sys.modules), list(sys.path)
        url = os.environ.get("DATABASE_URL")
        os.environ["DATABASE_URL"] = self.database.url
        sys.modules[_MODULE] = self.module
        sys.path.insert(0, str(self.folder))
        written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        try:
            yield
        finally:
            sys.path[:] = path
            del os.environ["DATABASE_URL"]
            if url is not None:
                os.environ["DATABASE_URL"] = url
            sys.dont_write_bytecode = written
            for name in set(sys.modules) - before:
                origin = getattr(sys.modules[name], "__file__", None) or ""
                if name == _MODULE or origin.startswith(str(self.folder)):
                    del sys.modules[name]

    async def do(self, block: Block) -> None:
        """Do what the block says."""
        if block.directive in {"sqlite", "postgresql"} and block.directive != self.database.kind:
            return
        if block.directive == "elsewhere":
            return
        if block.file_name is not None:
            self._write(block)
        elif block.directive == "parses":
            configparser.ConfigParser().read_string(block.text)
        elif block.language == "python":
            await self._python(block)
        elif block.language == "shell":
            await self._shell(block)
        elif block.language == "sql":
            await self._sql(block)
        elif block.language == "text":
            assert same(self.said) == same(block.text), f"{block.place}:\n{self.said}"
        else:
            raise AssertionError(f"{block.place}: nobody knows how to try a block of {block.language!r}")

    def _write(self, block: Block) -> None:
        path = self.folder / block.file_name
        path.parent.mkdir(exist_ok=True)
        path.write_text(block.text)
        if path.suffix == ".toml":
            tomllib.loads(block.text)
        elif path.suffix == ".py":
            compile(block.text, block.place, "exec")

    async def _python(self, block: Block) -> None:
        word, _, name = block.directive.partition(" ")
        if word == "raises":
            expected = self.names.get(name) or getattr(__import__("builtins"), name)
            try:
                await self._execute(block)
            except expected:
                return
            raise AssertionError(f"{block.place}: {name} was not raised")
        if block.directive.startswith("until stopped "):
            name = block.directive.removeprefix("until stopped ")
            async with self._going_on(block, lambda: name in self.names):
                self.names[name].stop()
            return
        if block.directive == "until told":
            async with self._going_on(block, lambda: signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL):
                os.kill(os.getpid(), signal.SIGTERM)
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().remove_signal_handler(number)
            return
        if word == "beside":
            task = asyncio.create_task(self.names[name].run())
            await self._execute(block)
            self.names[name].stop()
            await asyncio.wait_for(task, timeout=20)
            return
        assert not block.directive or block.directive in {"sqlite", "postgresql"}, block
        await self._execute(block)

    @contextlib.asynccontextmanager
    async def _going_on(self, block: Block, has_begun: Callable[[], bool]) -> AsyncIterator[None]:
        """Run the block; once it has begun, let it work for a moment, do what is to end it, and see that it ends."""
        task = asyncio.create_task(self._execute(block))
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while not has_begun() and not task.done():  # noqa: ASYNC110  (nothing says when a program has come so far)
                await asyncio.sleep(0.01)
        await asyncio.wait([task], timeout=_SOON_SECONDS)
        assert not task.done(), (block.place, task)
        yield
        await asyncio.wait_for(task, timeout=_PATIENCE_SECONDS)

    async def _execute(self, block: Block) -> None:
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        lined_up = "\n" * block.line + block.text  # so that tracebacks show the line of the page
        code: CodeType = compile(lined_up, str(block.page), "exec", flags=flags, dont_inherit=True)
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.chdir(self.folder):
            result = eval(code, self.names)
            if inspect.isawaitable(result):
                await result
        self.said = said.getvalue()

    async def _shell(self, block: Block) -> None:
        expected = int(block.directive.removeprefix("exits ")) if block.directive.startswith("exits ") else 0
        said = []
        for command in commands(block.text):
            if block.directive == "until stopped":
                done = await asyncio.to_thread(self._until_stopped, command)
            else:
                done = await asyncio.to_thread(self._run, command)
            assert done.returncode == expected, f"{block.place}: {command}\n{done.stdout}\n{done.stderr}"
            said.append(done.stdout)
        self.said = "".join(said)

    def _run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command; the library's and Alembic's start much faster from a process that has imported them."""
        words = shlex.split(command, comments=True)
        if words[0] == "export":  # the database of the example is, for this reader, the test's
            return subprocess.CompletedProcess(words, 0, "", "")
        surroundings = dict(self.surroundings)
        while re.fullmatch(r"[A-Z_]+=.*", words[0]):
            name, _, value = words.pop(0).partition("=")
            if name != "DATABASE_URL":
                surroundings[name] = value
        if self.programs is None and not re.search(r"[|<>&;$]", command):
            if words[0] == "alembic":
                return run_command(*words[1:], cwd=self.folder, environment=surroundings)
            if words[:2] == ["python", "-m"] and words[2].startswith("cqrs_ddd"):
                return run_command(*words[3:], cwd=self.folder, environment=surroundings, module=words[2])
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", re.sub(r"^(DATABASE_URL=\S+) ", "", command)],
            cwd=self.folder,
            env=surroundings,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def _until_stopped(self, command: str) -> subprocess.CompletedProcess[str]:
        """Start a command that goes on for ever, let it work, end it as a deploy does."""
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self.folder,
            env=self.surroundings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        gives_up_at = monotonic() + _PATIENCE_SECONDS
        while process.poll() is None and monotonic() < gives_up_at and not self._is_up_to_date():
            sleep(_SOON_SECONDS)
        process.terminate()
        out, err = process.communicate(timeout=30)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def _is_up_to_date(self) -> bool:
        """Tell whether somebody runs a projection, and has come to the last event."""
        query = (
            "SELECT max(p.position) = max(e.position) FROM projection_positions p, events e "
            "WHERE (SELECT count(owner) FROM projection_runs) > 0"
        )
        return bool(column(self.database, query)[0])

    async def _sql(self, block: Block) -> None:
        engine = self.names["engine"]
        lines = []
        for statement in filter(str.strip, re.sub(r"--.*", "", block.text).split(";")):
            async with engine.begin() as connection:
                result = await connection.execute(sa.text(statement.replace(":", r"\:")))
                if result.returns_rows:
                    lines.extend(str(tuple(row)) for row in result)
        self.said = "\n".join(lines)


def commands(text: str) -> list[str]:
    """Return the commands of a block, those over several lines as one."""
    joined = text.replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def same(text: str) -> str:
    """Return what two runs of a command have in common: white space, times, ids of revisions and paths aside."""
    text = re.sub(r"\b[0-9a-f]{12}(?=[_ .]|\b)", "<revision>", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)?", "<time>", text)
    text = re.sub(r"(/[\w.-]+)+/versions/", ".../versions/", text)
    return "\n".join(" ".join(line.split()) for line in textwrap.dedent(text).strip().splitlines())
