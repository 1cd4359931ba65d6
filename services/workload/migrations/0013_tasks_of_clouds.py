"""The cloud's own id of the task that makes a machine: another process finds it again by that."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("machine", sa.Column("task_id", sa.String))
