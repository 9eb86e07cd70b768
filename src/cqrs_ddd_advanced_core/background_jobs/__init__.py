"""Background jobs: work that is done later, elsewhere, and again when it fails."""

from cqrs_ddd_advanced_core.background_jobs.entity import BaseBackgroundJob
from cqrs_ddd_advanced_core.background_jobs.status import JobStatus

__all__ = ["BaseBackgroundJob", "JobStatus"]
