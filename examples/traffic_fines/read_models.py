"""The read models of this application; each has a table that revisions in versions/ create and change."""

from cqrs_ddd_advanced_core.projections import ProjectionIndex, ProjectionSchema

fines = ProjectionSchema(
    collection="fines",
    fields=[
        # As long as an aggregate_id and an event_type may be: no event is too long for its row.
        ("case_id", "VARCHAR(255) PRIMARY KEY"),
        ("fine_total", "DECIMAL(10, 2) NOT NULL DEFAULT 0"),
        ("expense", "DECIMAL(10, 2)"),
        ("paid", "DECIMAL(10, 2)"),
        ("last_activity", "VARCHAR(255)"),
        ("last_timestamp", "TIMESTAMP"),
        ("status", "VARCHAR(20)"),
        ("_version", "INTEGER DEFAULT 1"),
        ("_last_event_position", "BIGINT"),
    ],
    indexes=["status", ProjectionIndex("last_timestamp", descending=["last_timestamp"])],
)
"""One row a case: what is due, what came in, where it stands."""
