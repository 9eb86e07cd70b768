"""What a job may be, and what it may become: the one table of its transitions."""

from collections.abc import Mapping
from enum import StrEnum


class JobStatus(StrEnum):
    """Where a job is in its life."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_terminal(self) -> bool:
        """Whether the job is over."""
        return not TRANSITIONS[self]


_S = JobStatus

#: From each status to those that may follow. What is terminal may be entered again, which changes nothing.
TRANSITIONS: Mapping[JobStatus, frozenset[JobStatus]] = {
    # A small job is done without being marked as running, and so it may fail and be put off.
    _S.PENDING: frozenset({_S.PENDING, _S.RUNNING, _S.COMPLETED, _S.FAILED, _S.CANCELLED}),
    _S.RUNNING: frozenset({_S.PENDING, _S.COMPLETED, _S.FAILED, _S.CANCELLED}),
    _S.COMPLETED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
}
