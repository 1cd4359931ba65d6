"""Stand-ins: which clouds count as away, and what stands in for them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0017"
down_revision = "0016"

_ID = postgresql.UUID(as_uuid=True)
_AT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("resource", sa.Column("stand_in_id", _ID))
    op.add_column("resource", sa.Column("away_since", _AT))
    op.add_column("resource", sa.Column("well_since", _AT))
    op.add_column("resource", sa.Column("stood_in_by", _ID))
    op.add_column("resource", sa.Column("stands_for", postgresql.JSONB(none_as_null=True)))
