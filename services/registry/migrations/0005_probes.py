"""Activation: whether a resource must be probed before it is lent, the probe that goes on, and how the last one went.

What is, or was, lent is activated.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"

_AT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column(
        "resource", sa.Column("requires_probe", sa.Boolean, nullable=False, server_default=sa.false())
    )
    op.add_column("resource", sa.Column("activated_at", _AT))
    op.add_column("resource", sa.Column("probe_id", postgresql.UUID(as_uuid=True)))
    op.add_column("resource", sa.Column("probe_until", _AT))
    op.add_column("resource", sa.Column("probe", postgresql.JSONB(none_as_null=True)))
    op.execute("UPDATE resource SET activated_at = updated_at WHERE mode <> 'observe'")
