"""The text of terms that somebody agreed to; and which machines are probes, and how far each has come.

What was agreed to before is kept where the project still has these terms.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"

_ID = postgresql.UUID(as_uuid=True)


def upgrade() -> None:
    op.create_table(
        "kept_terms",
        sa.Column("project_id", _ID, sa.ForeignKey("project.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("terms_sha256", sa.String(64), primary_key=True),
        sa.Column("terms", sa.Text, nullable=False),
    )
    op.execute(
        "INSERT INTO kept_terms (project_id, terms_sha256, terms) SELECT DISTINCT v.project_id, v.terms_sha256, v.terms"
        " FROM visit v JOIN consent c ON c.project_id = v.project_id AND c.terms_sha256 = v.terms_sha256"
    )
    op.add_column("machine", sa.Column("probe_id", _ID))
    op.add_column("machine", sa.Column("probe_step", sa.SmallInteger, nullable=False, server_default="0"))
    op.add_column("machine", sa.Column("probe_why", sa.String(300)))
