"""Quotas of organisations and of projects, and priorities."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("assignment", sa.Column("quota", postgresql.JSONB(), nullable=True))
    op.add_column("contribution", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("contribution", sa.Column("most_machines", sa.Integer(), nullable=True))
    op.add_column("contribution", sa.Column("most_vcpus", sa.Integer(), nullable=True))
