"""How types are written into revisions: so that they create the same table on both databases, and import no library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy.core.dialect import ExactDecimal, PortableLiteral, UTCDateTime

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext

_POSTGRESQL = "from sqlalchemy.dialects import postgresql"


def render_item(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:
    """Render a column type or default that the databases spell differently; leave the rest to Alembic."""
    if kind == "server_default" and isinstance(getattr(item, "arg", item), PortableLiteral):
        return _literal(getattr(item, "arg", item))
    if kind != "type":
        return False
    if isinstance(item, UTCDateTime | ExactDecimal):
        return _scalar(item)
    variant = item._variant_mapping.get("postgresql")  # noqa: SLF001  (SQLAlchemy has no public way to a variant)
    if isinstance(item, sa.JSON) and variant is not None:
        context.imports.add(_POSTGRESQL)
        return f'sa.JSON().with_variant({_postgresql_type(variant)}, "postgresql")'
    return False


def _postgresql_type(variant: Any) -> str:
    if isinstance(variant, sa.ARRAY):
        return f"postgresql.ARRAY({_scalar(variant.item_type)})"
    return "postgresql.JSONB()"


def _scalar(item: Any) -> str:
    if isinstance(item, UTCDateTime):
        return "sa.DateTime(timezone=True)"
    if isinstance(item, ExactDecimal):
        return f"sa.Numeric({item.precision}, {item.scale})"
    return f"sa.{item!r}"


def _literal(literal: PortableLiteral) -> str:
    postgresql, sqlite = (repr(text.replace(":", r"\:")) for text in (literal.postgresql, literal.sqlite))
    if postgresql == sqlite:
        return f"sa.text({postgresql})"
    return f'sa.text({sqlite} if op.get_context().dialect.name == "sqlite" else {postgresql})'
