"""The orders service: over HTTP with its lifespan run, on both databases; and as its README starts it."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from cqrs_ddd_advanced_core import JobStatus
from cqrs_ddd_advanced_core.sagas import SagaStatus
from cqrs_ddd_persistence_sqlalchemy.exceptions import SchemaOutOfDateError
from orders_service import api, jobs
from orders_service.main import create_app
from orders_service.outside import Outside
from orders_service.settings import Settings
from tests.conftest import KINDS
from tests.support.command_line import column, environment, run, succeed
from tests.support.databases import ROOT

EXAMPLE = ROOT / "examples" / "orders_service"
PATIENCE_SECONDS = 60
TEA = {"article": "tea", "quantity": 2, "price": "4.50"}
DRAFT = {"email": "ann@example.org", "address": "1 Main Street", "lines": [TEA]}


@pytest.fixture(scope="module")
def templates(databases):
    """A database of each kind on which `alembic upgrade head` was run in the example's folder."""
    with ExitStack() as stack:
        made = {kind: stack.enter_context(databases.fresh(kind, migrated=False)) for kind in KINDS}
        for each in made.values():
            succeed("upgrade", "head", cwd=EXAMPLE, url=each.url)
        yield made


@pytest.fixture
def migrated(empty_database, databases, templates):
    """A copy of one of them."""
    template = templates[empty_database.kind]
    if empty_database.kind == "sqlite":
        shutil.copy(template.path, empty_database.path)
    else:
        name, original = (sa.make_url(each.url).database for each in (empty_database, template))
        databases.admin(f"DROP DATABASE {name}")
        databases.admin(f"CREATE DATABASE {name} TEMPLATE {original}")
    return empty_database


@asynccontextmanager
async def started(database, outside=None, *, with_workers=True):
    """Start the application as a server does; yield a client and the application."""
    app = create_app(Settings(database.url, with_workers=with_workers), outside)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://test") as made:
        yield made, app


@pytest.fixture
def outside():
    """What the service talks to."""
    return Outside()


@pytest.fixture
async def service(migrated, outside):
    """A client of the application with everything running."""
    async with started(migrated, outside) as (client, _):
        yield client


@pytest.fixture
async def web(migrated):
    """A client, and the parts, of an application that leaves the work in the background to others."""
    async with started(migrated, with_workers=False) as (client, app):
        yield client, app.state.parts


async def place(client, key="key-1", **changes):
    return await client.post("/orders", json=DRAFT | changes, headers={"Idempotency-Key": key})


async def eventually(condition):
    """Wait for an async condition, and return its value."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (value := await condition()):  # noqa: ASYNC110  (it waits for other processes, too)
            await asyncio.sleep(0.05)
    return value


async def ended(client, order_id, status):
    """Wait until an order has a status; return it as it is then."""

    async def shown():
        order = (await client.get(f"/orders/{order_id}", params={"after": 1})).json()
        return order if order.get("status") == status else None

    return await eventually(shown)


async def all_events(parts):
    return [event async for event in parts.events.stream_after(0)]


async def test_an_order_is_read_as_soon_as_it_is_placed_and_shipped_soon_after(service, outside):
    """The answer's Location shows it at once; the saga reserves, charges and ships, and the customer hears of it."""
    answer = await place(service)
    assert answer.status_code == 201
    receipt = answer.json()
    assert receipt | {"version": 1, "position": 1} == receipt
    shown = await service.get(answer.headers["Location"])
    assert shown.status_code == 200
    assert shown.json() | DRAFT | {"total": "9.00"} == shown.json()
    shipped = await ended(service, receipt["order_id"], "shipped")
    assert shipped["version"] == 3
    assert outside.warehouse.stock["tea"] == 98
    assert list(outside.payments.charges.values()) == [Decimal("9.00")]
    assert list(outside.carrier.parcels.values()) == ["1 Main Street"]

    async def two_mails():
        return len(outside.mailer.sent) == 2

    await eventually(two_mails)
    texts = sorted(text for _, text in outside.mailer.sent.values())
    assert [text.partition(" (")[0] for text in texts] == ["We have your order.", "Your order is under way."]
    assert {to for to, _ in outside.mailer.sent.values()} == {"ann@example.org"}


async def test_orders_are_listed_newest_first_and_by_status(service):
    """The list has the newest order first, and can be asked for one status."""
    ids = [(await place(service, f"key-{number}")).json()["order_id"] for number in range(3)]
    for order_id in ids:
        await ended(service, order_id, "shipped")
    assert [order["order_id"] for order in (await service.get("/orders")).json()] == ids[::-1]
    assert len((await service.get("/orders", params={"status": "shipped", "limit": 2})).json()) == 2
    assert (await service.get("/orders", params={"status": "cancelled"})).json() == []


async def test_a_repeated_request_gets_the_first_answer(web):
    """The same key and contents lead to one order, one saga and one mail, and the same answer each time."""
    client, parts = web
    first, second = await place(client), await place(client)
    assert (second.status_code, second.json(), second.headers["Location"]) == (
        first.status_code,
        first.json(),
        first.headers["Location"],
    )
    assert len(await all_events(parts)) == 1
    assert len(await parts.fulfilments.list()) == 1
    assert len(await parts.mails.list()) == 1


async def test_requests_with_one_key_at_once_lead_to_one_order(web):
    """However close together they come, all get the same answer."""
    client, parts = web
    answers = await asyncio.gather(*(place(client) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert [event.event_type for event in await all_events(parts)] == ["OrderPlaced"]
    assert len(await parts.fulfilments.list()) == 1


async def test_a_key_used_for_another_order_is_refused(web):
    """A key with other contents is an unprocessable request and leads to nothing."""
    client, parts = web
    await place(client)
    answer = await place(client, address="2 Main Street")
    assert answer.status_code == 422
    assert "Idempotency-Key" in answer.json()["detail"]
    assert len(await all_events(parts)) == 1


async def test_bad_input_is_refused(web):
    """What does not make sense, or cannot be stored, is a 422 and leads to nothing."""
    client, parts = web
    bad = [
        {"lines": []},
        {"lines": [TEA | {"quantity": 0}]},
        {"lines": [TEA | {"price": "0.001"}]},
        {"lines": [TEA | {"price": "NaN"}]},
        {"lines": [TEA | {"price": "100000"}]},
        {"email": "nobody"},
        {"email": "a\0b@example.org"},
        {"address": "a\0b"},
        {"address": "\ud800"},
    ]
    headers = {"Idempotency-Key": "key-1", "Content-Type": "application/json"}
    for changes in bad:
        answer = await client.post("/orders", content=json.dumps(DRAFT | changes), headers=headers)
        assert answer.status_code == 422, changes
        assert answer.json()["detail"][0]["loc"][:2] == ["body", next(iter(changes))]
    assert await all_events(parts) == []


async def test_a_request_without_a_key_is_refused(web):
    """The key is required."""
    client, _ = web
    assert (await client.post("/orders", json=DRAFT)).status_code == 422


async def test_a_change_of_an_older_version_is_a_conflict(web):
    """Of two clients that have seen the same version, the second one is told so, and changes nothing."""
    client, parts = web
    order_id = (await place(client)).json()["order_id"]
    url = f"/orders/{order_id}/address"
    first = await client.put(url, json={"address": "2 Main Street", "version": 1})
    assert (first.status_code, first.json()["version"]) == (200, 2)
    second = await client.put(url, json={"address": "3 Main Street", "version": 1})
    assert second.status_code == 409
    assert "expected version 1, found 2" in second.json()["detail"]
    assert (await parts.orders.draft(order_id)).address == "2 Main Street"


async def test_a_confirmed_order_keeps_its_address(service):
    """Once it is promised, a change is a conflict that says why."""
    order_id = (await place(service)).json()["order_id"]
    version = (await ended(service, order_id, "shipped"))["version"]
    answer = await service.put(f"/orders/{order_id}/address", json={"address": "2 Main Street", "version": version})
    assert answer.status_code == 409
    assert "the order is shipped" in answer.json()["detail"]


async def test_what_nobody_has_ordered_is_not_found(web):
    """An unknown order is a 404, to be read and to be changed."""
    client, _ = web
    assert (await client.get("/orders/nothing")).status_code == 404
    answer = await client.put("/orders/nothing/address", json={"address": "2 Main Street", "version": 1})
    assert answer.status_code == 404


async def test_a_reader_is_told_when_nobody_keeps_the_read_model_up_to_date(web, monkeypatch):
    """Waiting for a position that does not come ends as a 503 with the reason."""
    client, _ = web
    monkeypatch.setattr(api, "READ_YOUR_WRITES_SECONDS", 0.1)
    answer = await client.get((await place(client)).headers["Location"])
    assert answer.status_code == 503
    assert "nobody runs it" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("changes", "reason", "charged"),
    [
        ({"lines": [TEA | {"price": "501"}]}, "the card was declined", 0),
        ({"lines": [TEA | {"quantity": 101}]}, "tea is sold out", 0),
        ({"address": "Sea of Tranquillity, Moon"}, "nobody delivers there", 1),
    ],
)
async def test_what_cannot_be_fulfilled_is_undone(migrated, outside, changes, reason, charged):
    """After a refusal the goods are back, the money too, and the order is cancelled with the reason."""
    async with started(migrated, outside) as (client, app):
        order_id = (await place(client, **changes)).json()["order_id"]
        cancelled = await ended(client, order_id, "cancelled")
        assert cancelled["reason"] == reason
        assert outside.warehouse.stock["tea"] == 100
        assert list(outside.payments.refunds.values()) == list(outside.payments.charges)
        assert len(outside.payments.charges) == charged
        assert outside.carrier.parcels == {}

        async def over():
            saga = await app.state.parts.fulfilments.find_by_correlation_id(order_id)
            return saga.status is SagaStatus.CANCELLED

        await eventually(over)

        async def told():
            return any("cancelled" in text for _, text in outside.mailer.sent.values())

        await eventually(told)


async def test_a_step_that_fails_is_tried_again_with_its_key(service, outside, monkeypatch):
    """A provider that takes the money and does not answer is asked again, and charges once."""
    charge = outside.payments.charge
    asked = []

    async def lose_the_first_answer(amount, *, key):
        payment = await charge(amount, key=key)
        asked.append(key)
        if len(asked) == 1:
            raise ConnectionError("no answer")
        return payment

    monkeypatch.setattr(outside.payments, "charge", lose_the_first_answer)
    order_id = (await place(service)).json()["order_id"]
    await ended(service, order_id, "shipped")
    assert len(asked) == 2
    assert list(outside.payments.charges) == asked[:1]
    assert asked[0] == asked[1]


async def test_an_order_is_placed_with_its_saga_and_its_mail_or_not_at_all(web, monkeypatch):
    """Where the saga cannot be saved there is no event and no job either, and the same request succeeds later."""
    client, parts = web

    async def fail(*_, **__):
        raise RuntimeError("no sagas today")

    with monkeypatch.context() as patch:
        patch.setattr(parts.fulfilments, "add", fail)
        assert (await place(client)).status_code == 500
    assert await all_events(parts) == []
    assert await parts.mails.list() == []
    assert (await place(client)).status_code == 201


async def test_nobody_is_told_of_success_before_the_commit(web, monkeypatch):
    """A commit that fails is a 500, since the unit of work is committed before the answer is sent."""
    client, parts = web
    place_order = parts.orders.place

    async def spoil(draft, key, uow):
        receipt = await place_order(draft, key, uow)
        with pytest.raises(DBAPIError):
            await uow.session.execute(sa.text("SELECT nonsense"))
        return receipt

    monkeypatch.setattr(parts.orders, "place", spoil)
    assert (await place(client)).status_code == 500
    assert await all_events(parts) == []


async def test_old_mails_are_cleared_away(migrated, outside, monkeypatch):
    """The nightly job deletes the mails that are over, and its result says how many."""
    monkeypatch.setattr(jobs, "KEPT", timedelta(minutes=-1))
    async with started(migrated, outside) as (client, app):
        parts = app.state.parts
        await ended(client, (await place(client)).json()["order_id"], "shipped")

        async def sent():
            return (await parts.mails.count_by_status())[JobStatus.COMPLETED] == 2

        await eventually(sent)
        job = jobs.every_night().job_factory()
        await parts.clearings.add(job)

        async def cleared():
            return (await parts.clearings.get(job.id)).status is JobStatus.COMPLETED

        await eventually(cleared)
        assert (await parts.clearings.get(job.id)).result == 2
        assert await parts.mails.list() == []


async def test_the_service_does_not_start_on_an_empty_database(empty_database):
    """It says which command to run, and leaves no connection behind."""
    with pytest.raises(SchemaOutOfDateError, match="run: alembic upgrade head"):
        async with started(empty_database):
            pytest.fail("it has started")


async def test_the_service_does_not_start_without_its_own_table(database):
    """The library's tables are not enough."""
    with pytest.raises(SchemaOutOfDateError, match="'orders' is not in the database; run: alembic upgrade head"):
        async with started(database):
            pytest.fail("it has started")


async def test_readiness_follows_the_database_and_liveness_does_not(web, migrated):
    """Once its table is gone the service is not ready, and says what to run; it is alive all the same."""
    client, _ = web
    assert (await client.get("/ready")).json() == {"status": "ready"}
    await asyncio.to_thread(run, "downgrade", "base", cwd=EXAMPLE, url=migrated.url)
    answer = await client.get("/ready")
    assert answer.status_code == 503
    assert "run: alembic upgrade head" in answer.json()["detail"]
    assert (await client.get("/health")).status_code == 200
    await asyncio.to_thread(succeed, "upgrade", "head", cwd=EXAMPLE, url=migrated.url)
    assert (await client.get("/ready")).status_code == 200


async def test_a_database_that_does_not_answer_is_not_ready(web, databases, migrated):
    """No connection is a 503 that shows no address and no password."""
    client, parts = web
    await parts.engine.dispose()
    if migrated.kind == "sqlite":
        migrated.path.rename(migrated.path.with_suffix(".away"))
        migrated.path.mkdir()
    else:
        name = sa.make_url(migrated.url).database
        await asyncio.to_thread(databases.admin, f"ALTER DATABASE {name} RENAME TO {name}_away")
    try:
        answer = await client.get("/ready")
    finally:
        if migrated.kind == "sqlite":
            migrated.path.rmdir()
            migrated.path.with_suffix(".away").rename(migrated.path)
        else:
            await asyncio.to_thread(databases.admin, f"ALTER DATABASE {name}_away RENAME TO {name}")
    assert (answer.status_code, answer.json()) == (503, {"detail": "the database cannot be reached"})


async def test_a_worker_that_has_died_ends_the_liveness(migrated, monkeypatch, caplog):
    """A bug in the background is logged, and turns /health into a 503 that names what has ended."""

    async def die(_runner):
        raise RuntimeError("a bug")

    monkeypatch.setattr("orders_service.workers.SagaRunner.run", die)
    async with started(migrated) as (client, _):

        async def unhealthy():
            return (await client.get("/health")).status_code == 503

        await eventually(unhealthy)
        assert "sagas" in (await client.get("/health")).json()["detail"]
        assert "a bug" in caplog.text


async def test_a_stop_leaves_nothing_to_wait_for(migrated, outside, monkeypatch):
    """A mail under way is sent to its end, and the projection's lease is given back."""
    sending, may_end = asyncio.Event(), asyncio.Event()

    async def send_slowly(*_, **__):
        sending.set()
        await may_end.wait()

    monkeypatch.setattr(outside.mailer, "send", send_slowly)
    async with started(migrated, outside) as (client, app):
        await client.get((await place(client)).headers["Location"])
        await asyncio.wait_for(sending.wait(), PATIENCE_SECONDS)
        asyncio.get_running_loop().call_later(0.2, may_end.set)
    assert app.state.parts.engine.sync_engine.pool.checkedout() == 0
    owners = await asyncio.to_thread(column, migrated, "SELECT owner FROM projection_runs")
    assert owners == [None]
    running = await asyncio.to_thread(column, migrated, "SELECT count(*) FROM jobs WHERE status = 'RUNNING'")
    assert running == [0]


WORKER = [sys.executable, "-m", "orders_service.worker"]


async def test_web_and_workers_may_be_processes_of_their_own(web, migrated):
    """A worker's process fulfils what the web process has taken, and ends in order at SIGTERM."""
    client, _ = web
    order_id = (await place(client)).json()["order_id"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(WORKER, cwd=EXAMPLE, env=environment(migrated.url), **pipes) as process:  # noqa: ASYNC220
        try:
            await ended(client, order_id, "shipped")
            process.send_signal(signal.SIGTERM)
            _, errors = await asyncio.to_thread(process.communicate, timeout=PATIENCE_SECONDS)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    assert "mail to ann@example.org: We have your order." in errors


def test_the_worker_does_not_start_on_an_empty_database(empty_database):
    """One line says which command to run, and the exit code is 2."""
    options = {"cwd": EXAMPLE, "env": environment(empty_database.url), "timeout": PATIENCE_SECONDS}
    done = subprocess.run(WORKER, capture_output=True, text=True, check=False, **options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("orders_service.worker: the database is behind this code")
    assert "run: alembic upgrade head" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ("sqlite:///orders.db", True)),
        ({"DATABASE_URL": "postgresql://u:p@h/n", "WITH_WORKERS": "no"}, ("postgresql://u:p@h/n", False)),
    ],
)
def test_settings_come_from_the_environment(variables, expected):
    """What is not said has a default: an SQLite file, and the work done in the web process."""
    settings = Settings.from_environment(variables)
    assert (settings.database_url, settings.with_workers) == expected


def test_a_setting_that_makes_no_sense_is_refused():
    """A typing error does not quietly mean no."""
    with pytest.raises(ValueError, match="WITH_WORKERS is 'true': say yes or no"):
        Settings.from_environment({"WITH_WORKERS": "true"})


def test_the_revisions_are_what_the_schema_says(migrated):
    """Right after the upgrade `alembic check` and `schema check` find nothing to do, and the way down works."""
    assert "No new upgrade operations" in succeed("check", cwd=EXAMPLE, url=migrated.url)
    command = [sys.executable, "-m", "cqrs_ddd_persistence_sqlalchemy.schema", "check"]
    done = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    succeed("downgrade", "base", cwd=EXAMPLE, url=migrated.url)


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
