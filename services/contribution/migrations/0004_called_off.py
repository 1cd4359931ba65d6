"""A drain that is called off reaches the agent."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("guest", sa.Column("resume_at", sa.DateTime(timezone=True), nullable=True))
