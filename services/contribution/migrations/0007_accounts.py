"""Stored accounts, and the credit that projects granted."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"

_ID = postgresql.UUID(as_uuid=True)
_AT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("visit", sa.Column("stats_due_at", _AT))
    op.add_column("visit", sa.Column("stats_trouble", sa.String(300)))
    op.add_column(
        "visit", sa.Column("etags", postgresql.JSONB, nullable=False, server_default=sa.text("'{}'"))
    )
    op.create_table(
        "account",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("organisation_id", _ID, nullable=False),
        sa.Column("project_id", _ID, sa.ForeignKey("project.id"), nullable=False, index=True),
        sa.Column("state", sa.SmallInteger, nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("creates", sa.Boolean, nullable=False),
        sa.Column("user_name", sa.String(60), nullable=False),
        sa.Column("sealed_login", sa.Text, nullable=False),
        sa.Column("asked_at", _AT, nullable=False),
        sa.Column("tried_at", _AT),
        sa.Column("sealed_strong_key", sa.Text, nullable=False),
        sa.Column("sealed_weak_key", sa.Text, nullable=False),
        sa.Column("user_id", sa.BigInteger, nullable=False),
        sa.Column("trouble", sa.String(300)),
        sa.Column("credit_at", _AT),
        sa.Column("created_at", _AT, nullable=False),
        sa.Column("updated_at", _AT, nullable=False),
        sa.UniqueConstraint("organisation_id", "project_id"),
    )
    op.add_column(
        "contribution",
        sa.Column("account_id", _ID, sa.ForeignKey("account.id", ondelete="SET NULL"), index=True),
    )
    op.create_table(
        "granted_host",
        sa.Column("project_id", _ID, sa.ForeignKey("project.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("organisation_id", _ID, primary_key=True),
        sa.Column("host_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("user_id", sa.BigInteger, nullable=False),
        sa.Column("machine_id", _ID),
        sa.Column("total", sa.Float, nullable=False),
        sa.Column("seen_at", _AT, nullable=False),
    )
    op.create_table(
        "granted",
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("project_id", _ID, primary_key=True),
        sa.Column("organisation_id", _ID, primary_key=True),
        sa.Column("machine_id", _ID, primary_key=True),
        sa.Column("credit", sa.Float, nullable=False),
    )
