SELECT pg_advisory_xact_lock_shared(CAST((CAST(CAST(CAST($1::VARCHAR AS REGCLASS) AS OID) AS BIGINT) +
    $2::BIGINT) % $3::BIGINT - $4::BIGINT AS INTEGER), CAST((CASE WHEN events_position_seq.is_called THEN
    events_position_seq.last_value ELSE events_position_seq.last_value - $5::BIGINT END + $6::BIGINT) %
    $7::BIGINT - $8::BIGINT AS INTEGER)) AS locked
FROM events_position_seq;

SAVEPOINT sa_savepoint_1;

WITH known AS MATERIALIZED
(SELECT anon_2.event_id AS event_id, anon_2.aggregate_id AS aggregate_id, anon_2.aggregate_type AS
    aggregate_type, anon_2.event_type AS event_type, anon_2.payload AS payload, anon_2.metadata AS metadata,
    anon_2.occurred_at AS occurred_at, anon_2.correlation_id AS correlation_id, anon_2.causation_id AS
    causation_id, anon_2.schema_version AS schema_version, anon_2.row_number AS row_number,
    anon_2.row_in_stream AS row_in_stream, anon_2.stream_version AS stream_version, (SELECT
    coalesce(max(stream.version), $1::INTEGER) AS coalesce_1
FROM events AS stream
WHERE stream.aggregate_id = anon_2.aggregate_id) AS current, (SELECT 1
FROM events AS other
WHERE other.event_id = anon_2.event_id) AS taken
FROM json_to_recordset(CAST($2::VARCHAR AS JSON)) AS anon_2(event_id VARCHAR(255), aggregate_id VARCHAR(255),
    aggregate_type VARCHAR(255), event_type VARCHAR(255), payload JSONB, metadata JSONB, occurred_at TIMESTAMP
    WITH TIME ZONE, correlation_id VARCHAR(255), causation_id VARCHAR(255), schema_version INTEGER, row_number
    BIGINT, row_in_stream BIGINT, stream_version BIGINT))
 INSERT INTO events (event_id, aggregate_id, aggregate_type, event_type, payload, metadata, occurred_at,
    correlation_id, causation_id, schema_version, version, recorded_at) SELECT known.event_id,
    known.aggregate_id, known.aggregate_type, known.event_type, known.payload, known.metadata,
    known.occurred_at, known.correlation_id, known.causation_id, known.schema_version, known.current +
    known.row_in_stream AS anon_1, clock_timestamp() AS clock_timestamp_1
FROM known
WHERE (known.stream_version IS NULL OR known.stream_version = known.current) AND known.taken IS NULL ORDER BY
    known.row_number ON CONFLICT DO NOTHING RETURNING events.event_id, events.version, events.position,
    events.recorded_at;

ROLLBACK TO SAVEPOINT sa_savepoint_1;

SELECT events.aggregate_id, max(events.version) AS max_1
FROM events
WHERE events.aggregate_id IN ($1::VARCHAR, $2::VARCHAR) GROUP BY events.aggregate_id;
