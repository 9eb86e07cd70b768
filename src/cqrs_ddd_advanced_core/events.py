"""StoredEvent: one fact of one stream, as it is written and as it is read back."""

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar
from uuid import uuid4

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from cqrs_ddd_advanced_core.storable import BIGINT_MAX, ID_LENGTH, INTEGER_MAX, unstorable


def _storable_text(value: object) -> str:
    """Refuse what one of the databases would refuse, or store as something else."""
    if not isinstance(value, str):
        raise ValueError(f"must be a string, not {type(value).__name__}; pass str(...) of it")
    found = unstorable(value)
    if found is not None:
        raise ValueError(f"must not contain {found}")
    return value


_Label = Annotated[str, Field(max_length=ID_LENGTH), BeforeValidator(_storable_text)]
_Id = Annotated[str, Field(min_length=1, max_length=ID_LENGTH), BeforeValidator(_storable_text)]
_Count = Annotated[int, Field(ge=1, le=BIGINT_MAX)]


class StoredEvent(BaseModel):
    """An event of an aggregate's stream. aggregate_id, event_type and payload suffice.

    Nothing is converted: an id is a string (not a UUID), a version an int (not "1"), a time an aware
    datetime. JSON text that `model_dump_json()` wrote is read back by `model_validate_json()`.

    Attributes:
        event_id: unique among all events; a new UUID unless given.
        version: place in the stream, from 1; None until the event is appended, if the store is to number it.
        position: place among all events of the database, from 1; None until the event is appended.
        metadata: what is worth keeping beside the facts (user, source address, ...).
        occurred_at: when it happened, aware, kept in UTC; now unless given.
        recorded_at: when the store wrote it, aware, kept in UTC; None until then.
        correlation_id: shared by everything that one request set off.
        causation_id: the id of the event or command that led to this one.
        schema_version: the version of the payload's shape, for upcasting.
        replay: True while a projection is rebuilt, when the event has been handled before; no part of the data.
    """

    replay: ClassVar[bool] = False

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    event_id: _Id = Field(default_factory=lambda: str(uuid4()))
    aggregate_id: _Id
    aggregate_type: _Label = ""
    event_type: _Id
    version: _Count | None = None
    position: _Count | None = None
    payload: dict[str, Any]
    metadata: dict[str, Any] = Field(default_factory=dict)
    occurred_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    recorded_at: datetime | None = None
    correlation_id: _Id | None = None
    causation_id: _Id | None = None
    schema_version: Annotated[int, Field(ge=1, le=INTEGER_MAX)] = 1

    @field_validator("occurred_at", "recorded_at")
    @classmethod
    def _in_utc(cls, value: datetime | None, info: ValidationInfo) -> datetime | None:
        if value is None:
            return None
        if value.utcoffset() is None:
            raise ValueError(f"{info.field_name} must be timezone-aware, such as datetime.now(UTC)")
        try:
            return value.astimezone(UTC)
        except OverflowError:
            raise ValueError(f"{info.field_name} is outside of what UTC can express: {value}") from None

    def as_replayed(self) -> "StoredEvent":
        """Return the same event, as the handlers of a rebuild see it."""
        return ReplayedEvent.model_construct(**dict(self))

    def __hash__(self) -> int:
        """Hash by identity, since payloads are dicts: equal events have equal ids."""
        return hash(self.event_id)


class ReplayedEvent(StoredEvent):
    """An event that a projection handles once more, to be rebuilt."""

    replay: ClassVar[bool] = True
