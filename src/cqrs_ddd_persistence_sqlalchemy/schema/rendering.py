"""How types are written into revisions: so that they create the same table on both databases, and import no library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy.core.dialect import ExactDecimal, PortableArray, PortableLiteral, UTCDateTime

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext

#: The class that the template defines where a revision needs a type by its name alone.
DECLARED = "DeclaredType"

_POSTGRESQL = "from sqlalchemy.dialects import postgresql"


def colons_escaped(sql: str) -> str:
    """Return SQL for `sa.text`, which would read a colon in a literal as the beginning of a parameter."""
    return sql.replace(":", r"\:")


def render_item(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:
    """Render a column type or default that the databases spell differently; leave the rest to Alembic."""
    if kind == "server_default":
        return _default(getattr(item, "arg", item))
    if kind != "type":
        return False
    if isinstance(item, UTCDateTime | ExactDecimal):
        return _scalar(item)
    if isinstance(item, PortableArray):
        context.imports.add(_POSTGRESQL)
        return f'postgresql.ARRAY({_scalar(item.item)}).with_variant({DECLARED}({item.declared_on_sqlite!r}), "sqlite")'
    if isinstance(item, sa.JSON):
        context.imports.add(_POSTGRESQL)
        return 'sa.JSON().with_variant(postgresql.JSONB(), "postgresql")'
    return False


class DeclaredType(sa.types.UserDefinedType[object]):
    """A type by the name that the database shall keep for it, for revisions of an application's own environment."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: object) -> str:
        """Return the name."""
        return self.name


def _default(default: Any) -> str | Literal[False]:
    if isinstance(default, PortableLiteral):
        return _literal(default)
    # Alembic would write it as the database of this run wants it, which is not where it will run.
    return f"sa.text({colons_escaped(str(default))!r})" if isinstance(default, sa.TextClause) else False


def _scalar(item: Any) -> str:
    if isinstance(item, UTCDateTime):
        return "sa.DateTime(timezone=True)"
    if isinstance(item, ExactDecimal):
        return f"sa.Numeric({item.precision}, {item.scale})"
    return f"sa.{item!r}"


def _literal(literal: PortableLiteral) -> str:
    postgresql, sqlite = (repr(colons_escaped(text)) for text in (literal.postgresql, literal.sqlite))
    if postgresql == sqlite:
        return f"sa.text({postgresql})"
    return f'sa.text({sqlite} if op.get_context().dialect.name == "sqlite" else {postgresql})'
