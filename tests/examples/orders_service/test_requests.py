"""What a request is answered, over HTTP with the lifespan run: orders, repetitions, conflicts and bad input."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal

from orders_service import api
from tests.examples.orders_service.service import DRAFT, TEA, ended, eventually, place
from tests.support.events import everything


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
    assert len(await everything(parts.events)) == 1
    assert len(await parts.fulfilments.list()) == 1
    assert len(await parts.mails.list()) == 1


async def test_requests_with_one_key_at_once_lead_to_one_order(web):
    """However close together they come, all get the same answer."""
    client, parts = web
    answers = await asyncio.gather(*(place(client) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert [event.event_type for event in await everything(parts.events)] == ["OrderPlaced"]
    assert len(await parts.fulfilments.list()) == 1


async def test_a_key_used_for_another_order_is_refused(web):
    """A key with other contents is an unprocessable request and leads to nothing."""
    client, parts = web
    await place(client)
    answer = await place(client, address="2 Main Street")
    assert answer.status_code == 422
    assert "Idempotency-Key" in answer.json()["detail"]
    assert len(await everything(parts.events)) == 1


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
    assert await everything(parts.events) == []


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
