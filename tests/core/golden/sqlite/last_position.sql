SELECT coalesce(max(events.position), ?) AS coalesce_1
FROM events;
