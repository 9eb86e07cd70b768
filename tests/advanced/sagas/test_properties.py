"""Transitions, saves, conflicts and rollbacks in any order, against a model that fits on a page."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy.ext.asyncio import async_sessionmaker

from cqrs_ddd_advanced_core.exceptions import InvalidTransitionError
from cqrs_ddd_advanced_core.sagas import SagaState, SagaStatus
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork, configure_engine
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemySagaRepository
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError
from tests.support.engines import create_async_engine

S = SagaStatus
WAYS = {
    "suspend": (S.SUSPENDED, lambda saga: saga.suspend("waits")),
    "resume": (S.RUNNING, lambda saga: saga.resume()),
    "complete": (S.COMPLETED, lambda saga: saga.mark_as_completed()),
    "cancel": (S.CANCELLED, lambda saga: saga.mark_as_cancelled("enough")),
    "fail": (S.FAILED, lambda saga: saga.mark_as_failed("broken")),
    "compensate": (S.COMPENSATING, lambda saga: saga.request_compensation("undo it")),
}
# Written out once more, on purpose: a slip in the library's table is not to be copied.
LEGAL = {
    S.PENDING: {"suspend", "resume", "complete", "cancel", "fail", "compensate"},
    S.RUNNING: {"suspend", "complete", "cancel", "fail", "compensate"},
    S.SUSPENDED: {"resume", "cancel", "fail", "compensate"},
    S.COMPENSATING: {"cancel", "fail"},
    S.COMPLETED: set(),
    S.CANCELLED: set(),
    S.FAILED: {"compensate"},
}
HARMLESS = {(S.RUNNING, "resume"), (S.COMPENSATING, "compensate")} | {
    (S.COMPLETED, "complete"),
    (S.CANCELLED, "cancel"),
    (S.FAILED, "fail"),
}


class Counter(SagaState):
    count: int = 0


class Sagas(RuleBasedStateMachine):
    """One object that changes, is saved and loaded, beside somebody else who saves the same saga."""

    loop: asyncio.Runner
    repository: SQLAlchemySagaRepository
    session_factory: async_sessionmaker

    @initialize()
    def begin(self):
        self.saga = Counter()
        self.mine = (S.PENDING, 0)
        self.seen = None  # the version that the object was saved or loaded with
        self.stored = None  # (version, status, count)

    @rule(way=st.sampled_from(sorted(WAYS)))
    def change_status(self, way):
        status, change = WAYS[way]
        before = self.saga.model_dump()
        if way in LEGAL[self.mine[0]]:
            change(self.saga)
            self.mine = (status, self.mine[1])
        elif (self.mine[0], way) in HARMLESS:
            change(self.saga)
            assert self.saga.status is self.mine[0]
        else:
            with pytest.raises(InvalidTransitionError):
                change(self.saga)
            assert self.saga.model_dump() == before

    @rule()
    def count(self):
        self.saga.count += 1
        self.mine = (self.mine[0], self.mine[1] + 1)

    @rule(how=st.sampled_from(["alone", "commit", "rollback", "savepoint"]))
    def save(self, how):
        if self.seen != (self.stored and self.stored[0]):
            with pytest.raises(OptimisticConcurrencyError) as conflict:
                self.loop.run(self.saved(how))
            assert (conflict.value.expected, conflict.value.actual) == (self.seen, self.stored[0])
        else:
            self.loop.run(self.saved(how))
            if how in {"alone", "commit"}:
                self.seen = (self.seen or 0) + 1
                self.stored = (self.seen, *self.mine)

    async def saved(self, how):
        if how == "alone":
            await self.repository.add(self.saga)
            return
        async with SQLAlchemyUnitOfWork(self.session_factory) as uow:
            if how == "savepoint":
                async with uow.session.begin_nested() as savepoint:
                    await self.repository.add(self.saga, uow=uow)
                    await savepoint.rollback()
            else:
                await self.repository.add(self.saga, uow=uow)
            await (uow.rollback() if how == "rollback" else uow.commit())

    @rule()
    def load(self):
        found = self.loop.run(self.repository.get(self.saga.id))
        assert (found is None) == (self.stored is None)
        if found is not None:
            self.saga, self.seen, self.mine = found, self.stored[0], self.stored[1:]

    @rule()
    def somebody_else_saves(self):
        if self.stored is not None:
            self.loop.run(self.elsewhere())
            version, status, count = self.stored
            self.stored = (version + 1, status, count + 100)

    async def elsewhere(self):
        other = await self.repository.get(self.saga.id)
        other.count += 100
        await self.repository.save(other)

    @invariant()
    def holds(self):
        """Object and row are as the model says."""
        assert (self.saga.status, self.saga.count) == self.mine
        found = self.loop.run(self.repository.get(self.saga.id))
        assert (found and (found.status, found.count)) == (self.stored and self.stored[1:])


def test_any_order_of_changes_saves_and_rollbacks(database):
    """What is stored is what the last save that was committed has said, and illegal changes change nothing."""
    with asyncio.Runner() as loop:
        engine = configure_engine(create_async_engine(database.url))
        Sagas.loop, Sagas.session_factory = loop, async_sessionmaker(engine, expire_on_commit=False)
        uow = SQLAlchemyUnitOfWork(Sagas.session_factory)
        Sagas.repository = SQLAlchemySagaRepository(Counter, lambda: uow)
        try:
            run_state_machine_as_test(
                Sagas,
                settings=settings(
                    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
                ),
            )
        finally:
            loop.run(engine.dispose())
