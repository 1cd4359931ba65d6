"""Sites: where a resource stands, and what its owner says is there where its cloud shows no hosts."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("resource", sa.Column("site", sa.String(100)))
    op.add_column("resource", sa.Column("declared", postgresql.JSONB(none_as_null=True)))
