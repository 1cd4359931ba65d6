"""Versions that a machine of ours makes from others."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"

_ID = postgresql.UUID(as_uuid=True)
_AT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "derivation",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("template_id", _ID, sa.ForeignKey("template.id"), nullable=False),
        sa.Column("source_id", _ID, sa.ForeignKey("template_version.id"), nullable=False),
        sa.Column("components", postgresql.JSONB, nullable=False),
        sa.Column("ca_pem", sa.Text),
        sa.Column("proxy", sa.Text),
        sa.Column("auto_approve", sa.Boolean, nullable=False),
        sa.Column("asked_by", sa.Text, nullable=False),
        sa.Column("until", _AT, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("step", sa.String(20), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("machine_id", _ID),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("created_at", _AT, nullable=False),
        sa.Column("ended_at", _AT),
    )
    op.create_index("ix_derivation_template_id", "derivation", ["template_id"])
    running = sa.text("state = 'running'")
    op.create_index(
        "uq_derivation_running", "derivation", ["source_id"], unique=True, postgresql_where=running
    )
