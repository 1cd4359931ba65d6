"""What the image of a template version holds."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    held = sa.Column("components", postgresql.JSONB, nullable=False, server_default=sa.text("'[]'::jsonb"))
    op.add_column("template", held)
