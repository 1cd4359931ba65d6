"""Projects, contributions, and the machines that work."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

_ID = postgresql.UUID(as_uuid=True)
_AT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "project",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("url", sa.String(300), nullable=False, unique=True),
        sa.Column("created_at", _AT, nullable=False),
    )
    op.create_table(
        "contribution",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("organisation_id", _ID, nullable=False),
        sa.Column("project_id", _ID, sa.ForeignKey("project.id"), nullable=False),
        sa.Column("weight", sa.Float, nullable=False),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("gone", sa.Boolean, nullable=False),
        sa.Column("resource_ids", postgresql.ARRAY(_ID)),
        sa.Column("sealed_authenticator", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("created_at", _AT, nullable=False),
        sa.Column("updated_at", _AT, nullable=False),
    )
    op.create_index(
        "uq_contribution_living",
        "contribution",
        ["organisation_id", "project_id"],
        unique=True,
        postgresql_where=sa.text("not gone"),
    )
    op.create_table(
        "machine",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("organisation_id", _ID, nullable=False, index=True),
        sa.Column("resource_id", _ID, nullable=False),
        sa.Column("vcpus", sa.Integer, nullable=False),
        sa.Column("stage", sa.SmallInteger, nullable=False),
        sa.Column("at", _AT, nullable=False),
    )
