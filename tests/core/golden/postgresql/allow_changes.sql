SELECT current_setting('cqrs_ddd.unlock_events', true);

SELECT set_config('cqrs_ddd.unlock_events', 'on', true);

SELECT set_config('cqrs_ddd.unlock_events', $1, true);
