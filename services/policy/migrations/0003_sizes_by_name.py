"""Sizes by name: what the hosts of a cluster have, and which numbers a size stands for at an assignment."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column(
        "known_cluster", sa.Column("hosts", postgresql.JSONB, nullable=False, server_default=sa.text("'[]'"))
    )
    op.add_column("assignment", sa.Column("size", postgresql.JSONB(none_as_null=True)))
