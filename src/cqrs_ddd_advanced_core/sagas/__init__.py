"""Sagas: long-running processes that know what they have done, and how to undo it."""

from cqrs_ddd_advanced_core.sagas.decorators import saga_step
from cqrs_ddd_advanced_core.sagas.state import SagaState
from cqrs_ddd_advanced_core.sagas.status import SagaStatus
from cqrs_ddd_advanced_core.sagas.steps import StepRecord, StepStatus

__all__ = ["SagaState", "SagaStatus", "StepRecord", "StepStatus", "saga_step"]
