"""Renewing: machines that were made for what is no more, or whose guests do not work, make room for others.

Who is marked here goes as any machine that is given up: with its grace. Others are made as budget and ladder allow.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import or_, select

from libs.common.contracts.action import MachineFailed
from libs.common.contracts.resource import Mode
from libs.common.db import Session
from libs.harvest.types import Rung, Verdict
from services.workload.domain import renewal
from services.workload.domain.attached import MANAGER, Outdated, by_files, why_outdated
from services.workload.domain.renewal import MOST_FAILURES, Tenant
from services.workload.domain.states import COUNTED, LIVE, MachineState, Wanted
from services.workload.models import Cluster, Machine, Resource
from services.workload.usecases.following import Means
from services.workload.usecases.judging import rejudge
from services.workload.usecases.making import lent_now
from services.workload.usecases.recording import record
from services.workload.usecases.rules import contributions_of, stood_in_for

log = structlog.get_logger(__name__)

FIRST_REST_S, LONGEST_REST_S = 300.0, 3600.0
"""After a machine was replaced because its guest did not work."""
Judge = Callable[[Mapping[str, Any] | None], Outdated | None]
"""Whether what a machine was attached to is out of date."""
AILS = ("broken", "absent", "silent", "stopped")


async def resources_with_machines(session: Session) -> list[UUID]:
    """Where there is anything that might be renewed."""
    stays = Machine.wanted_by_hand.is_(False) & Machine.derivation_id.is_(None)
    counted = select(Machine.resource_id).where(Machine.state.in_(COUNTED), stays)
    return sorted((await session.execute(counted.distinct())).scalars())


async def renew(means: Means, session: Session, resource_id: UUID, *, by_manager: bool) -> int:
    """Give up what is to be replaced on one resource now; how many machines. Clusters that are being judged wait."""
    resource = await session.get_one(Resource, resource_id)
    lent = [] if by_manager else await contributions_of(session, resource)
    attached = MANAGER if by_manager else by_files(lent_now(lent, means.vault))
    stood_in = frozenset() if by_manager else await stood_in_for(session, resource)
    is_other = Machine.attached.is_distinct_from(attached)
    if by_manager:
        is_other &= Machine.attached.is_not(None)
    suspects = select(Machine.cluster_id).where(
        Machine.resource_id == resource_id,
        Machine.state.in_(COUNTED),
        Machine.wanted_by_hand.is_(False),
        Machine.derivation_id.is_(None),
        or_(is_other, Machine.health.in_(AILS)),
    )
    rows = select(Cluster).where(Cluster.id.in_(suspects)).order_by(Cluster.id)
    locked = rows.with_for_update(key_share=True, skip_locked=True)
    clusters = (await session.execute(locked)).scalars().all()
    as_now = partial(why_outdated, now=attached, stood_in=stood_in)
    return sum([await _renew_cluster(means, session, (resource, cluster), as_now) for cluster in clusters])


async def _renew_cluster(
    means: Means, session: Session, where: tuple[Resource, Cluster], judge: Judge
) -> int:
    resource, cluster = where
    is_lent = (Machine.cluster_id == cluster.id) & Machine.derivation_id.is_(None)
    living = select(Machine).where(is_lent, Machine.state.in_(LIVE))
    fresh = living.order_by(Machine.ordinal).execution_options(populate_existing=True)
    machines = {row.id: row for row in (await session.execute(fresh)).scalars()}
    tenants = [_tenant(means, row, judge) for row in machines.values()]
    chosen = renewal.lapsed(tenants)
    if not chosen and (failed := _failed(means, cluster, tenants)):
        _note_failure(means, session, cluster, machines[failed[0]], failed[1])
        chosen = [failed]
    if not chosen and _is_calm(means, resource, cluster, tenants):
        chosen = renewal.due_for_renewal(tenants)
    if not chosen:
        return 0
    for machine_id, why in chosen:
        machine = machines[machine_id]
        machine.wanted, machine.wanted_by_hand, machine.reason = Wanted.GONE, True, f"replaced: {why}"
        about = {"machine": machine.name, "cluster": cluster.name, "resource": resource.name}
        log.info("machine.replaced", **about, reason=why)
    told = f"{len(chosen)} of {len(machines)} machines replaced: {chosen[0][1]}"
    await rejudge(means, session, cluster, resource, told)
    return len(chosen)


def _tenant(means: Means, row: Machine, judge: Judge) -> Tenant:
    now = means.clock.now()
    # Who has spoken has an agent; of one that was never heard of that must be known.
    has_agent = row.health != "absent" or (row.attached or {}).get("by") == "manager"
    since = max(row.health_at or row.state_since, row.state_since)
    asked_for = row.attached is not None or row.state not in {MachineState.REQUESTED, MachineState.CREATING}
    return Tenant(
        id=row.id,
        state=row.state,
        wanted=row.wanted,
        by_hand=row.wanted_by_hand,
        age_s=(now - row.created_at).total_seconds(),
        outdated=judge(row.attached) if asked_for else None,
        health=row.health if has_agent else None,
        health_why=row.health_why,
        health_for_s=(now - since).total_seconds(),
    )


def _failed(means: Means, cluster: Cluster, tenants: Sequence[Tenant]) -> tuple[UUID, str] | None:
    """The next machine whose guest does not work, unless so many in a row did not that another would not either."""
    is_resting = cluster.grow_after is not None and means.clock.now() < cluster.grow_after
    if is_resting or cluster.guest_failures >= MOST_FAILURES:
        return None
    return next(iter(renewal.ailing(tenants)), None)


def _note_failure(means: Means, session: Session, cluster: Cluster, machine: Machine, why: str) -> None:
    """Say that the machine has failed, and let the cluster rest before the next one."""
    now = means.clock.now()
    cluster.guest_failures, cluster.guest_failed_at = cluster.guest_failures + 1, now
    rest_s = min(LONGEST_REST_S, FIRST_REST_S * 2.0 ** (cluster.guest_failures - 1))
    cluster.grow_after = now + timedelta(seconds=rest_s)
    failed = MachineFailed(
        at=now, machine_id=machine.id, name=machine.name, workload_id=machine.workload_id, host=machine.host,
        organisation_id=machine.organisation_id, resource_id=machine.resource_id, cluster_id=cluster.id,
        vcpus=machine.vcpus, reason=f"{why} ({machine.health_why or machine.health})", stage="guest",
    )  # fmt: skip
    record(session, failed)


def _is_calm(means: Means, resource: Resource, cluster: Cluster, tenants: Sequence[Tenant]) -> bool:
    """Whether what goes now would be made anew: lending goes on undisturbed, and nothing is missing already."""
    decision = cluster.decision or {}
    is_held = cluster.paused_reason is not None or cluster.draining or resource.sweep_stopped is not None
    rests = cluster.grow_after is not None and means.clock.now() < cluster.grow_after
    is_idle = decision.get("rung") == Rung.LEND and decision.get("verdict") in (Verdict.IDLE, Verdict.NORMAL)
    lends = resource.mode == Mode.LEND and is_idle
    is_full = sum(each.stays for each in tenants) >= decision.get("wanted", 0)
    return lends and is_full and not is_held and not rests
