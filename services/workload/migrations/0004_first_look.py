"""When a resource's machines were first read."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("resource", sa.Column("seen_at", sa.DateTime(timezone=True), nullable=True))
