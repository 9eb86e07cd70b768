"""The API reference: every public name, and each with a text of its own."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest

from tests.docs.pages import DOCS

PACKAGES = (
    "cqrs_ddd_advanced_core",
    "cqrs_ddd_advanced_core.background_jobs",
    "cqrs_ddd_advanced_core.exceptions",
    "cqrs_ddd_advanced_core.ports",
    "cqrs_ddd_advanced_core.projections",
    "cqrs_ddd_advanced_core.sagas",
    "cqrs_ddd_persistence_sqlalchemy",
    "cqrs_ddd_persistence_sqlalchemy.advanced",
    "cqrs_ddd_persistence_sqlalchemy.core",
    "cqrs_ddd_persistence_sqlalchemy.exceptions",
    "cqrs_ddd_persistence_sqlalchemy.schema",
)
OURS = ("cqrs_ddd_advanced_core", "cqrs_ddd_persistence_sqlalchemy")
REFERENCE = re.findall(
    r"^::: ([\w.]+)$", "\n".join(page.read_text() for page in (DOCS / "api").glob("*.md")), re.MULTILINE
)


def exported(package):
    """Return the names that a package exports: what `__all__` lists, or the classes that a module defines."""
    module = importlib.import_module(package)
    listed = getattr(module, "__all__", None)
    if listed is None:
        listed = [
            name for name, value in vars(module).items() if inspect.isclass(value) and value.__module__ == package
        ]
    return {f"{package}.{name}": getattr(module, name) for name in listed if not name.startswith("_")}


PUBLIC = {path: value for package in PACKAGES for path, value in exported(package).items()}


def found(path):
    package, _, name = path.rpartition(".")
    return getattr(importlib.import_module(package), name)


def test_every_public_name_is_in_the_reference():
    """Each exported class and function is on one of the pages, under one of the paths that it is imported by."""
    documented = {id(found(path)) for path in REFERENCE}
    assert [path for path, value in PUBLIC.items() if id(value) not in documented] == []


def test_the_reference_names_nothing_twice():
    """One name, one place: links to it have one target."""
    assert len(REFERENCE) == len({id(found(path)) for path in REFERENCE})


@pytest.mark.parametrize("path", sorted(REFERENCE))
def test_whatever_is_public_says_what_it_does(path):
    """The name has a docstring, and so has each of its public methods and properties that are ours."""
    value = found(path)
    silent = [] if (value.__doc__ or "").strip() else [path]
    for name, member in inspect.getmembers(value) if inspect.isclass(value) else []:
        function = member.fget if isinstance(member, property) else member
        is_callable = inspect.isfunction(function) or inspect.ismethod(function)
        if name.startswith("_") or not is_callable or not function.__module__.startswith(OURS):
            continue
        if not (function.__doc__ or "").strip() and function.__name__ != "<lambda>":
            silent.append(f"{path}.{name}")
    assert silent == []
