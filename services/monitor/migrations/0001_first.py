"""Watched resources and the replicas that watch them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

_ID = postgresql.UUID(as_uuid=True)
_AT = sa.DateTime(timezone=True)
_JSON = postgresql.JSONB


def upgrade() -> None:
    op.create_table(
        "replica",
        sa.Column("token", _ID, primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("alive_until", _AT, nullable=False),
    )
    op.create_table(
        "resource",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("gone", sa.Boolean, nullable=False),
        sa.Column("organisation_id", _ID, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("provider", sa.String, nullable=False),
        sa.Column("url", sa.String, nullable=False),
        sa.Column("settings", _JSON, nullable=False),
        sa.Column("username", sa.String, nullable=False),
        sa.Column("sealed_secret", sa.String, nullable=False),
        sa.Column("ca_pem", sa.String),
        sa.Column("thumbprint", sa.String),
        sa.Column("mode", sa.String, nullable=False),
        sa.Column("interval_s", sa.Float, nullable=False),
        sa.Column("lease_token", _ID, index=True),
        sa.Column("lease_until", _AT),
        sa.Column("marks", _JSON, nullable=False, server_default="{}"),
        sa.Column("sampled_at", _AT),
        sa.Column("received_at", _AT),
        sa.Column("clock_offset_s", sa.Float, nullable=False, server_default="0"),
        sa.Column("due_at", _AT),
        sa.Column("retry_at", _AT),
        sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
        sa.Column("failing_since", _AT),
        sa.Column("degraded_at", _AT),
        sa.Column("cause", sa.String),
        sa.Column("detail", sa.String),
        sa.Column("inventory", _JSON, nullable=False, server_default="[]"),
        sa.Column("inventory_revision", sa.Integer, nullable=False, server_default="0"),
    )
