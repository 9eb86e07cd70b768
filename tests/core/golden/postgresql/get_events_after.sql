SELECT CASE WHEN events_position_seq.is_called THEN events_position_seq.last_value ELSE
    events_position_seq.last_value - $1::BIGINT END AS last, CAST(CAST(CAST($2::VARCHAR AS REGCLASS) AS OID)
    AS BIGINT) AS oid, current_setting($3::VARCHAR) AS isolation, pg_is_in_recovery() AS in_recovery
FROM events_position_seq;

SELECT min(CAST($1 AS bigint)
               + (objid::bigint - CAST($1 AS bigint) % 4294967296 + 6442450944) % 4294967296 - 2147483648)
    FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 2 AND mode = 'ShareLock' AND granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND classid::bigint = CAST($2 AS bigint) AND pid IS DISTINCT FROM pg_backend_pid();

SELECT events.event_id, events.aggregate_id, events.aggregate_type, events.event_type, events.version,
    events.position, CAST(events.payload AS TEXT) AS payload, CAST(events.metadata AS TEXT) AS metadata,
    events.occurred_at, events.recorded_at, events.correlation_id, events.causation_id, events.schema_version
FROM events
WHERE events.position > $1::BIGINT AND events.position <= $2::BIGINT ORDER BY events.position
 LIMIT $3::INTEGER;
