"""Priorities of contributions, and how many machines and vCPUs may work for one."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("contribution", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("contribution", sa.Column("most_machines", sa.Integer(), nullable=True))
    op.add_column("contribution", sa.Column("most_vcpus", sa.Integer(), nullable=True))
