"""Who drained or scaled a cluster and why; what of ours may still be there; when it last showed nothing."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for name in ("drained_by", "drained_reason", "scaled_by", "scaled_reason"):
        op.add_column("cluster", sa.Column(name, sa.String(), nullable=True))
    op.add_column("cluster", sa.Column("blank_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("cluster", sa.Column("occupied", sa.Boolean(), nullable=True))
    # Where a machine was ever made, a pool may have been left.
    op.execute(
        "update cluster set occupied = exists (select from machine where machine.cluster_id = cluster.id)"
        " and not exists (select from resource where resource.id = cluster.resource_id and resource.released)"
    )
    op.alter_column("cluster", "occupied", nullable=False)
