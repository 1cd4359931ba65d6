"""Probes: one machine that must reach its demander before its resource is lent."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"

_ID = postgresql.UUID(as_uuid=True)


def upgrade() -> None:
    op.add_column("resource", sa.Column("probe_id", _ID))
    op.add_column("resource", sa.Column("probe_until", sa.DateTime(timezone=True)))
    op.add_column("resource", sa.Column("probe_step", sa.String))
    op.add_column("resource", sa.Column("probe_reason", sa.String))
    op.add_column("resource", sa.Column("probe_told_at", sa.DateTime(timezone=True)))
    op.add_column("machine", sa.Column("probe_id", _ID))
    op.create_index("uq_machine_probe", "machine", ["probe_id"], unique=True)
