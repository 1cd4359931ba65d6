"""What was seen of each guest's health, and what others were told of it."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("guest", sa.Column("observed", sa.String(16), nullable=True))
    op.add_column("guest", sa.Column("observed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("guest", sa.Column("said", sa.String(16), nullable=True))
    op.add_column("guest", sa.Column("said_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("guest", sa.Column("said_why", sa.String(300), nullable=True))
