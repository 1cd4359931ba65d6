"""Tables of stats. `cluster_sample` and `host_sample` have one partition a day; `sample_day` names those that exist."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    Double,
    Index,
    Integer,
    String,
    Table,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.db import Utc, new_metadata
from services.stats.domain.samples import MEASURES

metadata = new_metadata()

cluster_sample = Table(
    "cluster_sample",
    metadata,
    Column("cluster_id", Uuid, primary_key=True),
    Column("at", Utc, primary_key=True),
    Column("interval_s", Double, nullable=False),
    Column("cap_mhz", Double),
    Column("datastore_capacity_gib", Double),
    Column("datastore_free_gib", Double),
    Column("quality", String(12), nullable=False),
    postgresql_partition_by="range (at)",
)

host_sample = Table(
    "host_sample",
    metadata,
    Column("cluster_id", Uuid, primary_key=True),
    Column("at", Utc, primary_key=True),
    Column("host", String(200), primary_key=True),
    Column("interval_s", Double, nullable=False),
    *(Column(name, Double) for name in MEASURES),
    Column("state", String(12), nullable=False),
    Column("quality", String(12), nullable=False),
    postgresql_partition_by="range (at)",
)

sample_day = Table("sample_day", metadata, Column("day", Date, primary_key=True))

refusal = Table(
    "refusal",
    metadata,
    Column("resource_id", Uuid, primary_key=True),
    Column("reason", String(20), primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("last_at", Utc, nullable=False),
)

dirty_hour = Table(
    "dirty_hour",
    metadata,
    Column("cluster_id", Uuid, primary_key=True),
    Column("hour", Utc, primary_key=True),
    Column("touched", BigInteger, nullable=False),
)

cluster_hour = Table(
    "cluster_hour",
    metadata,
    Column("cluster_id", Uuid, primary_key=True),
    Column("hour", Utc, primary_key=True),
    Column("samples", Integer, nullable=False),
    Column("core_s", Double, nullable=False),
    Column("lent_s", Double, nullable=False),
    Column("contended_s", Double, nullable=False),
)

organisation_hour = Table(
    "organisation_hour",
    metadata,
    Column("cluster_id", Uuid, primary_key=True),
    Column("hour", Utc, primary_key=True),
    Column("organisation_id", Uuid, primary_key=True),
    Column("core_s", Double, nullable=False),
)

five_minutes = Table(
    "five_minutes",
    metadata,
    Column("cluster_id", Uuid, primary_key=True),
    Column("at", Utc, primary_key=True),
    Column("host", String(200), primary_key=True),
    Column("samples", Integer, nullable=False),
    *(Column(f"{name}_{of}", Double) for name in MEASURES for of in ("mean", "max")),
)

resource = Table(
    "resource",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("organisation_id", Uuid, nullable=False, index=True),
    Column("name", String(400), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("gone", Boolean, nullable=False),
)

inventory = Table(
    "inventory",
    metadata,
    Column("resource_id", Uuid, primary_key=True),
    Column("revision", BigInteger, nullable=False),
)

cluster = Table(
    "cluster",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("resource_id", Uuid, nullable=False, index=True),
    Column("name", String(400), nullable=False),
)

host = Table(
    "host",
    metadata,
    Column("cluster_id", Uuid, primary_key=True),
    Column("host", String(200), primary_key=True),
    Column("cores", Integer, nullable=False),
)

action_event = Table(
    "action_event",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("key", String(100), nullable=False),
    Column("at", Utc, nullable=False, index=True),
    Column("resource_id", Uuid, nullable=False),
    Column("cluster_id", Uuid),
    Column("machine_id", Uuid, index=True),
    Column("organisation_id", Uuid),
    Column("name", String(200), nullable=False),
    Column("vcpus", Integer, nullable=False),
    Column("changes", Integer, nullable=False),
    Column("reason", String(500), nullable=False),
)

machine_span = Table(
    "machine_span",
    metadata,
    Column("machine_id", Uuid, primary_key=True),
    Column("running_from", Utc, primary_key=True),
    Column("running_to", Utc),
    Column("cluster_id", Uuid, nullable=False, index=True),
    Column("organisation_id", Uuid, nullable=False),
    Column("vcpus", Integer, nullable=False),
)

backtest = Table(
    "backtest",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("organisation_id", Uuid, nullable=False, index=True),
    Column("cluster_id", Uuid, nullable=False),
    Column("policy", String(100), nullable=False),
    Column("asked", JSONB, nullable=False),
    Column("days", Integer, nullable=False),
    Column("since", Utc, nullable=False),
    Column("until", Utc, nullable=False),
    Column("state", String(12), nullable=False),
    Column("progress", Double, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("ended_at", Utc),
    Column("lease_token", Uuid),
    Column("lease_until", Utc),
    Column("result", JSONB),
    Column("error", String(500)),
)
Index(
    "uq_backtest_open",
    backtest.c.organisation_id,
    unique=True,
    postgresql_where=text("state in ('queued', 'running')"),
)
