"""How far the cloud is with what it does to a machine."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("machine", sa.Column("progress", sa.Integer(), nullable=True))
