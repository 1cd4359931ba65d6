"""Policies, revisions, assignments, and what is known to assign to."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

_ID = postgresql.UUID(as_uuid=True)
_AT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "policy",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("organisation_id", _ID, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("created_at", _AT, nullable=False),
        sa.Column("updated_at", _AT, nullable=False),
        sa.UniqueConstraint("organisation_id", "name", name="uq_policy_organisation_id_name"),
    )
    op.create_table(
        "policy_revision",
        sa.Column("policy_id", _ID, sa.ForeignKey("policy.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("revision", sa.Integer, primary_key=True),
        sa.Column("document", postgresql.JSONB, nullable=False),
        sa.Column("created_at", _AT, nullable=False),
        sa.Column("created_by", sa.String(200), nullable=False),
    )
    op.create_table(
        "assignment",
        sa.Column("scope", sa.String(16), primary_key=True),
        sa.Column("scope_id", _ID, primary_key=True),
        sa.Column("policy_id", _ID, sa.ForeignKey("policy.id", ondelete="SET NULL"), index=True),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("assigned_at", _AT, nullable=False),
    )
    op.create_table(
        "known_resource",
        sa.Column("resource_id", _ID, primary_key=True),
        sa.Column("organisation_id", _ID),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("inventory_revision", sa.BigInteger, nullable=False),
        sa.Column("gone", sa.Boolean, nullable=False),
    )
    op.create_table(
        "known_cluster",
        sa.Column("cluster_id", _ID, primary_key=True),
        sa.Column("resource_id", _ID, nullable=False, index=True),
        sa.Column("name", sa.String(400), nullable=False),
    )
