"""Samples by day, what is kept of them beyond, what happened, and who is who."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

_ID = postgresql.UUID(as_uuid=True)
_AT = sa.DateTime(timezone=True)
_MEASURES = (
    "cpu_capacity_mhz",
    "cpu_used_mhz",
    "cpu_ours_mhz",
    "cpu_limit_mhz",
    "memory_capacity_mib",
    "memory_used_mib",
    "memory_ours_mib",
    "contention_percent",
    "machines",
)


def upgrade() -> None:
    _create_samples()
    _create_rollups()
    _create_projections()


def _create_samples() -> None:
    op.create_table(
        "cluster_sample",
        sa.Column("cluster_id", _ID, primary_key=True),
        sa.Column("at", _AT, primary_key=True),
        sa.Column("interval_s", sa.Double, nullable=False),
        sa.Column("cap_mhz", sa.Double),
        sa.Column("datastore_capacity_gib", sa.Double),
        sa.Column("datastore_free_gib", sa.Double),
        sa.Column("quality", sa.String(12), nullable=False),
        postgresql_partition_by="range (at)",
    )
    op.create_table(
        "host_sample",
        sa.Column("cluster_id", _ID, primary_key=True),
        sa.Column("at", _AT, primary_key=True),
        sa.Column("host", sa.String(200), primary_key=True),
        sa.Column("interval_s", sa.Double, nullable=False),
        *(sa.Column(name, sa.Double) for name in _MEASURES),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("quality", sa.String(12), nullable=False),
        postgresql_partition_by="range (at)",
    )
    op.create_table("sample_day", sa.Column("day", sa.Date, primary_key=True))
    op.create_table(
        "refusal",
        sa.Column("resource_id", _ID, primary_key=True),
        sa.Column("reason", sa.String(20), primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("last_at", _AT, nullable=False),
    )


def _create_rollups() -> None:
    op.create_table(
        "dirty_hour",
        sa.Column("cluster_id", _ID, primary_key=True),
        sa.Column("hour", _AT, primary_key=True),
        sa.Column("touched", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "cluster_hour",
        sa.Column("cluster_id", _ID, primary_key=True),
        sa.Column("hour", _AT, primary_key=True),
        sa.Column("samples", sa.Integer, nullable=False),
        sa.Column("core_s", sa.Double, nullable=False),
        sa.Column("lent_s", sa.Double, nullable=False),
        sa.Column("contended_s", sa.Double, nullable=False),
    )
    op.create_table(
        "organisation_hour",
        sa.Column("cluster_id", _ID, primary_key=True),
        sa.Column("hour", _AT, primary_key=True),
        sa.Column("organisation_id", _ID, primary_key=True),
        sa.Column("core_s", sa.Double, nullable=False),
    )
    op.create_table(
        "five_minutes",
        sa.Column("cluster_id", _ID, primary_key=True),
        sa.Column("at", _AT, primary_key=True),
        sa.Column("host", sa.String(200), primary_key=True),
        sa.Column("samples", sa.Integer, nullable=False),
        *(sa.Column(f"{name}_{of}", sa.Double) for name in _MEASURES for of in ("mean", "max")),
    )


def _create_projections() -> None:
    op.create_table(
        "resource",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("organisation_id", _ID, nullable=False, index=True),
        sa.Column("name", sa.String(400), nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("gone", sa.Boolean, nullable=False),
    )
    op.create_table(
        "inventory",
        sa.Column("resource_id", _ID, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "cluster",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("resource_id", _ID, nullable=False, index=True),
        sa.Column("name", sa.String(400), nullable=False),
    )
    op.create_table(
        "host",
        sa.Column("cluster_id", _ID, primary_key=True),
        sa.Column("host", sa.String(200), primary_key=True),
        sa.Column("cores", sa.Integer, nullable=False),
    )
    op.create_table(
        "action_event",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("key", sa.String(100), nullable=False),
        sa.Column("at", _AT, nullable=False, index=True),
        sa.Column("resource_id", _ID, nullable=False),
        sa.Column("cluster_id", _ID),
        sa.Column("machine_id", _ID, index=True),
        sa.Column("organisation_id", _ID),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("vcpus", sa.Integer, nullable=False),
        sa.Column("changes", sa.Integer, nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
    )
    op.create_table(
        "machine_span",
        sa.Column("machine_id", _ID, primary_key=True),
        sa.Column("running_from", _AT, primary_key=True),
        sa.Column("running_to", _AT),
        sa.Column("cluster_id", _ID, nullable=False, index=True),
        sa.Column("organisation_id", _ID, nullable=False),
        sa.Column("vcpus", sa.Integer, nullable=False),
    )
