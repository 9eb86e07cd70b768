import pickle
import re
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from cqrs_ddd_advanced_core import StoredEvent

NOON = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
TEXTS = ["event_id", "aggregate_id", "event_type", "correlation_id", "causation_id"]


def event(**changes):
    """Make an event of the three needed fields and what the test is about."""
    return StoredEvent(**{"aggregate_id": "cart-1", "event_type": "ItemAdded", "payload": {"sku": "x"}, **changes})


def refused(field, reason, **changes):
    """Expect the event to be refused for that field and reason."""
    with pytest.raises(ValidationError, match=rf"(?s)StoredEvent\n{field}\n.*{re.escape(reason)}"):
        event(**changes)


def test_three_fields_suffice():
    """Everything but aggregate_id, event_type and payload has a default."""
    before = datetime.now(UTC)
    made = event()
    assert before <= made.occurred_at <= datetime.now(UTC)
    assert str(UUID(made.event_id)) == made.event_id
    assert made.model_dump(exclude={"event_id", "occurred_at"}) == {
        "aggregate_id": "cart-1",
        "aggregate_type": "",
        "event_type": "ItemAdded",
        "version": None,
        "position": None,
        "payload": {"sku": "x"},
        "metadata": {},
        "recorded_at": None,
        "correlation_id": None,
        "causation_id": None,
        "schema_version": 1,
    }


def test_every_event_gets_an_id_and_metadata_of_its_own():
    """Two events share neither the generated id nor the default metadata."""
    first, second = event(), event()
    assert first.event_id != second.event_id
    assert first.metadata is not second.metadata


@pytest.mark.parametrize("field", ["aggregate_id", "event_type", "payload"])
def test_the_three_fields_are_needed(field):
    """Leaving out one of the three is an error that names it."""
    given = {"aggregate_id": "cart-1", "event_type": "ItemAdded", "payload": {}}
    del given[field]
    with pytest.raises(ValidationError, match=rf"StoredEvent\n{field}\n  Field required"):
        StoredEvent(**given)


def test_an_event_does_not_change():
    """Fields cannot be set, and the dict that was passed in is not the event's."""
    payload = {"sku": "x"}
    made = event(payload=payload)
    payload["sku"] = "y"
    assert made.payload == {"sku": "x"}
    with pytest.raises(ValidationError, match=r"StoredEvent\nversion\n  Instance is frozen"):
        made.version = 2


def test_an_unknown_field_is_refused():
    """A misspelt field is an error, not lost data."""
    refused("agregate_type", "Extra inputs are not permitted", agregate_type="Cart")


@pytest.mark.parametrize("field", TEXTS)
def test_a_uuid_is_not_an_id(field):
    """Ids are strings; a UUID is refused with the way out in the message."""
    refused(field, "must be a string, not UUID; pass str(...) of it", **{field: uuid4()})


@pytest.mark.parametrize("field", [*TEXTS, "aggregate_type"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"cart", "must be a string, not bytes"),
        (7, "must be a string, not int"),
        ("a\0b", "must not contain NUL characters"),
        ("a\ud800", "must not contain lone surrogates"),
        ("\udfff", "must not contain lone surrogates"),
        ("x" * 256, "at most 255 characters"),
    ],
)
def test_text_that_no_column_holds_is_refused(field, value, reason):
    """Wrong types, NUL, lone surrogates and more than 255 characters are errors that name the field."""
    refused(field, reason, **{field: value})


@pytest.mark.parametrize("field", TEXTS)
def test_ids_and_types_are_not_empty(field):
    """An empty id or event type is refused."""
    refused(field, "at least 1 character", **{field: ""})


@pytest.mark.parametrize("field", [*TEXTS, "aggregate_type"])
@pytest.mark.parametrize("value", ["x", "x" * 255, "🙂" * 255, "d'être", "\x01"])
def test_other_text_is_kept(field, value):
    """Any other text of up to 255 characters is kept as it is."""
    assert getattr(event(**{field: value}), field) == value


@pytest.mark.parametrize("field", ["version", "position"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (0, "greater than or equal to 1"),
        (-1, "greater than or equal to 1"),
        (2**63, "less than or equal to 9223372036854775807"),
        (10**400, "less than or equal to 9223372036854775807"),
        (True, "valid integer"),
        (1.0, "valid integer"),
        ("1", "valid integer"),
    ],
)
def test_counts_are_positive_bigints(field, value, reason):
    """Versions and positions count from 1 up to what a BIGINT holds, and are ints."""
    refused(field, reason, **{field: value})
    assert getattr(event(**{field: 2**63 - 1}), field) == 2**63 - 1


@pytest.mark.parametrize(("value", "reason"), [(0, "greater than or"), (2**31, "less than or"), ("1", "valid int")])
def test_schema_versions_count_from_one(value, reason):
    """schema_version is an int from 1 up to what an INTEGER holds."""
    refused("schema_version", reason, schema_version=value)


@pytest.mark.parametrize("field", ["occurred_at", "recorded_at"])
def test_a_naive_time_is_refused(field):
    """A time without a zone is a ValueError that names the field and the way out."""
    with pytest.raises(ValueError, match=rf"{field} must be timezone-aware, such as datetime\.now\(UTC\)"):
        event(**{field: NOON.replace(tzinfo=None)})


@pytest.mark.parametrize("field", ["occurred_at", "recorded_at"])
@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=-5)), ZoneInfo("Asia/Kathmandu")])
def test_times_are_kept_in_utc(field, zone):
    """An aware time of any zone is the same moment, in UTC."""
    kept = getattr(event(**{field: NOON.astimezone(zone)}), field)
    assert kept == NOON
    assert kept.tzinfo is UTC


@pytest.mark.parametrize("field", ["occurred_at", "recorded_at"])
@pytest.mark.parametrize("value", [0, 1714564800, "2024-05-01T12:00:00Z", "1714564800", NOON.date()])
def test_a_time_is_a_datetime(field, value):
    """Numbers, text and dates are not taken for times."""
    refused(field, "valid datetime", **{field: value})


@pytest.mark.parametrize(
    "value",
    [
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))),
    ],
)
def test_a_time_before_the_calendar_is_refused(value):
    """A moment that UTC cannot express is a ValueError that names the field."""
    refused("occurred_at", "occurred_at is outside of what UTC can express", occurred_at=value)


def test_payload_is_a_dict():
    """The payload is a dict with string keys."""
    refused("payload", "valid dictionary", payload=[("sku", "x")])
    refused(r"payload\.1\.\[key\]", "valid string", payload={1: "x"})


def test_json_round_trip():
    """What model_dump_json writes, model_validate_json reads back as an equal event."""
    made = event(version=3, position=9, recorded_at=NOON, metadata={"by": "ann"}, causation_id="c")
    assert StoredEvent.model_validate_json(made.model_dump_json()) == made


def test_copies_are_equal_and_hash_alike():
    """An event survives pickling, equals its copy and counts once in a set."""
    made = event()
    copy = pickle.loads(pickle.dumps(made))
    assert copy == made
    assert {copy, made} == {made}
    assert made.model_copy(update={"version": 1}) != made
