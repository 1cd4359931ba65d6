"""The catalogue, what projects say of themselves, and who agreed to which terms."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"

_ID = postgresql.UUID(as_uuid=True)
_AT = sa.DateTime(timezone=True)


def _project() -> sa.ForeignKey:
    return sa.ForeignKey("project.id", ondelete="CASCADE")


def upgrade() -> None:
    op.create_table(
        "listed_project",
        sa.Column("url", sa.String(300), primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("area", sa.String(200), nullable=False),
        sa.Column("specific_area", sa.String(200), nullable=False),
        sa.Column("home", sa.String(300), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("web_url", sa.String(300), nullable=False),
        sa.Column("runs_here", sa.Boolean, nullable=False),
        sa.Column("keywords", postgresql.ARRAY(sa.Integer), nullable=False),
    )
    op.create_table(
        "visit",
        sa.Column("project_id", _ID, _project(), primary_key=True),
        sa.Column("due_at", _AT, nullable=False),
        sa.Column("lease_token", _ID),
        sa.Column("lease_until", _AT),
        sa.Column("seen_at", _AT, nullable=False),
        sa.Column("master_url", sa.String(300), nullable=False),
        sa.Column("down", sa.Boolean, nullable=False),
        sa.Column("terms", sa.Text, nullable=False),
        sa.Column("terms_sha256", sa.String(64), nullable=False),
        sa.Column("terms_since", _AT, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("failing_since", _AT),
        sa.Column("trouble", sa.String(300)),
    )
    op.create_table(
        "consent",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("organisation_id", _ID, nullable=False),
        sa.Column("project_id", _ID, _project(), nullable=False),
        sa.Column("terms_sha256", sa.String(64), nullable=False),
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("user_name", sa.String(200), nullable=False),
        sa.Column("at", _AT, nullable=False),
        sa.UniqueConstraint("organisation_id", "project_id", "terms_sha256"),
    )
