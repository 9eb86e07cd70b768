"""How types are written into revisions: so that they create the same table on both databases, and import no library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy.core.dialect import ExactDecimal, PortableArray, PortableLiteral, UTCDateTime

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext


def render_item(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:
    """Render a column type or default that the databases spell differently; leave the rest to Alembic."""
    if kind == "server_default" and isinstance(getattr(item, "arg", item), PortableLiteral):
        return _literal(getattr(item, "arg", item))
    if kind != "type":
        return False
    if isinstance(item, UTCDateTime | ExactDecimal):
        return _scalar(item)
    if isinstance(item, PortableArray):
        return _json_or(f"postgresql.ARRAY({_scalar(item.item)})", context)
    if isinstance(item, sa.JSON):
        return _json_or("postgresql.JSONB()", context)
    return False


def _json_or(postgresql: str, context: AutogenContext) -> str:
    context.imports.add("from sqlalchemy.dialects import postgresql")
    return f'sa.JSON().with_variant({postgresql}, "postgresql")'


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
