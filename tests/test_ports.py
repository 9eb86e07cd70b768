"""The stores keep to their ports, as mypy sees it and as inspect does."""

from __future__ import annotations

import inspect

import pytest

from cqrs_ddd_advanced_core import ports
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyEventStore
from cqrs_ddd_persistence_sqlalchemy.advanced import (
    SQLAlchemyBackgroundJobRepository,
    SQLAlchemyProjectionPositionStore,
    SQLAlchemyProjectionStore,
    SQLAlchemySagaRepository,
    SQLAlchemySnapshotStore,
)

PAIRS = [
    (ports.IEventStore, SQLAlchemyEventStore),
    (ports.IProjectionStore, SQLAlchemyProjectionStore),
    (ports.IProjectionPositionStore, SQLAlchemyProjectionPositionStore),
    (ports.ISagaRepository, SQLAlchemySagaRepository),
    (ports.ISnapshotStore, SQLAlchemySnapshotStore),
    (ports.IBackgroundJobRepository, SQLAlchemyBackgroundJobRepository),
]
METHODS = [
    (port, store, name)
    for port, store in PAIRS
    for name in vars(port)
    if not name.startswith("_") and callable(vars(port)[name])
]


@pytest.mark.parametrize(("port", "store", "name"), METHODS, ids=lambda value: getattr(value, "__name__", value))
def test_a_store_has_the_signature_of_its_port(port, store, name):
    """Names, order, kinds and defaults of the parameters are the port's."""
    asked = inspect.signature(getattr(port, name)).parameters.values()
    given = inspect.signature(getattr(store, name)).parameters.values()
    assert [(p.name, p.kind, p.default) for p in given] == [(p.name, p.kind, p.default) for p in asked]
