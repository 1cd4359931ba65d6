"""What guests are told besides their drain."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"

_AT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "guest_order",
        sa.Column(
            "machine_id",
            postgresql.UUID(as_uuid=True),
            sa.ForeignKey("machine.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("throttle_percent", sa.Float),
        sa.Column("throttle_until", _AT),
        sa.Column("throttle_by", sa.String(200)),
        sa.Column("throttle_reason", sa.String(200)),
        sa.Column("cap_percent", sa.Float),
        sa.Column("cap_at", _AT),
        sa.Column("applied_percent", sa.Float),
        sa.Column("applied_at", _AT),
        sa.Column("error", sa.String(200)),
        sa.Column("error_at", _AT),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("stop_until", _AT),
        sa.Column("stop_by", sa.String(200)),
        sa.Column("stop_reason", sa.String(200)),
        sa.Column("stopped_at", _AT),
    )
