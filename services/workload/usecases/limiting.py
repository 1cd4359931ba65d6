"""Limits: what the cloud should have and does not, and what came of asking for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import case, select, update
from sqlalchemy.orm import load_only

from libs.common.contracts.action import GuestsThrottled, LimitsApplied, LimitsFailed, LimitsRequested
from libs.common.db import Session, among
from libs.common.ids import new_id
from libs.providers.base import Power, ProviderError
from services.workload.domain.limits import (
    Limited,
    differs,
    must_be_told,
    share_budgets,
    throttle_percent,
)
from services.workload.domain.states import COUNTED, LIVE, MachineState, takes_limit
from services.workload.models import Cluster, Machine
from services.workload.usecases.recording import record

FREE_PERCENT = 100.0
_DESIRED = (
    Cluster.ref, Cluster.name, Cluster.cap_mhz, Cluster.budgets_mhz, Cluster.floor_mhz_per_vcpu, Cluster.reason,
    Cluster.limits_id, Cluster.limits_applied_id, Cluster.sampled_at,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LimitsDue:
    """Limits of a cluster as they are desired."""

    cluster_id: UUID
    cluster: str
    name: str
    action_id: UUID | None
    cap_mhz: float
    limits_mhz: Mapping[str, float]
    reason: str
    is_known_due: bool = True
    """Whether the cloud is known not to have them; else it is only worth a look, now and then."""
    exposed_at: datetime | None = None
    """The newest sample, if it showed that ours do not give way by themselves: what does that is to be set anew."""


async def limits_due(session: Session, resource_id: UUID) -> list[LimitsDue]:
    """Limits of a resource's clusters, and whether they are newer than, or other than, what the cloud has.

    Every machine that may run has one, also where its deletion is refused; with the cluster that shows it, where
    something of ours may be.
    """
    live = select(Machine).where(
        Machine.resource_id == resource_id, Machine.state.in_(LIVE), Machine.missing == 0
    )
    found = (await session.execute(live.order_by(Machine.ordinal))).scalars().all()
    taking = [row for row in found if takes_limit(row.state, is_on=row.power == Power.ON)]
    by_ref = await _occupied(session, resource_id) if any(row.seen_in for row in taking) else {}
    machines: dict[UUID | None, list[Machine]] = {}
    for row in taking:
        where = row.cluster_id if row.seen_in is None else by_ref.get(row.seen_in)
        machines.setdefault(where, []).append(row)
    exposed = Cluster.sample["exposed"].astext
    of_clusters = select(Cluster, exposed).where(among(Cluster.id, [where for where in machines if where]))
    rows = await session.execute(of_clusters.order_by(Cluster.name).options(load_only(*_DESIRED)))
    return [_due(cluster, machines[cluster.id], exposed is not None) for cluster, exposed in rows]


async def _occupied(session: Session, resource_id: UUID) -> dict[str, UUID]:
    """The clusters in which something of ours may be, by the cloud's reference."""
    rows = select(Cluster.ref, Cluster.id).where(Cluster.resource_id == resource_id, Cluster.occupied)
    return {ref: cluster_id for ref, cluster_id in await session.execute(rows)}


def _due(cluster: Cluster, machines: Sequence[Machine], is_exposed: bool) -> LimitsDue:
    ours = [
        Limited(
            machine.name,
            machine.host,
            machine.vcpus,
            lends=machine.state in COUNTED and machine.derivation_id is None,
            dozes=machine.state is MachineState.SUSPENDING,
        )
        for machine in machines
    ]
    wanted = share_budgets(cluster.budgets_mhz, ours, cluster.floor_mhz_per_vcpu)
    # What becomes an image has the floor, also where nothing is lent and no cap was decided.
    least = sum(wanted[machine.name] for machine in machines if machine.derivation_id is not None)
    is_stale = any(differs(wanted[machine.name], machine.limit_mhz) for machine in machines)
    return LimitsDue(
        cluster_id=cluster.id,
        cluster=cluster.ref,
        name=cluster.name,
        action_id=cluster.limits_id,
        cap_mhz=max(cluster.cap_mhz, least),
        limits_mhz=wanted,
        reason=cluster.reason,
        is_known_due=cluster.limits_id != cluster.limits_applied_id or is_stale,
        exposed_at=cluster.sampled_at if is_exposed else None,
    )


async def are_still_desired(session: Session, due: LimitsDue) -> bool:
    """Whether no newer decision has come: only the latest limits are asked for."""
    cluster = await session.get_one(Cluster, due.cluster_id)
    return cluster.limits_id == due.action_id


Outcome = int | ProviderError
"""How many objects the cloud changed, or why it did not."""


async def settle_limits(
    session: Session, outcomes: Sequence[tuple[LimitsDue, Outcome]], now: datetime
) -> None:
    """Remember what the cloud took, and say so for limits that are still the desired ones.

    What it refused is said once for this action; the next beat tries what is desired then.
    """
    ids = [due.cluster_id for due, _ in outcomes]
    rows = select(Cluster).where(Cluster.id.in_(ids)).order_by(Cluster.id).with_for_update(key_share=True)
    clusters = {row.id: row for row in (await session.execute(rows)).scalars()}
    taken: dict[str, float] = {}
    for due, outcome in outcomes:
        cluster = clusters[due.cluster_id]
        is_open = cluster.limits_id == due.action_id != cluster.limits_applied_id
        if isinstance(outcome, ProviderError):
            if is_open and cluster.limits_failed_id != due.action_id:
                cluster.limits_failed_id = due.action_id
                record(session, LimitsFailed(**about_limits(cluster, now), cause=outcome.cause.value))
            continue
        taken |= due.limits_mhz
        if is_open:
            cluster.limits_applied_id = due.action_id
            record(session, LimitsApplied(**about_limits(cluster, now), changes=outcome))
        elif outcome and cluster.limits_id == due.action_id:
            _say_applied_again(session, cluster, outcome, now)
    if taken:
        limit = case(taken, value=Machine.name)
        await session.execute(update(Machine).where(Machine.name.in_(taken)).values(limit_mhz=limit))


async def throttle_guests(session: Session, due: LimitsDue, now: datetime) -> int:
    """Let the guests of a cluster use only what is desired, where their cloud cannot limit them; how many were told.

    It is told again only when it is another: contribution repeats it until each guest has obeyed.
    """
    row = select(Cluster).where(Cluster.id == due.cluster_id).with_for_update(key_share=True)
    cluster = (await session.execute(row)).scalar_one()
    living = select(Machine).where(Machine.name.in_(due.limits_mhz), Machine.state.in_(LIVE))
    told: dict[UUID, float] = {}
    for machine in (await session.execute(living.order_by(Machine.ordinal))).scalars():
        percent = throttle_percent(due.limits_mhz[machine.name], machine.vcpus, cluster.core_mhz)
        if must_be_told(percent, machine.throttle_percent):
            machine.throttle_percent = told[machine.id] = percent
    if told:
        about = {"resource_id": cluster.resource_id, "cluster_id": cluster.id, "reason": cluster.reason}
        record(session, GuestsThrottled(at=now, percent=told, **about))
    return len(told)


async def free_guests(session: Session, due: LimitsDue, now: datetime) -> None:
    """Their cloud limits the machines itself by now: guests that were told to keep to less need not any more."""
    row = select(Cluster).where(Cluster.id == due.cluster_id).with_for_update(key_share=True)
    living = (
        Machine.name.in_(due.limits_mhz),
        Machine.state.in_(LIVE),
        Machine.throttle_percent.is_not(None),
    )
    if await session.scalar(select(Machine.id).where(*living).limit(1)) is None:
        return
    cluster = (await session.execute(row)).scalar_one()
    machines = (await session.execute(select(Machine).where(*living).order_by(Machine.ordinal))).scalars()
    freed = {}
    for machine in machines:
        freed[machine.id], machine.throttle_percent = FREE_PERCENT, None
    about = {"resource_id": cluster.resource_id, "cluster_id": cluster.id}
    why = f"the cloud limits machines itself now; {cluster.reason}"
    record(session, GuestsThrottled(at=now, percent=freed, reason=why, **about))


def _say_applied_again(session: Session, cluster: Cluster, changes: int, now: datetime) -> None:
    """The cloud had other limits than those it took before: a machine is new, or somebody changed them."""
    cluster.limits_id = cluster.limits_applied_id = new_id()
    about = about_limits(cluster, now) | {"reason": f"the cloud had other limits; {cluster.reason}"}
    record(session, LimitsRequested(**about))
    record(session, LimitsApplied(**about, changes=changes))


def about_limits(cluster: Cluster, now: datetime) -> dict[str, object]:
    """What every event about a cluster's desired limits holds."""
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
