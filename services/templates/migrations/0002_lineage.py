"""What a version was made from, and what its image holds."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    origin = postgresql.UUID(as_uuid=True)
    op.add_column("template_version", sa.Column("derived_from", origin, sa.ForeignKey("template_version.id")))
    held = sa.Column("components", postgresql.JSONB, nullable=False, server_default=sa.text("'[]'::jsonb"))
    op.add_column("template_version", held)
