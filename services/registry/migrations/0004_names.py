"""What a resource's name is compared by: unique in an organisation.

Of resources that bear one name already the oldest takes it; the others keep theirs, without a key, until somebody
renames them.
"""

import unicodedata

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_RESOURCE = sa.table(
    "resource", sa.column("id"), sa.column("organisation_id"), sa.column("name"), sa.column("name_key")
)


def upgrade() -> None:
    op.add_column("resource", sa.Column("name_key", sa.String))
    connection = op.get_bind()
    rows = sa.select(_RESOURCE.c.id, _RESOURCE.c.organisation_id, _RESOURCE.c.name).order_by(_RESOURCE.c.id)
    taken: set[tuple[object, str]] = set()
    for row in connection.execute(rows).all():
        key = unicodedata.normalize("NFKC", row.name).casefold()
        if (row.organisation_id, key) not in taken:
            taken.add((row.organisation_id, key))
            connection.execute(_RESOURCE.update().where(_RESOURCE.c.id == row.id).values(name_key=key))
    op.create_index("uq_resource_name", "resource", ["organisation_id", "name_key"], unique=True)
