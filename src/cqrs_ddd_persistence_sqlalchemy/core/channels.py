"""The names under which PostgreSQL's notifications go out."""

from __future__ import annotations

#: Events have been appended.
EVENTS_CHANNEL = "cqrs_ddd_events"

#: Jobs have been put into a queue.
JOBS_CHANNEL = "cqrs_ddd_jobs"
