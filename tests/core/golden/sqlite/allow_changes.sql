SELECT sqlite_master.name, sqlite_master.sql
FROM sqlite_master
WHERE sqlite_master.type = ? AND sqlite_master.tbl_name = ?;

DROP TRIGGER "events_refuse_update";

DROP TRIGGER "events_refuse_delete";

DROP TRIGGER "events_refuse_replace";

CREATE TRIGGER IF NOT EXISTS events_refuse_update BEFORE UPDATE ON events
            BEGIN
                SELECT RAISE(ABORT, 'events are immutable: UPDATE is refused');
            END;

CREATE TRIGGER IF NOT EXISTS events_refuse_delete BEFORE DELETE ON events
            BEGIN
                SELECT RAISE(ABORT, 'events are immutable: DELETE is refused');
            END;

CREATE TRIGGER IF NOT EXISTS events_refuse_replace BEFORE INSERT ON events
        WHEN EXISTS (SELECT 1 FROM events WHERE position = NEW.position)
            OR EXISTS (SELECT 1 FROM events WHERE event_id = NEW.event_id)
            OR EXISTS (SELECT 1 FROM events WHERE aggregate_id = NEW.aggregate_id AND version = NEW.version)
        BEGIN
            SELECT RAISE(ABORT, 'events are immutable: this position, event_id or version is taken');
        END;
