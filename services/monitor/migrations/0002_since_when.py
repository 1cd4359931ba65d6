"""Since when a replica is alive, so that one that has just begun is handed nothing yet."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    since = sa.Column("since", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now())
    op.add_column("replica", since)
