"""Resources that are away, and what stands in for them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"

_ID = postgresql.UUID(as_uuid=True)


def upgrade() -> None:
    op.create_table(
        "away_resource",
        sa.Column("resource_id", _ID, primary_key=True),
        sa.Column("organisation_id", _ID, nullable=False, index=True),
        sa.Column("is_away", sa.Boolean, nullable=False),
        sa.Column("stand_in_id", _ID),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
