import re
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Literal, NewType, Optional, Union
from uuid import UUID

import pytest
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    StringConstraints,
    computed_field,
    create_model,
)
from pydantic.alias_generators import to_camel
from typing_extensions import TypedDict

from cqrs_ddd_advanced_core.exceptions import SchemaError
from cqrs_ddd_advanced_core.projections import ProjectionIndex, ProjectionSchema


class Status(StrEnum):
    OPEN = "open"


class OldStatus(str, Enum):  # noqa: UP042  what code before StrEnum has
    OPEN = "open"


class Level(IntEnum):
    LOW = 1


class Mood(Enum):
    GOOD = "good"


class Line(BaseModel):
    sku: str


class Address(TypedDict):
    street: str


CartId = NewType("CartId", str)
Money = Annotated[Decimal, Field(max_digits=10, decimal_places=2)]
Short = Annotated[str, StringConstraints(max_length=5)]

TYPES = [
    (str, "TEXT NOT NULL"),
    (Annotated[str, Field(max_length=50)], "VARCHAR(50) NOT NULL"),
    (Short, "VARCHAR(5) NOT NULL"),
    (Annotated[Short, Field(max_length=3)], "VARCHAR(3) NOT NULL"),
    (Annotated[str, Field(max_length=10485761)], "TEXT NOT NULL"),
    (Annotated[str, Field(min_length=3)], "TEXT NOT NULL"),
    (CartId, "TEXT NOT NULL"),
    (int, "BIGINT NOT NULL"),
    (PositiveInt, "BIGINT NOT NULL"),
    (float, "DOUBLE PRECISION NOT NULL"),
    (Money, "DECIMAL(10, 2) NOT NULL"),
    (bool, "BOOLEAN NOT NULL"),
    (datetime, "TIMESTAMP WITH TIME ZONE NOT NULL"),
    (AwareDatetime, "TIMESTAMP WITH TIME ZONE NOT NULL"),
    (date, "DATE NOT NULL"),
    (time, "TIME NOT NULL"),
    (UUID, "UUID NOT NULL"),
    (bytes, "BYTEA NOT NULL"),
    (Status, "TEXT NOT NULL"),
    (OldStatus, "TEXT NOT NULL"),
    (Level, "BIGINT NOT NULL"),
    (Literal["a", "b"], "TEXT NOT NULL"),
    (list[str], "TEXT[] NOT NULL"),
    (list[Short], "VARCHAR(5)[] NOT NULL"),
    (Annotated[list[str], Field(max_length=5)], "TEXT[] NOT NULL"),
    (list[Money], "DECIMAL(10, 2)[] NOT NULL"),
    (list[datetime], "TIMESTAMP WITH TIME ZONE[] NOT NULL"),
    (list[Status], "TEXT[] NOT NULL"),
    (list[Literal["a"]], "TEXT[] NOT NULL"),
    (dict, "JSONB NOT NULL"),
    (dict[str, int], "JSONB NOT NULL"),
    (Line, "JSONB NOT NULL"),
    (Address, "JSONB NOT NULL"),
    (list, "JSONB NOT NULL"),
    (list[Any], "JSONB NOT NULL"),
    (list[Line], "JSONB NOT NULL"),
    (list[dict[str, str]], "JSONB NOT NULL"),
    (list[list[int]], "JSONB NOT NULL"),
    (list[int | None], "JSONB NOT NULL"),
    (list[int | str], "JSONB NOT NULL"),
    (str | None, "TEXT"),
    (Optional[int], "BIGINT"),  # noqa: UP045  both spellings are met
    (Union[None, Short], "VARCHAR(5)"),  # noqa: UP007  the same
    (Annotated[str | None, Field(max_length=7)], "VARCHAR(7)"),
    (Annotated[Money | None, Field(description="x")], "DECIMAL(10, 2)"),
    (Literal["a", None], "TEXT"),  # noqa: PYI061  the same
    (list[str] | None, "TEXT[]"),
    (Line | None, "JSONB"),
]

REFUSED = [
    (Decimal, "a Decimal needs Field(max_digits=..., decimal_places=...), so that no digit is lost"),
    (Decimal | None, "a Decimal needs Field(max_digits=..., decimal_places=...)"),
    (list[Decimal], "a Decimal needs Field(max_digits=..., decimal_places=...)"),
    (Annotated[Decimal, Field(max_digits=5)], "a Decimal needs Field(max_digits=..., decimal_places=...)"),
    (
        Annotated[Decimal, Field(decimal_places=2)],
        "a Decimal needs Field(max_digits=..., decimal_places=...)",
    ),
    (
        Annotated[Decimal, Field(max_digits=2, decimal_places=5)],
        "the scale of DECIMAL(2, s) is 0 to 2, not 5",
    ),
    (Any, "no column type for typing.Any; build the schema from fields=[...] instead"),
    (object, "no column type for <class 'object'>"),
    (int | str, "no column type for int | str"),
    (complex, "no column type for <class 'complex'>"),
    (set[str], "no column type for set[str]"),
    (tuple[int, int], "no column type for tuple[int, int]"),
    (Literal[1, 2], "no column type for typing.Literal[1, 2]"),
    (Literal["a", 1], "no column type for typing.Literal['a', 1]"),
    (Mood, "Mood is neither a StrEnum nor an IntEnum"),
    (list[bytes], "there are no arrays of BYTEA; use JSONB for lists of documents"),
]


def from_fields(**fields):
    """Make a schema from a model with these fields and an id."""
    model = create_model("Cart", id=(str, ...), **fields)
    return ProjectionSchema.from_model(model, collection="carts", primary_key="id")


def refused(message):
    """Expect a SchemaError that begins with the collection and then like that."""
    return pytest.raises(SchemaError, match=r"\A" + re.escape(f"collection 'carts': {message}"))


@pytest.mark.parametrize(("annotation", "definition"), TYPES)
def test_a_field_s_type_says_what_its_column_is(annotation, definition):
    """Scalars, lists and documents become their columns; Optional fields may be NULL, all others may not."""
    assert from_fields(field=(annotation, ...)).column("field").definition == definition


@pytest.mark.parametrize(("annotation", "message"), REFUSED)
def test_a_type_that_says_too_little_is_refused(annotation, message):
    """Nothing is guessed: an unsupported or incomplete type is an error that names the field."""
    with refused(f"field 'field' of Cart: {message}"):
        from_fields(field=(annotation, ...))


def test_the_key_is_what_primary_key_names():
    """One name or several are the key, in the order named."""

    class Cart(BaseModel):
        tenant: UUID
        number: int
        owner: str

    one = ProjectionSchema.from_model(Cart, collection="carts", primary_key="number")
    assert one.key == ("number",)
    assert one == ProjectionSchema(
        "carts",
        [("tenant", "UUID NOT NULL"), ("number", "BIGINT PRIMARY KEY"), ("owner", "TEXT NOT NULL")],
    )
    two = ProjectionSchema.from_model(Cart, collection="carts", primary_key=["number", "tenant"])
    assert two.key == ("number", "tenant")


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (str | None, "column 'id': NULL contradicts PRIMARY KEY in 'TEXT NULL PRIMARY KEY'"),
        (float, "column 'id': DOUBLE PRECISION cannot be PRIMARY KEY: it is inexact"),
        (dict, "column 'id': JSONB cannot be PRIMARY KEY"),
    ],
)
def test_a_field_that_cannot_be_a_key_is_refused(annotation, message):
    """Optional, inexact and document fields make no key."""
    with refused(message):
        ProjectionSchema.from_model(create_model("Cart", id=(annotation, ...)), collection="carts", primary_key="id")


def test_a_key_that_no_field_has_is_refused():
    """An unknown key names the columns that are there."""
    with refused("primary_key names an unknown column 'nope'; there are id"):
        ProjectionSchema.from_model(create_model("Cart", id=(str, ...)), collection="carts", primary_key="nope")


def test_indexes_are_passed_on():
    """Indexes are those of any schema."""
    index = ProjectionIndex("owner", where={"owner": {"$ne": None}})
    model = create_model("Cart", id=(str, ...), owner=(str | None, None))
    made = ProjectionSchema.from_model(model, collection="carts", primary_key="id", indexes=[index, "id"])
    assert [each.name for each in made.indexes] == ["ix_carts_owner", "ix_carts_id"]


def test_a_column_is_called_like_the_alias():
    """The serialization alias comes first, then the alias, then the field's own name."""

    class Cart(BaseModel):
        cart_id: str = Field(alias="id")
        version_: int = Field(alias="_version")
        owner: str = Field(alias="in", serialization_alias="out")
        note: str = Field(validation_alias="in_only")

    made = ProjectionSchema.from_model(Cart, collection="carts", primary_key="id")
    assert [column.name for column in made.columns] == ["id", "_version", "out", "note"]


def test_columns_are_what_the_model_writes():
    """Excluded fields have no column, computed ones do, and generated aliases count."""

    class Cart(BaseModel):
        model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

        cart_id: str
        cached_total: int = Field(default=0, exclude=True)

        @computed_field
        @property
        def double_total(self) -> int | None:
            return None

    made = ProjectionSchema.from_model(Cart, collection="carts", primary_key="cartId")
    assert made.fields == (("cartId", "TEXT PRIMARY KEY"), ("doubleTotal", "BIGINT"))
    assert set(Cart(cart_id="1").model_dump(by_alias=True)) == {column.name for column in made.columns}


def test_defaults_stay_the_model_s():
    """A field with a default is NOT NULL without a DEFAULT."""
    made = from_fields(count=(int, 5), tags=(list[str], Field(default_factory=list)))
    assert made.column("count").definition == "BIGINT NOT NULL"
    assert made.column("tags").definition == "TEXT[] NOT NULL"


def test_inherited_fields_are_columns():
    """A base model's fields come first."""

    class Base(BaseModel):
        id: str

    class Cart(Base):
        total: int

    made = ProjectionSchema.from_model(Cart, collection="carts", primary_key="id")
    assert [column.name for column in made.columns] == ["id", "total"]


def test_a_name_that_no_column_can_have_is_refused():
    """An alias that is no identifier is refused like any column's name."""
    model = create_model("Cart", id=(str, Field(alias="cart-id")))
    with pytest.raises(SchemaError, match=r"\AInvalid SQL column name: 'cart-id' in collection 'carts'"):
        ProjectionSchema.from_model(model, collection="carts", primary_key="cart-id")


def test_housekeeping_fields_get_fitting_columns():
    """The types that pydantic fields have for _version and the last event suit the store."""
    made = from_fields(
        version_=(int, Field(alias="_version")),
        last_event_id=(str | None, Field(alias="_last_event_id")),
        last_event_position=(int | None, Field(alias="_last_event_position")),
    )
    assert [str(made.column(name).type) for name in ("_version", "_last_event_id", "_last_event_position")] == [
        "BIGINT",
        "TEXT",
        "BIGINT",
    ]


@pytest.mark.parametrize("model", [dict, Line(sku="x"), "Line", None, Address])
def test_what_is_not_a_model_is_refused(model):
    """Only pydantic model classes have fields to read."""
    with refused(f"from_model takes a pydantic model class, not {model!r}"):
        ProjectionSchema.from_model(model, collection="carts", primary_key="id")


def test_a_bad_collection_is_refused_first():
    """The collection's name is checked as in a schema made by hand."""
    with pytest.raises(SchemaError, match=r"\AInvalid SQL table name: 'a b'; "):
        ProjectionSchema.from_model(Line, collection="a b", primary_key="sku")


def test_a_model_that_is_not_complete_is_refused():
    """A model that waits for a type is refused with the way out, and accepted once the type is there."""

    class Cart(BaseModel):
        id: str
        later: "Later"  # noqa: F821  defined below, in another scope

    with refused("Cart refers to types that are not defined yet; call model_rebuild() later"):
        ProjectionSchema.from_model(Cart, collection="carts", primary_key="id")
    Cart.model_rebuild(_types_namespace={"Later": int})
    made = ProjectionSchema.from_model(Cart, collection="carts", primary_key="id")
    assert made.column("later").definition == "BIGINT NOT NULL"
