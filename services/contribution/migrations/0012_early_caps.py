"""What guests may use of whose machines nothing has been heard yet."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "early_cap",
        sa.Column("machine_id", postgresql.UUID(as_uuid=True), primary_key=True),
        sa.Column("percent", sa.Float, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
