<%
    if records is UNDEFINED:
        if config.cmd_opts is not None and config.cmd_opts.x:
            import sys

            # Alembic says of any error here that the template failed, and no more.
            needed = "-x needs the environment: set revision_environment = true in alembic.ini, or in [tool.alembic]"
            print(f"{needed} of pyproject.toml", file=sys.stderr)
            raise ValueError(needed)
        record, render = {"projections": (), "schemas": {}}, str
    else:
        record, render = records.get(up_revision, {"projections": (), "schemas": {}}), finished
%>"""${message}.

Revision ID: ${up_revision}
Revises:${"" if down_revision is None else " "}${down_revision | comma,n}
Create Date: ${create_date}
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
${imports + "\n" if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}

# The collections whose tables this revision changes.
projections: tuple[str, ...] = ${repr(record["projections"])}
% if record["schemas"]:
# What it leaves them as, for comparisons: each one's fingerprint, None for a dropped one, and its schema.
fingerprints: dict[str, str | None] = {
% for collection, schema in record["schemas"].items():
    ${repr(collection)}: ${repr(schema and schema.fingerprint)},
% endfor
}
schemas = {
% for collection, schema in record["schemas"].items():
% if schema:
    ${repr(collection)}: {
        'fields': [
% for field in schema.fields:
            ${repr(field)},
% endfor
        ],
        'indexes': [
% for index in schema.indexes:
            ${repr(index.to_dict())},
% endfor
        ],
        'primary_key': ${repr(schema.primary_key)},
    },
% endif
% endfor
}
% endif
% if "DeclaredType(" in f"{upgrades or ''}{downgrades or ''}":


class DeclaredType(sa.types.UserDefinedType[object]):
    """A type by the name that the database shall keep for it."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: object) -> str:
        return self.name
% endif


def upgrade() -> None:
    ${render(upgrades) if upgrades else "pass"}


def downgrade() -> None:
    ${render(downgrades) if downgrades else "pass"}
