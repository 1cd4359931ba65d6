"""Alternate credentials: as whom else a cloud is asked, and since when and why it is."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_AT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("resource", sa.Column("alternate_username", sa.String(255)))
    op.add_column("resource", sa.Column("sealed_alternate", sa.String, nullable=False, server_default=""))
    op.add_column("resource", sa.Column("alternate_since", _AT))
    op.add_column("resource", sa.Column("alternate_why", sa.String))
    op.add_column("resource", sa.Column("first_try_at", _AT))
    op.add_column(
        "resource", sa.Column("credential_revision", sa.Integer, nullable=False, server_default="0")
    )
