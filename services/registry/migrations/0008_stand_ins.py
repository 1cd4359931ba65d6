"""Stand-ins: which resource takes over from one that is away."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("resource", sa.Column("stand_in_id", postgresql.UUID(as_uuid=True)))
