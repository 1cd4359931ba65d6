"""Where a stranger was seen, what its mark says, and who allowed it to go."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    for name in ("cluster", "host", "power", "allowed_by"):
        op.add_column("orphan", sa.Column(name, sa.String(), nullable=True))
    for name in ("installation_id", "machine_id"):
        op.add_column("orphan", sa.Column(name, sa.Uuid(), nullable=True))
