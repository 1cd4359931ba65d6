"""Templates, their versions, and the resources they are in."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

_ID = postgresql.UUID(as_uuid=True)
_AT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "template",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("organisation_id", _ID, nullable=False),
        sa.Column("resource_id", _ID, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("created_at", _AT, nullable=False),
        sa.UniqueConstraint("resource_id", "name", name="uq_template_resource_id_name"),
    )
    op.create_table(
        "template_version",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("template_id", _ID, sa.ForeignKey("template.id"), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("reference", sa.String(400), nullable=False),
        sa.Column("disk_gib", sa.Float, nullable=False),
        sa.Column("guest_os", sa.String(200), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("missing", sa.Boolean, nullable=False),
        sa.Column("checked_at", _AT, nullable=False),
        sa.Column("created_at", _AT, nullable=False),
        sa.UniqueConstraint("template_id", "version", name="uq_template_version_template_id_version"),
    )
    op.create_table(
        "known_resource",
        sa.Column("resource_id", _ID, primary_key=True),
        sa.Column("organisation_id", _ID, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("settings", postgresql.JSONB, nullable=False),
        sa.Column("username", sa.Text, nullable=False),
        sa.Column("sealed_secret", sa.Text, nullable=False),
        sa.Column("ca_pem", sa.Text),
        sa.Column("thumbprint", sa.Text),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("gone", sa.Boolean, nullable=False),
    )
