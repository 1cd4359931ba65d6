"""The audit: rows that are added and never touched again."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

_REFUSE = """
create function refuse_change_of_audit() returns trigger language plpgsql as $$
begin
    raise exception 'the audit is append-only' using errcode = 'insufficient_privilege';
end $$
"""


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("what", sa.String(40), nullable=False),
        sa.Column("by_user_id", sa.Uuid()),
        sa.Column("by_name", sa.String(63)),
        sa.Column("from_address", sa.String(64)),
        sa.Column("about_id", sa.Uuid()),
        sa.Column("about_name", sa.String(100)),
        sa.Column("details", postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.execute(_REFUSE)
    op.execute(
        "create trigger audit_is_append_only before update or delete or truncate on audit"
        " for each statement execute function refuse_change_of_audit()"
    )
