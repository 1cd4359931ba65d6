"""Tides is the account manager: signatures of projects, guests' tokens, what clients report."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

_ID = postgresql.UUID(as_uuid=True)
_AT = sa.DateTime(timezone=True)


def _machine() -> sa.ForeignKey:
    return sa.ForeignKey("machine.id", ondelete="CASCADE")


def upgrade() -> None:
    op.add_column("project", sa.Column("url_signature", sa.Text, nullable=True))
    op.create_table(
        "guest_token",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("machine_id", _ID, _machine(), nullable=False, index=True),
        sa.Column("standing", sa.SmallInteger, nullable=False),
        sa.Column("rotates_at", _AT, nullable=False),
        sa.Column("nonce", sa.String(64)),
    )
    op.create_table(
        "contact",
        sa.Column("machine_id", _ID, _machine(), primary_key=True),
        sa.Column("first_at", _AT, nullable=False),
        sa.Column("at", _AT, nullable=False),
        sa.Column("client_version", sa.String(32), nullable=False),
        sa.Column("host_cpid", sa.String(64), nullable=False),
        sa.Column("fpops", sa.Float, nullable=False),
    )
    op.create_table(
        "counter",
        sa.Column("machine_id", _ID, _machine(), primary_key=True),
        sa.Column("project_id", _ID, sa.ForeignKey("project.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("at", _AT, nullable=False),
        sa.Column("host_id", sa.BigInteger, nullable=False),
        sa.Column("cpu_s", sa.Float, nullable=False),
        sa.Column("jobs_succeeded", sa.BigInteger, nullable=False),
        sa.Column("jobs_failed", sa.BigInteger, nullable=False),
        sa.Column("starved", sa.Boolean, nullable=False),
        sa.Column("resource_share", sa.Float, nullable=False),
    )
    op.create_table(
        "claimed",
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("machine_id", _ID, primary_key=True),
        sa.Column("project_id", _ID, primary_key=True),
        sa.Column("organisation_id", _ID, nullable=False, index=True),
        sa.Column("cpu_s", sa.Float, nullable=False),
        sa.Column("credit", sa.Float, nullable=False),
    )
