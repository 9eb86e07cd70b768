"""Errors that say where they are explained."""

from __future__ import annotations

import copy
import inspect
import pickle
import traceback

import pytest

import cqrs_ddd_advanced_core.exceptions as of_the_domain
import cqrs_ddd_persistence_sqlalchemy.exceptions as of_the_stores
from cqrs_ddd_advanced_core.exceptions import (
    ERRORS_PAGE,
    CompensationError,
    DomainError,
    InvalidTransitionError,
    SchemaError,
)
from cqrs_ddd_persistence_sqlalchemy.exceptions import (
    AutoDDLDisabledError,
    CollectionNotFoundError,
    LeaseLostError,
    OptimisticConcurrencyError,
    PersistenceError,
    ProjectionPausedError,
    ProjectionWaitError,
    RebuildError,
    SchemaOutOfDateError,
    TableChangedError,
    UnitOfWorkError,
)
from tests.docs.pages import anchors
from tests.support.databases import ROOT

RAISED = [
    DomainError("no"),
    InvalidTransitionError("no", current="PENDING", target="COMPLETED"),
    CompensationError("no", causes=[ValueError("why")]),
    SchemaError("no"),
    PersistenceError("no"),
    UnitOfWorkError("no"),
    OptimisticConcurrencyError("Order", "o-1", expected=1, actual=2),
    LeaseLostError("job", ("j-1", "j-2")),
    ProjectionPausedError("orders", 3, "ValueError: no"),
    ProjectionWaitError("orders", 3, 1, "behind"),
    ProjectionWaitError("orders", 3, 1, "behind", "ValueError: no"),
    RebuildError("no"),
    SchemaOutOfDateError("no"),
    TableChangedError("no"),
    CollectionNotFoundError("orders"),
    CollectionNotFoundError("orders", "tenant_a"),
    AutoDDLDisabledError("orders"),
    AutoDDLDisabledError("orders", "tenant_a"),
]
CLASSES = [
    each
    for module in (of_the_domain, of_the_stores)
    for each in vars(module).values()
    if inspect.isclass(each) and issubclass(each, Exception) and each.__module__ == module.__name__
]


def test_these_tests_know_every_class_of_errors():
    """A class that is added to either module of exceptions is tried here, too."""
    assert {type(error) for error in RAISED} == set(CLASSES)


@pytest.mark.parametrize("error_class", CLASSES)
def test_an_error_ends_with_where_it_is_explained(error_class):
    """The last line of a traceback names a section that is there; the message itself stays as it is."""
    error = next(each for each in RAISED if type(each) is error_class)
    page, _, anchor = error.docs.partition("#")
    assert page == ERRORS_PAGE
    assert anchor == error_class.__name__.lower()
    assert anchor in anchors(ROOT / page)
    assert traceback.format_exception(error)[-1] == f"see {error.docs}\n"
    assert ERRORS_PAGE not in str(error)


def test_a_subclass_of_an_application_is_explained_as_its_base_is():
    """Classes that are not ours lead to the section of the one that they are made from."""

    class OutOfStockError(DomainError):
        pass

    assert OutOfStockError("tea").__notes__ == [f"see {DomainError.docs}"]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_an_error_survives_copying(error, copied):
    """Class, message, attributes and note are the same in a copy, and in another process."""
    again = copied(error)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert repr(vars(again)) == repr(vars(error))
