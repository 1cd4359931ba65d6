"""When a machine's guest had ended its work, and what that lost."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("machine", sa.Column("drained_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("machine", sa.Column("lost_cpu_s", sa.Float(), nullable=True))
