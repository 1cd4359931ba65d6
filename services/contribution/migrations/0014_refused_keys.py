"""What projects complain of to clients, and keys that they refuse."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    empty = sa.text("'{}'")
    op.add_column("guest", sa.Column("alerts", postgresql.JSONB, nullable=False, server_default=empty))
    op.add_column("contribution", sa.Column("refused_at", sa.DateTime(timezone=True)))
    op.add_column("contribution", sa.Column("refused_why", sa.String(300)))
