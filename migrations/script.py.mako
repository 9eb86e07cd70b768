<%
    if projections is UNDEFINED:
        if config.cmd_opts is not None and config.cmd_opts.x:
            raise ValueError("set 'revision_environment = true' in alembic.ini: -x needs the environment to run")
        collections, render = (), str
    else:
        collections, render = tuple(projections), finished
%>"""${message}.

Revision ID: ${up_revision}
Revises:${"" if down_revision is None else " "}${down_revision | comma,n}
Create Date: ${create_date}
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}

# The collections whose tables this revision changes.
projections: tuple[str, ...] = ${repr(collections)}


def upgrade() -> None:
    ${render(upgrades) if upgrades else "pass"}


def downgrade() -> None:
    ${render(downgrades) if downgrades else "pass"}
