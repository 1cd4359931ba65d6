"""Slots that are used again, what a machine was attached to when it was made, and how its guest does."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("machine", sa.Column("slot", sa.Integer(), nullable=True))
    # Names that living machines have already; an older process goes on to leave it out.
    op.execute("update machine set slot = ordinal where state not in ('destroyed', 'abandoned')")
    op.create_index(
        "uq_machine_slot",
        "machine",
        ["cluster_id", "slot"],
        unique=True,
        postgresql_where=sa.text("state not in ('destroyed', 'abandoned')"),
    )
    op.add_column("machine", sa.Column("attached", postgresql.JSONB(), nullable=True))
    op.add_column("machine", sa.Column("health", sa.String(), nullable=True))
    op.add_column("machine", sa.Column("health_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("machine", sa.Column("health_why", sa.String(), nullable=True))
    op.add_column(
        "cluster", sa.Column("guest_failures", sa.Integer(), nullable=False, server_default=sa.text("0"))
    )
    op.add_column("cluster", sa.Column("guest_failed_at", sa.DateTime(timezone=True), nullable=True))
