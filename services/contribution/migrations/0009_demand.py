"""Which hosts projects were told of, and when they are next told what to expect."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"

_ID = postgresql.UUID(as_uuid=True)


def upgrade() -> None:
    op.create_table(
        "told_host",
        sa.Column("machine_id", _ID, sa.ForeignKey("machine.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("project_id", _ID, sa.ForeignKey("project.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("host_id", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "forecast",
        sa.Column("project_id", _ID, sa.ForeignKey("project.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("hosts", sa.Integer, nullable=False),
    )
