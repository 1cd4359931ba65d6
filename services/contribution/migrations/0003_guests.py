"""The agents in machines, and how long a draining machine has."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"

_ID = postgresql.UUID(as_uuid=True)
_AT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("machine", sa.Column("grace_s", sa.Float, nullable=True))
    op.create_table(
        "guest",
        sa.Column("machine_id", _ID, sa.ForeignKey("machine.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("token_sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("secret_sha256", sa.String(64), unique=True),
        sa.Column("enrolled_at", _AT),
        sa.Column("beat_at", _AT),
        sa.Column("version", sa.String(16), nullable=False),
        sa.Column("boinc_error", sa.String(200)),
        sa.Column("tasks", sa.Integer, nullable=False),
        sa.Column("running", sa.Integer, nullable=False),
        sa.Column("held", sa.Boolean, nullable=False),
        sa.Column("drained_at", _AT),
        sa.Column("lost_cpu_s", sa.Float),
    )
