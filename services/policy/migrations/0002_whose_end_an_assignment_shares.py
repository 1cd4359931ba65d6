"""Whose end an assignment shares."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("assignment", sa.Column("resource_id", postgresql.UUID(as_uuid=True), nullable=True))
    op.create_index("ix_assignment_resource_id", "assignment", ["resource_id"])
    op.execute("update assignment set resource_id = scope_id where scope = 'resource'")
    op.execute(
        "update assignment a set resource_id = k.resource_id from known_cluster k "
        "where a.scope = 'cluster' and k.cluster_id = a.scope_id"
    )
