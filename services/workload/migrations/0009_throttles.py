"""How fast a cluster's cores are, and what guests were told to use of them where the cloud has no limits."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("cluster", sa.Column("core_mhz", sa.Float(), nullable=True))
    op.add_column("machine", sa.Column("throttle_percent", sa.Float(), nullable=True))
