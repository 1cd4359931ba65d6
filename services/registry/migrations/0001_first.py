"""Resources."""

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
        "resource",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("organisation_id", _ID, nullable=False, index=True),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("provider", sa.String(40), nullable=False),
        sa.Column("url", sa.String(2000), nullable=False),
        sa.Column("identity", sa.String, nullable=False),
        sa.Column("instance_identity", sa.String),
        sa.Column("settings", _JSON, nullable=False),
        sa.Column("username", sa.String(255), nullable=False),
        sa.Column("sealed_secret", sa.String, nullable=False),
        sa.Column("ca_pem", sa.String),
        sa.Column("thumbprint", sa.String(100)),
        sa.Column("interval_s", sa.Float, nullable=False),
        sa.Column("mode", sa.String(20), nullable=False),
        sa.Column("force", sa.Boolean, nullable=False),
        sa.Column("deleting", sa.Boolean, nullable=False),
        sa.Column("draining_revision", sa.Integer),
        sa.Column("released_at", _AT),
        sa.Column("health", sa.String(20), nullable=False),
        sa.Column("health_cause", sa.String(40)),
        sa.Column("health_detail", sa.String),
        sa.Column("health_at", _AT),
        sa.Column("alarm", _JSON),
        sa.Column("validation", _JSON),
        sa.Column("capabilities", _JSON, nullable=False),
        sa.Column("inventory", _JSON, nullable=False),
        sa.Column("inventory_revision", sa.Integer, nullable=False),
        sa.Column("created_at", _AT, nullable=False),
        sa.Column("updated_at", _AT, nullable=False),
    )
    # Two replicas that register the same cloud at once: the index lets one of them win.
    op.create_index("uq_resource_identity", "resource", ["identity"], unique=True)
    op.create_index("uq_resource_instance_identity", "resource", ["instance_identity"], unique=True)
