SAVEPOINT sa_savepoint_1;

WITH known AS MATERIALIZED
(SELECT rows.event_id AS event_id, rows.aggregate_id AS aggregate_id, rows.aggregate_type AS aggregate_type,
    rows.event_type AS event_type, rows.payload AS payload, rows.metadata AS metadata, rows.occurred_at AS
    occurred_at, rows.correlation_id AS correlation_id, rows.causation_id AS causation_id, rows.schema_version
    AS schema_version, rows.row_number AS row_number, rows.row_in_stream AS row_in_stream, rows.stream_version
    AS stream_version, (SELECT coalesce(max(stream.version), ?) AS coalesce_1
FROM events AS stream
WHERE stream.aggregate_id = rows.aggregate_id) AS current, (SELECT 1
FROM events AS other
WHERE other.event_id = rows.event_id) AS taken
FROM (SELECT json_extract("each".value, '$.event_id') AS event_id, json_extract("each".value,
    '$.aggregate_id') AS aggregate_id, json_extract("each".value, '$.aggregate_type') AS aggregate_type,
    json_extract("each".value, '$.event_type') AS event_type, json_extract("each".value, '$.payload') AS
    payload, json_extract("each".value, '$.metadata') AS metadata, json_extract("each".value, '$.occurred_at')
    AS occurred_at, json_extract("each".value, '$.correlation_id') AS correlation_id,
    json_extract("each".value, '$.causation_id') AS causation_id, json_extract("each".value,
    '$.schema_version') AS schema_version, json_extract("each".value, '$.row_number') AS row_number,
    json_extract("each".value, '$.row_in_stream') AS row_in_stream, json_extract("each".value,
    '$.stream_version') AS stream_version
FROM json_each(?) AS "each") AS rows)
 INSERT INTO events (event_id, aggregate_id, aggregate_type, event_type, payload, metadata, occurred_at,
    correlation_id, causation_id, schema_version, version, recorded_at) SELECT known.event_id,
    known.aggregate_id, known.aggregate_type, known.event_type, known.payload, known.metadata,
    known.occurred_at, known.correlation_id, known.causation_id, known.schema_version, known.current +
    known.row_in_stream AS anon_1, strftime('%Y-%m-%d %H:%M:%f', 'now') || '000' AS "strftime('%Y-%m-%d
    %H:%M:%f', 'now') || '000'"
FROM known
WHERE (known.stream_version IS NULL OR known.stream_version = known.current) AND known.taken IS NULL ORDER BY
    known.row_number ON CONFLICT DO NOTHING RETURNING event_id, version, position, recorded_at;

RELEASE SAVEPOINT sa_savepoint_1;
