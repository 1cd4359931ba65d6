"""Clouds that were given up without being asked, and since when a resource is drained by force."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"

_ID = postgresql.UUID(as_uuid=True)
_AT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("resource", sa.Column("forced_at", _AT))
    op.execute("update resource set forced_at = updated_at where force and mode = 'draining'")
    op.create_table(
        "abandonment",
        sa.Column("resource_id", _ID, primary_key=True),
        sa.Column("organisation_id", _ID, nullable=False, index=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("provider", sa.String(40), nullable=False),
        sa.Column("url", sa.String(2000), nullable=False),
        sa.Column("at", _AT, nullable=False),
        sa.Column("by", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("find", sa.String, nullable=False),
        sa.Column("machines", postgresql.JSONB),
    )
