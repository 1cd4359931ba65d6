"""Template versions that a machine of ours makes from others."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0018"
down_revision = "0017"

_ID = postgresql.UUID(as_uuid=True)
_AT = sa.DateTime(timezone=True)
_NO = sa.text("false")


def upgrade() -> None:
    op.create_table(
        "derivation",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("organisation_id", _ID, nullable=False),
        sa.Column("resource_id", _ID, nullable=False),
        sa.Column("version_id", _ID, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("components", postgresql.JSONB, nullable=False),
        sa.Column("ca_pem", sa.String),
        sa.Column("proxy", sa.String),
        sa.Column("until", _AT, nullable=False),
        sa.Column("over", sa.Boolean, nullable=False),
        sa.Column("kept", sa.Boolean, nullable=False),
        sa.Column("outcome", sa.String, nullable=False),
        sa.Column("step", sa.String),
        sa.Column("reason", sa.String),
        sa.Column("told_at", _AT),
        sa.Column("discarded", sa.Boolean, nullable=False, server_default=_NO),
        sa.Column("cleared", sa.Boolean, nullable=False, server_default=_NO),
    )
    op.create_index("ix_derivation_resource_id", "derivation", ["resource_id"])
    op.add_column("machine", sa.Column("derivation_id", _ID))
    op.create_index("uq_machine_derivation", "machine", ["derivation_id"], unique=True)
