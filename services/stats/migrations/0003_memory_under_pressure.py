"""Memory that is active, and what owners' machines lost of theirs."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_MEASURES = ("memory_active_mib", "owner_balloon_mib", "owner_swapped_mib")


def upgrade() -> None:
    for name in _MEASURES:
        op.add_column("host_sample", sa.Column(name, sa.Double))
        for of in ("mean", "max"):
            op.add_column("five_minutes", sa.Column(f"{name}_{of}", sa.Double))
