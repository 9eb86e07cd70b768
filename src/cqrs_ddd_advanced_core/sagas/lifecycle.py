"""The life of a saga: its status, its deadline, and why it is where it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PrivateAttr

from cqrs_ddd_advanced_core.error_text import described
from cqrs_ddd_advanced_core.exceptions import InvalidTransitionError
from cqrs_ddd_advanced_core.sagas.status import TRANSITIONS, SagaStatus
from cqrs_ddd_advanced_core.storable import ID_LENGTH

_LONGEST_TIMEOUT = timedelta(days=365_000)


class SagaLifecycle(BaseModel):
    """What may become of a saga; `SagaState`, which adds its steps, is the class to derive from."""

    model_config = ConfigDict(validate_assignment=True)

    id: str = Field(default_factory=lambda: str(uuid4()), min_length=1, max_length=ID_LENGTH)
    correlation_id: str | None = Field(default=None, max_length=ID_LENGTH)
    status: SagaStatus = SagaStatus.PENDING
    timeout_at: AwareDatetime | None = None
    reason: str | None = None
    error: str | None = None

    _timeout: timedelta | None = PrivateAttr(default=None)
    #: While something runs in a saga that is to be undone: what it makes of the status is not to be.
    _is_settled: bool = PrivateAttr(default=False)

    @property
    def saga_type(self) -> str:
        """The name of the saga's class, which tells it from others in the table that all share."""
        return type(self).__name__

    @property
    def timeout(self) -> timedelta | None:
        """How long a suspended saga waits, from when it is saved: by the database's clock, not by this machine's."""
        return self._timeout

    def suspend(self, reason: str, *, timeout: timedelta | None = None, until: datetime | None = None) -> None:
        """Wait for something outside.

        Args:
            reason: for people.
            timeout: after which it has expired, counted from when it is saved.
            until: the same as a point in time, aware.

        Raises:
            InvalidTransitionError: the saga is over, or being compensated.
            ValueError: both are given, or one makes no sense.
        """
        if timeout is not None and until is not None:
            raise ValueError("suspend: give timeout or until, not both")
        if timeout is not None and (not isinstance(timeout, timedelta) or timeout < timedelta(0)):
            raise ValueError(f"suspend: timeout is a timedelta from 0, not {timeout!r}")
        if until is not None and (not isinstance(until, datetime) or until.utcoffset() is None):
            raise ValueError(f"suspend: until is an aware datetime, such as datetime.now(UTC), not {until!r}")
        if timeout is not None and timeout > _LONGEST_TIMEOUT:
            raise ValueError(f"suspend: timeout is {timeout}, which no database's calendar holds")
        if self._is_settled:
            return
        self._enter(SagaStatus.SUSPENDED)
        self.reason = reason
        self._timeout = timeout
        self.timeout_at = None if until is None else until.astimezone(UTC)

    def set_deadline(self, timeout_at: datetime | None, *, timeout: timedelta | None = None) -> None:
        """Let a repository replace the duration by the point in time that the database has made of it."""
        self.timeout_at = timeout_at
        self._timeout = timeout

    def resume(self) -> None:
        """Go on after waiting; the deadline is cleared. Harmless on a saga that runs.

        Raises:
            InvalidTransitionError: the saga is over, or being compensated.
        """
        if self._is_settled:
            return
        if self.status is not SagaStatus.RUNNING:
            self._enter(SagaStatus.RUNNING)
        self.reason = self._timeout = self.timeout_at = None

    def mark_as_completed(self) -> None:
        """End well.

        Raises:
            InvalidTransitionError: the saga is suspended, being compensated, or over in another way.
        """
        self._end(SagaStatus.COMPLETED)

    def mark_as_cancelled(self, reason: str | None = None) -> None:
        """End without having done it, after compensate_all() where there was something to undo.

        Raises:
            InvalidTransitionError: the saga is over in another way.
        """
        if self._end(SagaStatus.CANCELLED):
            self.reason = reason

    def mark_as_failed(self, error: str | BaseException) -> None:
        """End badly: what is done is neither complete nor undone.

        Raises:
            InvalidTransitionError: the saga is over in another way.
        """
        if self._end(SagaStatus.FAILED):
            self.error = error if isinstance(error, str) else described(error)

    def request_compensation(self, reason: str | None = None) -> None:
        """Say that the saga is to be undone; whoever runs it calls compensate_all() then. Harmless to repeat.

        Args:
            reason: why; it becomes that of the cancellation. One that has failed keeps its reason unless given another.

        Raises:
            InvalidTransitionError: the saga is completed or cancelled.
        """
        if self.status is SagaStatus.COMPENSATING:
            return
        has_failed = self.status is SagaStatus.FAILED
        self._enter(SagaStatus.COMPENSATING)
        self._timeout = self.timeout_at = self.error = None
        if reason is not None or not has_failed:
            self.reason = reason

    def _enter(self, status: SagaStatus) -> None:
        if status not in TRANSITIONS[self.status]:
            message = f"saga {self.id!r} is {self.status}, and cannot become {status}"
            raise InvalidTransitionError(message, current=self.status, target=status)
        self.status = status

    def _end(self, status: SagaStatus) -> bool:
        """Enter a terminal status; False for the one it is in already."""
        if self.status is status or self._is_settled:
            return False
        self._enter(status)
        self._timeout = self.timeout_at = None
        return True
