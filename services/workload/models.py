"""Workload's tables: projections of what others say, clusters under judgement, machines, decisions, the event log."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Enum, ForeignKey, Identity, Index, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from libs.common.db import Utc, new_metadata
from services.workload.domain.states import MachineState, Wanted


def _words(words: type[StrEnum]) -> Enum:
    """An enumeration kept as plain text, so that a new word needs no migration."""
    return Enum(
        words, native_enum=False, length=20, values_callable=lambda kinds: [kind.value for kind in kinds]
    )


class Base(DeclarativeBase):
    """Tables of schema `workload`."""

    metadata = new_metadata()
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own name
        datetime: Utc,
        dict[str, Any]: JSONB,
        Mapping[str, Any]: JSONB,
        list[Any]: JSONB,
        Wanted: _words(Wanted),
        MachineState: _words(MachineState),
    }


class Installation(Base):
    """Which installation this database belongs to; machines carry it in their mark."""

    __tablename__ = "installation"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]


class Resource(Base):
    """A projection of registry's resource, and the lease for all acts on its cloud."""

    __tablename__ = "resource"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    revision: Mapped[int]
    organisation_id: Mapped[UUID]
    name: Mapped[str]
    provider: Mapped[str]
    url: Mapped[str]
    settings: Mapped[dict[str, Any]]
    username: Mapped[str]
    sealed_secret: Mapped[str]
    ca_pem: Mapped[str | None]
    thumbprint: Mapped[str | None]
    mode: Mapped[str]
    force: Mapped[bool] = mapped_column(default=False)
    gone: Mapped[bool] = mapped_column(default=False)
    interval_s: Mapped[float]
    lease_token: Mapped[UUID | None]
    lease_until: Mapped[datetime | None]
    retry_at: Mapped[datetime | None]
    """After a refusal or silence of the cloud: not before."""
    failures: Mapped[int] = mapped_column(default=0)
    """In a row; a look that goes well ends them."""
    refused_cause: Mapped[str | None]
    refused_detail: Mapped[str | None]
    failing_since: Mapped[datetime | None]
    stand_in_id: Mapped[UUID | None]
    """The resource that its owner named to stand in for it."""
    away_since: Mapped[datetime | None]
    """Since when its cloud counts as away: its machines hold no quota, unless their guests are heard of."""
    well_since: Mapped[datetime | None]
    """Since when a cloud that counts as away answers again."""
    stood_in_by: Mapped[UUID | None]
    """What stands in for it now, as others were told."""
    stands_for: Mapped[list[Any] | None] = mapped_column(JSONB(none_as_null=True))
    """For which resources it stands in itself; None: for none."""
    sweep_stopped: Mapped[str | None]
    """Why the sweeper waits for a person; nothing is made on the resource meanwhile."""
    released: Mapped[bool] = mapped_column(default=False)
    seen_at: Mapped[datetime | None]
    """When its machines were first read: until then nobody knows what is there, and nothing is made."""
    probe_id: Mapped[UUID | None]
    """While it observes, one machine may be made for this; None: there is no probe."""
    probe_until: Mapped[datetime | None]
    probe_step: Mapped[str | None]
    """How far others were told that the probe is, why it comes no further, and when that was."""
    probe_reason: Mapped[str | None]
    probe_told_at: Mapped[datetime | None]


class Replica(Base):
    """A workload process that is alive until then, by the database's clock: clouds are shared out among them."""

    __tablename__ = "replica"
    token: Mapped[UUID] = mapped_column(primary_key=True)
    alive_until: Mapped[datetime]
    since: Mapped[datetime] = mapped_column(server_default=func.now())


class Cluster(Base):
    """A cluster under judgement: the engine's memory, the newest decision, and what is desired of the cloud."""

    __tablename__ = "cluster"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    resource_id: Mapped[UUID] = mapped_column(ForeignKey("resource.id"), index=True)
    ref: Mapped[str]
    name: Mapped[str]
    sampled_at: Mapped[datetime | None]
    """End of the newest judged sample, on the cloud's clock."""
    heard_at: Mapped[datetime | None]
    """Receipt of the newest sample, on our clock: silence is judged by it."""
    clock_offset_s: Mapped[float] = mapped_column(default=0.0)
    """The cloud's clock minus ours, as last measured."""
    silent_at: Mapped[datetime | None]
    """When silence was last judged."""
    interval_s: Mapped[float]
    sample: Mapped[Mapping[str, Any] | None]
    state: Mapped[Mapping[str, Any] | None]
    decision: Mapped[Mapping[str, Any] | None]
    reason: Mapped[str] = mapped_column(default="not judged yet")
    decided_at: Mapped[datetime | None]
    cap_mhz: Mapped[float] = mapped_column(default=0.0)
    budgets_mhz: Mapped[dict[str, Any]] = mapped_column(default=dict)
    floor_mhz_per_vcpu: Mapped[float] = mapped_column(default=200.0)
    drain_grace_s: Mapped[float] = mapped_column(default=600.0)
    limits_id: Mapped[UUID | None]
    """Action id of the limits that are desired now."""
    limits_applied_id: Mapped[UUID | None]
    limits_failed_id: Mapped[UUID | None]
    """The last limits whose failure has been said, so that it is said once."""
    paused_by: Mapped[str | None]
    paused_reason: Mapped[str | None]
    draining: Mapped[bool] = mapped_column(default=False)
    drained_by: Mapped[str | None]
    drained_reason: Mapped[str | None]
    most_machines: Mapped[int | None]
    """Scaled by hand: never more than this many."""
    scaled_by: Mapped[str | None]
    scaled_reason: Mapped[str | None]
    grow_after: Mapped[datetime | None]
    """After a failed deployment nothing new is made before this time."""
    deploy_failures: Mapped[int] = mapped_column(default=0)
    guest_failures: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """Machines in a row that were replaced because their guests did not work; one that works sets it back."""
    guest_failed_at: Mapped[datetime | None]
    core_mhz: Mapped[float | None]
    """Of its fastest host; None: no inventory has told."""
    superseded: Mapped[int] = mapped_column(BigInteger, default=0)
    """Samples that were not newer than what had been judged."""
    occupied: Mapped[bool] = mapped_column(default=False)
    """Our pool or folder may be in the cloud: from the first machine that was asked for until the release."""
    blank_at: Mapped[datetime | None]
    """The last look that showed nothing of ours here although machines were expected."""


class Assignment(Base):
    """A projection of policy's assignment."""

    __tablename__ = "assignment"
    scope: Mapped[str] = mapped_column(primary_key=True)
    scope_id: Mapped[UUID] = mapped_column(primary_key=True)
    revision: Mapped[int]
    policy_id: Mapped[UUID]
    policy_name: Mapped[str]
    policy_revision: Mapped[int]
    document: Mapped[dict[str, Any]]
    gone: Mapped[bool]
    quota: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    """Of the document; None: it bounds nothing beyond its own cluster."""


class Template(Base):
    """A projection of a template version."""

    __tablename__ = "template"
    version_id: Mapped[UUID] = mapped_column(primary_key=True)
    revision: Mapped[int]
    organisation_id: Mapped[UUID]
    name: Mapped[str] = mapped_column(index=True)
    version: Mapped[int]
    resource_id: Mapped[UUID] = mapped_column(index=True)
    reference: Mapped[str]
    disk_gib: Mapped[float]
    state: Mapped[str]
    components: Mapped[list[Any]] = mapped_column(default=list, server_default=text("'[]'::jsonb"))
    """What its machines need not install."""


class Derivation(Base):
    """A projection of a template version that is made from another, and how far its builder is."""

    __tablename__ = "derivation"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    revision: Mapped[int]
    organisation_id: Mapped[UUID]
    resource_id: Mapped[UUID] = mapped_column(index=True)
    version_id: Mapped[UUID]
    """What it is made from."""
    name: Mapped[str]
    version: Mapped[int]
    components: Mapped[list[Any]]
    ca_pem: Mapped[str | None]
    proxy: Mapped[str | None]
    until: Mapped[datetime]
    over: Mapped[bool]
    kept: Mapped[bool]
    """Over, and its template stays until its version is revoked."""
    outcome: Mapped[str]
    step: Mapped[str | None]
    """What others were told last."""
    reason: Mapped[str | None]
    told_at: Mapped[datetime | None]
    discarded: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    """Nothing of it may be left in the cloud."""
    cleared: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    """The cloud said that nothing is."""


class Contribution(Base):
    """A projection of a contribution."""

    __tablename__ = "contribution"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    revision: Mapped[int]
    organisation_id: Mapped[UUID] = mapped_column(index=True)
    project_id: Mapped[UUID]
    project_name: Mapped[str]
    project_url: Mapped[str]
    weight: Mapped[float]
    active: Mapped[bool]
    resource_ids: Mapped[list[Any] | None]
    sealed_authenticator: Mapped[str]
    priority: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    most_machines: Mapped[int | None]
    """At most so many machines work for it; None: no bound. The same of their vCPUs."""
    most_vcpus: Mapped[int | None]


class Workload(Base):
    """What runs on a cluster for one organisation."""

    __tablename__ = "workload"
    __table_args__ = (UniqueConstraint("cluster_id", "organisation_id"),)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    cluster_id: Mapped[UUID] = mapped_column(ForeignKey("cluster.id"), index=True)
    organisation_id: Mapped[UUID]
    template: Mapped[str]
    wanted: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]


class Machine(Base):
    """One VM of a workload; only workload's loops move `state`, everybody else changes `wanted`."""

    __tablename__ = "machine"
    __table_args__ = (
        UniqueConstraint("cluster_id", "ordinal"),
        Index("uq_machine_probe", "probe_id", unique=True),
        Index("uq_machine_derivation", "derivation_id", unique=True),
        Index("ix_machine_state", "resource_id", "state"),
        Index(
            "uq_machine_slot",
            "cluster_id",
            "slot",
            unique=True,
            postgresql_where=text("state not in ('destroyed', 'abandoned')"),
        ),
    )
    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    workload_id: Mapped[UUID] = mapped_column(ForeignKey("workload.id"))
    organisation_id: Mapped[UUID]
    resource_id: Mapped[UUID]
    cluster_id: Mapped[UUID] = mapped_column(ForeignKey("cluster.id"), index=True)
    ordinal: Mapped[int]
    """The how many-th of its cluster: never used again, and orders by age."""
    slot: Mapped[int | None]
    """The number in its host name, its own while it lives; None: it was made by an older Tides and has its ordinal."""
    attached: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    """What it was attached to when the cloud was asked for it, keys by their ids; None: it was not, or not known."""
    template_version_id: Mapped[UUID]
    template_ref: Mapped[str]
    vcpus: Mapped[int]
    memory_mib: Mapped[int]
    disk_gib: Mapped[float]
    host: Mapped[str | None]
    wanted: Mapped[Wanted] = mapped_column(default=Wanted.RUNNING)
    wanted_by_hand: Mapped[bool] = mapped_column(default=False)
    """A person asked for it to go; no decision brings it back."""
    state: Mapped[MachineState] = mapped_column(default=MachineState.REQUESTED)
    state_since: Mapped[datetime]
    reason: Mapped[str]
    created_at: Mapped[datetime]
    running_since: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0)
    """How often making it was refused."""
    missing: Mapped[int] = mapped_column(default=0)
    """Inventories in a row that did not show it."""
    power: Mapped[str | None]
    """As the cloud last showed it; None: it never has."""
    seen_in: Mapped[str | None]
    """The cloud's reference of the cluster that shows it, where that is not its own."""
    limit_mhz: Mapped[float | None]
    """The limit that the cloud really has."""
    progress: Mapped[int | None]
    """How far the cloud is with what it does to it just now, in percent."""
    task_id: Mapped[str | None]
    """The cloud's id of the task that makes it, while one does."""
    error: Mapped[str | None]
    drained_at: Mapped[datetime | None]
    """When its guest had ended its work."""
    lost_cpu_s: Mapped[float | None]
    """CPU seconds that the guest says were lost by that."""
    throttle_percent: Mapped[float | None]
    """What its guest was told to use of its processors, where the cloud has no limits; None: nothing."""
    health: Mapped[str | None]
    """How its guest does, as contribution says; None: nothing has been said."""
    health_at: Mapped[datetime | None]
    """Since when."""
    health_why: Mapped[str | None]
    probe_id: Mapped[UUID | None]
    """The probe that it was made for; None: it was made to be lent."""
    derivation_id: Mapped[UUID | None]
    """The image that it becomes: it is no machine that is lent, and no decision counts it."""
    sealed_guest_token: Mapped[str]
    overdue: Mapped[bool] = mapped_column(default=False)


class Orphan(Base):
    """A machine with our mark that no row knows; removed after a grace, unless there are too many."""

    __tablename__ = "orphan"
    name: Mapped[str] = mapped_column(primary_key=True)
    resource_id: Mapped[UUID] = mapped_column(index=True)
    seen_at: Mapped[datetime]
    allowed: Mapped[bool] = mapped_column(default=False)
    """A person said that it may go."""
    allowed_by: Mapped[str | None]
    cluster: Mapped[str | None]
    """Name of the cluster that shows it."""
    host: Mapped[str | None]
    power: Mapped[str | None]
    installation_id: Mapped[UUID | None]
    machine_id: Mapped[UUID | None]
    """What its mark says."""


class DecisionRecord(Base):
    """A decision that changed something, with everything that went into it: it can be replayed."""

    __tablename__ = "decision"
    __table_args__ = (Index("ix_decision_cluster_at", "cluster_id", "at"),)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    cluster_id: Mapped[UUID]
    at: Mapped[datetime]
    policy_id: Mapped[UUID]
    policy_revision: Mapped[int]
    state_before: Mapped[dict[str, Any]]
    observation: Mapped[dict[str, Any]]
    facts: Mapped[dict[str, Any]]
    decision: Mapped[dict[str, Any]]
    reason: Mapped[str]


_BEHIND = (
    "greatest(pg_current_xact_id()::text::bigint, pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1)"
)
"""The writing transaction's number, or the highest that has ended where that is higher: who waited for another's lock
may have the lower number, and speaks of what that one wrote."""


class ActionRecord(Base):
    """The event log behind `GET /v1/events`: every action event, readable in the order of commit."""

    __tablename__ = "action_event"
    __table_args__ = (Index("ix_action_event_order", "transaction", "number"),)
    number: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    transaction: Mapped[int] = mapped_column(BigInteger, server_default=text(_BEHIND))
    """A reader stops below the oldest of ours still running."""
    id: Mapped[UUID] = mapped_column(unique=True)
    key: Mapped[str]
    at: Mapped[datetime]
    resource_id: Mapped[UUID | None] = mapped_column(index=True)
    cluster_id: Mapped[UUID | None] = mapped_column(index=True)
    machine_id: Mapped[UUID | None] = mapped_column(index=True)
    body: Mapped[dict[str, Any]]
