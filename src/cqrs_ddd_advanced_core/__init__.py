"""The domain: events, projection schemas and the ports of the stores. Standard library and pydantic only."""

from cqrs_ddd_advanced_core.aggregates import AggregateRoot
from cqrs_ddd_advanced_core.background_jobs.status import JobStatus
from cqrs_ddd_advanced_core.events import StoredEvent
from cqrs_ddd_advanced_core.ports import ISagaRepository

__all__ = ["AggregateRoot", "ISagaRepository", "JobStatus", "StoredEvent"]
