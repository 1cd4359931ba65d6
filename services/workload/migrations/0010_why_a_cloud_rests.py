"""Why a cloud is left alone, and since when."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("resource", sa.Column("refused_cause", sa.String(), nullable=True))
    op.add_column("resource", sa.Column("refused_detail", sa.String(), nullable=True))
    op.add_column("resource", sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True))
