"""What a saga may be, and what it may become: the one table of its transitions."""

from collections.abc import Mapping
from enum import StrEnum


class SagaStatus(StrEnum):
    """Where a saga is in its life."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUSPENDED = "SUSPENDED"
    COMPENSATING = "COMPENSATING"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"

    @property
    def is_terminal(self) -> bool:
        """Whether the saga is over; only a failed one may still be compensated."""
        return self in {SagaStatus.COMPLETED, SagaStatus.CANCELLED, SagaStatus.FAILED}


_S = SagaStatus

#: From each status to those that may follow. What is terminal may be entered again, which changes nothing.
TRANSITIONS: Mapping[SagaStatus, frozenset[SagaStatus]] = {
    _S.PENDING: frozenset({_S.RUNNING, _S.SUSPENDED, _S.COMPENSATING, _S.COMPLETED, _S.CANCELLED, _S.FAILED}),
    _S.RUNNING: frozenset({_S.SUSPENDED, _S.COMPENSATING, _S.COMPLETED, _S.CANCELLED, _S.FAILED}),
    _S.SUSPENDED: frozenset({_S.RUNNING, _S.COMPENSATING, _S.CANCELLED, _S.FAILED}),
    _S.COMPENSATING: frozenset({_S.CANCELLED, _S.FAILED}),
    _S.COMPLETED: frozenset(),
    _S.CANCELLED: frozenset(),
    _S.FAILED: frozenset({_S.COMPENSATING}),
}
