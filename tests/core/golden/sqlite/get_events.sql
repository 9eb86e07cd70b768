SELECT events.event_id, events.aggregate_id, events.aggregate_type, events.event_type, events.version,
    events.position, CAST(events.payload AS TEXT) AS payload, CAST(events.metadata AS TEXT) AS metadata,
    events.occurred_at, events.recorded_at, events.correlation_id, events.causation_id, events.schema_version
FROM events
WHERE events.aggregate_id = ? AND events.version > ? ORDER BY events.version;
