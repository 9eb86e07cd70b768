"""What a runner is set up with, checked at the edge."""

from __future__ import annotations

import os
import socket
import uuid
from datetime import timedelta

from cqrs_ddd_persistence_sqlalchemy.core.validation import check_count


def this_process() -> str:
    """Return a name for a runner of this process, which no other one has."""
    return f"{socket.gethostname()[:200]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


def check_counts(**counts: int) -> None:
    """Refuse what is no whole number from 1.

    Raises:
        ValueError: naming it.
    """
    for name, value in counts.items():
        if check_count(name, value) == 0:
            raise ValueError(f"{name} is 0: it is at least 1")


def check_durations(**durations: timedelta) -> None:
    """Refuse what is no duration above 0.

    Raises:
        ValueError: naming it.
    """
    for name, value in durations.items():
        if not isinstance(value, timedelta) or value <= timedelta(0):
            raise ValueError(f"{name} is a timedelta above 0, not {value!r}")
