"""The PgBouncer for the tests: where it comes from, and that nothing of it stays."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import asyncpg
import pytest

from tests.support import pgbouncer, postgres
from tests.support.databases import ROOT
from tests.support.pgbouncer import find_pgbouncer, running_pgbouncer


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_leaves_nothing_behind(server, pooled, monkeypatch, request, error):
    """It is stopped and its files are gone after the block, also when the block raises."""
    base = Path(tempfile.mkdtemp(prefix="base-"))  # pytest's folders have names too long for a socket's
    request.addfinalizer(base.rmdir)
    base.chmod(0o755)
    monkeypatch.setattr(postgres, "_scratch_base", lambda _: base)
    ports = []

    def body():
        with running_pgbouncer(server) as proxy:
            ports.append(proxy.port)
            assert listens(proxy.port)
            assert list(base.iterdir())
            if error:
                raise error

    if error:
        with pytest.raises(error):
            body()
    else:
        body()
    assert not listens(ports[0])
    assert list(base.iterdir()) == []


def test_a_taken_port_is_passed_over(server, pooled, monkeypatch):
    """It starts on another port when the first one is taken."""
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        ports = [taken.getsockname()[1], free.getsockname()[1]]
        free.close()
        monkeypatch.setattr(postgres.random.SystemRandom, "sample", lambda *_: [*ports])
        with running_pgbouncer(server) as proxy:
            assert proxy.port == ports[1]


async def test_a_database_made_later_is_reached(session_pool):
    """The proxy needs no list of databases."""
    url, direct_url = session_pool
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        assert direct_url.endswith(await connection.fetchval("SELECT current_database()"))
    finally:
        await connection.close()


def test_a_forced_program_that_is_none_is_an_error(monkeypatch, tmp_path):
    """PGBOUNCER_BIN that leads nowhere is an error, not a reason to look elsewhere."""
    monkeypatch.setenv("PGBOUNCER_BIN", str(tmp_path / "pgbouncer"))
    with pytest.raises(RuntimeError, match=r"^PGBOUNCER_BIN=.* is not a program"):
        find_pgbouncer()


def test_where_there_is_none_the_error_tells_how_to_get_one(monkeypatch, tmp_path):
    """Without PgBouncer on PATH and among the system's programs, the ways to get one are named."""
    monkeypatch.delenv("PGBOUNCER_BIN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(pgbouncer, "_SYSTEM_DIRECTORIES", ())
    with pytest.raises(RuntimeError) as raised:
        find_pgbouncer()
    for way in ("apt-get install pgbouncer", "PGBOUNCER_BIN"):
        assert way in str(raised.value)


def test_another_proxy_is_refused(monkeypatch):
    """A misspelled TEST_POSTGRES_PROXY is an error, not a run without a proxy."""
    monkeypatch.setenv("TEST_POSTGRES_PROXY", "pgbounser")
    with pytest.raises(RuntimeError, match="TEST_POSTGRES_PROXY=pgbounser"):
        pgbouncer.is_wanted()


HOLDER = """
import sys
import tempfile
import time
from pathlib import Path

from tests.support.pgbouncer import running_pgbouncer
from tests.support.postgres import Server

with running_pgbouncer(Server(url=sys.argv[1])) as proxy:
    print(proxy.port, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_a_killed_owner_takes_it_along(server, pooled):
    """A SIGKILLed test process ends its PgBouncer."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, server.url], stdout=subprocess.PIPE, cwd=ROOT) as holder:
        try:
            port = int(holder.stdout.readline())
            assert listens(port)
        finally:
            holder.kill()
    deadline = time.monotonic() + 20
    while listens(port):
        assert time.monotonic() < deadline
        time.sleep(0.05)
