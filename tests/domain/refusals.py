"""Expecting that a schema or a column is refused, with the message that says why."""

from __future__ import annotations

import re

import pytest

from cqrs_ddd_advanced_core.exceptions import SchemaError


def refused(message):
    """Expect a SchemaError that begins like that."""
    return pytest.raises(SchemaError, match=r"\A" + re.escape(message))


def total_refused(message):
    """Expect a SchemaError that begins with the column `total` and contains the message."""
    return pytest.raises(SchemaError, match=r"(?s)\A" + re.escape("column 'total': ") + ".*" + re.escape(message))
