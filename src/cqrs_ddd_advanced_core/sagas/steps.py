"""What a saga remembers of a step."""

from datetime import UTC, datetime
from enum import StrEnum

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from cqrs_ddd_advanced_core.error_text import described


class StepStatus(StrEnum):
    """How far a step has come. One that is RUNNING in a saved saga was begun, and nobody saw it end."""

    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    COMPENSATED = "COMPENSATED"
    COMPENSATION_FAILED = "COMPENSATION_FAILED"


class StepRecord(BaseModel):
    """One run of a step.

    Attributes:
        name: of the step's method.
        started_at: when it was begun first, aware, in UTC.
        finished_at: when it ended, one way or the other; None while it runs.
        error: what the step, or else its compensation, raised last.
        compensation: the name of the method that undoes it, None for nothing to undo.
        compensated_at: when that method ended well.
        attempts: how often this run was begun: more than once where nobody saw it end before.
        compensation_failures: how often undoing it has failed.
    """

    model_config = ConfigDict(validate_assignment=True)

    name: str
    status: StepStatus = StepStatus.RUNNING
    started_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    finished_at: AwareDatetime | None = None
    error: str | None = None
    compensation: str | None = None
    compensated_at: AwareDatetime | None = None
    attempts: int = 1
    compensation_failures: int = 0

    @property
    def has_been_completed(self) -> bool:
        """Whether it has ended well, be it undone by now."""
        return self.status not in {StepStatus.RUNNING, StepStatus.FAILED}

    @property
    def is_to_be_compensated(self) -> bool:
        """Whether it has done something that is not undone yet."""
        undone_in_vain = self.status is StepStatus.COMPENSATION_FAILED
        return self.compensation is not None and (self.status is StepStatus.COMPLETED or undone_in_vain)

    def end(self, status: StepStatus, error: BaseException | None = None) -> None:
        """Record how the run ended."""
        self.status, self.error = status, None if error is None else described(error)
        self.finished_at = datetime.now(UTC)

    def undone(self) -> None:
        """Record that the compensation ended well."""
        self.status, self.error = StepStatus.COMPENSATED, None
        self.compensated_at = datetime.now(UTC)

    def not_undone(self, error: BaseException) -> None:
        """Record that the compensation failed."""
        self.status, self.error = StepStatus.COMPENSATION_FAILED, described(error)
        self.compensation_failures += 1
