"""Order of events: what speaks of another event comes after it, also from a transaction that began before that one."""

from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.execute(
        "alter table action_event alter column transaction set default greatest("
        "pg_current_xact_id()::text::bigint, pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1)"
    )
