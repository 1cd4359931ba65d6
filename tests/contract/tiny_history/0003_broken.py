"""Something that this database cannot do, after something that it can."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("create table half (id int)")
    op.execute("select 1 / 0")
