"""The service as its README starts it."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tests.examples.orders_service.service import EXAMPLE, PATIENCE_SECONDS
from tests.support.command_line import environment


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def blocks(language):
    """Return the README's blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", (EXAMPLE / "README.md").read_text(), re.DOTALL)


def test_the_readme_shows_what_happens(tmp_path):
    """Its commands are run as they stand, on another port; the answers are those that it shows, but for the time."""
    folder = shutil.copytree(EXAMPLE, tmp_path / "example", ignore=shutil.ignore_patterns("__pycache__", "*.db"))
    port = free_port()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    settings = {"cwd": folder, "env": environment(None) | {"PATH": path}, "text": True}
    install, migrate, serve = blocks("bash")[0].splitlines()
    assert install == "pip install 'cqrs-ddd-persistence-sqlalchemy[example]'"
    subprocess.run(migrate, shell=True, check=True, timeout=PATIENCE_SECONDS, capture_output=True, **settings)
    command = [*serve.split(), "--port", port]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, **settings)
    try:
        wait_for(port)
        keys = set()
        for session in blocks("console"):
            commands = re.findall(r"^\$ (curl .*?)\n(.*?)(?=^\$ |\Z)", session, re.DOTALL | re.MULTILINE)
            assert commands
            for line, expected in commands:
                assert undated(curl(line.replace("localhost:8000", f"localhost:{port}"))) == undated(expected)
            keys.update(re.findall(r"Idempotency-Key: (\w+)", session))
            wait_until_all_are_over(port, len(keys))
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=PATIENCE_SECONDS)
        finally:
            process.kill()
    assert "Application shutdown complete" in (tmp_path / "log").read_text()


def curl(line):
    """Send what a line of curl sends, also where there is no curl; return the answer."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("-s", action="store_true")
    parser.add_argument("-X")
    parser.add_argument("-H", action="append", default=[])
    parser.add_argument("-d")
    parser.add_argument("url")
    asked = parser.parse_args(shlex.split(line)[1:])
    method = asked.X or ("GET" if asked.d is None else "POST")
    headers = dict(header.split(": ") for header in asked.H)
    return httpx.request(method, f"http://{asked.url}", headers=headers, content=asked.d, trust_env=False).text


def undated(text):
    return re.sub(r'"placed_at":"[^"]*"', '"placed_at":"..."', text.strip())


def wait_until_all_are_over(port, number):
    """Wait until so many orders are shipped or cancelled: some seconds later, as the README has it."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up:
        orders = httpx.get(f"http://localhost:{port}/orders", trust_env=False).json()
        if len(orders) == number and all(order["status"] in {"shipped", "cancelled"} for order in orders):
            return
        time.sleep(0.1)
    raise AssertionError("the orders are not fulfilled")


def wait_for(port):
    """Wait until somebody listens."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up:
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", int(port))) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the service has not started")
