"""Policies that are tried on a cluster's own history."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

_ID = postgresql.UUID(as_uuid=True)
_AT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "backtest",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("organisation_id", _ID, nullable=False),
        sa.Column("cluster_id", _ID, nullable=False),
        sa.Column("policy", sa.String(100), nullable=False),
        sa.Column("asked", postgresql.JSONB, nullable=False),
        sa.Column("days", sa.Integer, nullable=False),
        sa.Column("since", _AT, nullable=False),
        sa.Column("until", _AT, nullable=False),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("progress", sa.Double, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("created_at", _AT, nullable=False),
        sa.Column("ended_at", _AT),
        sa.Column("lease_token", _ID),
        sa.Column("lease_until", _AT),
        sa.Column("result", postgresql.JSONB),
        sa.Column("error", sa.String(500)),
    )
    open_ = sa.text("state in ('queued', 'running')")
    op.create_index("ix_backtest_organisation_id", "backtest", ["organisation_id"])
    op.create_index("uq_backtest_open", "backtest", ["organisation_id"], unique=True, postgresql_where=open_)
