"""What an order leads to: its saga, its mails and the nightly clearing, all of it or nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from cqrs_ddd_advanced_core import JobStatus
from cqrs_ddd_advanced_core.sagas import SagaStatus
from orders_service import jobs
from tests.examples.orders_service.service import TEA, ended, eventually, place, started
from tests.support.events import everything


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
    assert await everything(parts.events) == []
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
    assert await everything(parts.events) == []


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
