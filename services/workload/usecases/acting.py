"""Claiming a resource, and settling what its cloud showed: the two transactions around every act."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, or_, select, update

from libs.boinc.user_data import Attachment, render_user_data
from libs.common.contracts.action import LimitsApplied, LimitsFailed
from libs.common.contracts.resource import Mode
from libs.common.db import Session
from libs.common.secrets import Vault, authenticator_context
from libs.providers.base import Connection, MachineSpec, Mark, ProviderError
from services.workload.domain.limits import Limited, differs, share_budgets
from services.workload.domain.states import PRESENT, MachineState, Wanted
from services.workload.models import Cluster, Contribution, Machine, Resource
from services.workload.usecases.recording import record

LEASE = timedelta(seconds=60)
RENEW_BELOW = timedelta(seconds=40)
CLAIM_AT_ONCE = 100
ACTED_ON = (Mode.OBSERVE.value, Mode.LEND.value, Mode.PAUSED.value, Mode.DRAINING.value)


class LeaseLost(Exception):
    """Another replica acts on the resource now; whatever was learnt here is old."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A resource that this replica may act on, and how to reach its cloud."""

    resource_id: UUID
    name: str
    provider: str
    mode: Mode
    force: bool
    connection: Connection
    released: bool


async def claim_resources(
    session: Session, replica: UUID, installation_id: UUID, now: datetime
) -> list[Claimed]:
    """Take or renew the lease of every resource that is free or ours; leases run on the database's clock."""
    clock = func.clock_timestamp()
    ours = Resource.lease_token == replica
    due = (
        select(Resource.id)
        .where(Resource.gone.is_(False))
        .where(
            or_(
                Resource.lease_until.is_(None),
                Resource.lease_until < clock,
                ours & (Resource.lease_until < clock + RENEW_BELOW),
            )
        )
        .order_by(Resource.id)
        .limit(CLAIM_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    await session.execute(
        update(Resource).where(Resource.id.in_(due)).values(lease_token=replica, lease_until=clock + LEASE)
    )
    held = (
        select(Resource)
        .where(ours, Resource.lease_until > clock, Resource.gone.is_(False))
        .where(or_(Resource.retry_at.is_(None), Resource.retry_at <= now))
        .order_by(Resource.name)
    )
    return [_claimed(row, installation_id) for row in (await session.execute(held)).scalars()]


def _claimed(row: Resource, installation_id: UUID) -> Claimed:
    connection = Connection(
        row.id,
        installation_id,
        row.url,
        row.username,
        row.sealed_secret,
        row.ca_pem,
        row.thumbprint,
        dict(row.settings),
    )
    return Claimed(row.id, row.name, row.provider, Mode(row.mode), row.force, connection, row.released)


async def release_claims(session: Session, replica: UUID) -> None:
    """Give back every lease at an orderly stop, so that another replica need not wait."""
    await session.execute(
        update(Resource).where(Resource.lease_token == replica).values(lease_token=None, lease_until=None)
    )


async def guard(session: Session, replica: UUID, resource_id: UUID) -> Resource:
    """The resource's row, if this replica still holds its lease. Raises LeaseLost."""
    rows = (
        select(Resource)
        .where(Resource.id == resource_id, Resource.lease_token == replica)
        .where(Resource.lease_until > func.clock_timestamp())
        .with_for_update(key_share=True)
    )
    row = (await session.execute(rows)).scalar_one_or_none()
    if row is None:
        raise LeaseLost(str(resource_id))
    return row


@dataclass(frozen=True, slots=True)
class LimitsDue:
    """Limits of a cluster that the cloud does not have yet."""

    cluster_id: UUID
    cluster: str
    name: str
    action_id: UUID | None
    cap_mhz: float
    limits_mhz: Mapping[str, float]


async def limits_due(session: Session, resource_id: UUID) -> list[LimitsDue]:
    """Clusters of a resource whose desired limits are newer than, or other than, what the cloud has."""
    clusters = select(Cluster).where(Cluster.resource_id == resource_id).order_by(Cluster.name)
    due = []
    for cluster in (await session.execute(clusters)).scalars():
        rows = select(Machine).where(Machine.cluster_id == cluster.id, Machine.state.in_(PRESENT))
        machines = list((await session.execute(rows.order_by(Machine.ordinal))).scalars())
        if machines and (found := _due(cluster, machines)) is not None:
            due.append(found)
    return due


def _due(cluster: Cluster, machines: Sequence[Machine]) -> LimitsDue | None:
    wanted = share_budgets(
        cluster.budgets_mhz,
        [Limited(m.name, m.host, m.vcpus) for m in machines if m.state is not MachineState.LOST],
        cluster.floor_mhz_per_vcpu,
    )
    stale = any(differs(wanted[m.name], m.limit_mhz) for m in machines)
    if cluster.limits_id == cluster.limits_applied_id and not stale:
        return None
    return LimitsDue(cluster.id, cluster.ref, cluster.name, cluster.limits_id, cluster.cap_mhz, wanted)


async def settle_limits(session: Session, due: LimitsDue, changes: int, now: datetime) -> None:
    """The cloud took the limits: remember them, and say so if they are still the desired ones."""
    cluster = await _locked(session, due.cluster_id)
    for name, limit_mhz in due.limits_mhz.items():
        await session.execute(update(Machine).where(Machine.name == name).values(limit_mhz=limit_mhz))
    if cluster.limits_id != due.action_id or cluster.limits_id == cluster.limits_applied_id:
        return
    cluster.limits_applied_id = cluster.limits_id
    record(session, LimitsApplied(**_about(cluster, now), changes=changes))


async def settle_refused_limits(
    session: Session, due: LimitsDue, error: ProviderError, now: datetime
) -> None:
    """The cloud did not take the limits: say so once for this action; the next beat tries what is desired then."""
    cluster = await _locked(session, due.cluster_id)
    if cluster.limits_id != due.action_id or cluster.limits_failed_id == cluster.limits_id:
        return
    cluster.limits_failed_id = cluster.limits_id
    if cluster.limits_id is not None and cluster.limits_id != cluster.limits_applied_id:
        record(session, LimitsFailed(**_about(cluster, now), cause=error.cause.value))


async def _locked(session: Session, cluster_id: UUID) -> Cluster:
    rows = select(Cluster).where(Cluster.id == cluster_id).with_for_update(key_share=True)
    return (await session.execute(rows)).scalar_one()


def _about(cluster: Cluster, now: datetime) -> dict[str, object]:
    return {
        "at": now,
        "action_id": cluster.limits_id,
        "resource_id": cluster.resource_id,
        "cluster_id": cluster.id,
        "cap_mhz": cluster.cap_mhz,
        "budgets_mhz": cluster.budgets_mhz,
        "sampled_at": cluster.sampled_at or now,
        "reason": cluster.reason,
    }


def back_off(resource: Resource, now: datetime) -> None:
    """The cloud did not answer or refused: not before a while, at most five minutes."""
    resource.failures += 1
    resource.retry_at = now + timedelta(seconds=min(300.0, 2.0**resource.failures))


async def spec_of(
    session: Session, machine_id: UUID, installation_id: UUID, vault: Vault
) -> MachineSpec | None:
    """Everything the driver needs to make the machine; the same at every try. None when it is no longer wanted."""
    machine = await session.get(Machine, machine_id)
    if machine is None or machine.wanted is Wanted.GONE:
        return None
    cluster = await session.get_one(Cluster, machine.cluster_id)
    resource = await session.get_one(Resource, machine.resource_id)
    rows = select(Contribution).where(
        Contribution.organisation_id == machine.organisation_id, Contribution.active.is_(True)
    )
    attachments = [
        Attachment(
            row.project_url, vault.open(row.sealed_authenticator, authenticator_context(row.id)), row.weight
        )
        for row in (await session.execute(rows.order_by(Contribution.id))).scalars()
        if row.resource_ids is None or str(resource.id) in row.resource_ids
    ]
    token = vault.open(machine.sealed_guest_token, machine.id.bytes)
    return MachineSpec(
        name=machine.name,
        mark=Mark(installation_id, machine.id),
        cluster=cluster.ref,
        host=machine.host,
        template=machine.template_ref,
        vcpus=machine.vcpus,
        memory_mib=machine.memory_mib,
        disk_gib=machine.disk_gib,
        limit_mhz=cluster.floor_mhz_per_vcpu * machine.vcpus,
        user_data=render_user_data(attachments, hostname=f"tides-{machine.ordinal}", guest_token=token),
        network=resource.settings.get("network"),
    )
