"""In which other cluster a machine was seen."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("machine", sa.Column("seen_in", sa.String(), nullable=True))
