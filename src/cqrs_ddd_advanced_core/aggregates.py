"""AggregateRoot: what repositories store and snapshots rebuild."""

from pydantic import BaseModel, Field


class AggregateRoot(BaseModel):
    """An entity with an id and a version, both part of `model_dump()`: `Order(**snapshot_data)` goes on counting.

    Attributes:
        id: of the aggregate, opaque.
        version: how often it has changed, 0 for a new one. A repository sets it to the stored version; the domain may
            count it by itself in between, say once an event.
    """

    id: str = Field(min_length=1)
    version: int = Field(default=0, ge=0)
