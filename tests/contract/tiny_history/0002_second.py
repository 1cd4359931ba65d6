"""Things have weights."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("thing", sa.Column("weight", sa.Float, nullable=False, server_default="1"))
