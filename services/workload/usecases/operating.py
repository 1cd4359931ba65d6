"""What a person does: the red button, scaling and draining by hand."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog

from libs.common.contracts.action import ClusterDrainRequested, ClusterPaused, ClusterResumed, ClusterScaled
from libs.common.db import Session
from libs.common.errors import conflict, not_found
from services.workload.domain.states import LIVE, Wanted
from services.workload.domain.words import bound_by_hand, by_hand
from services.workload.models import Cluster, Machine, Resource
from services.workload.usecases.following import Means
from services.workload.usecases.judging import rejudge
from services.workload.usecases.recording import record

log = structlog.get_logger(__name__)

NO_KEY: dict[str, Any] = {"key_share": True}
"""FOR NO KEY UPDATE, so that foreign keys do not wait."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks, and why; both stand in the event."""

    name: str
    reason: str
    organisation_id: UUID | None
    """Whose clusters they may touch; None: an administrator, all."""


async def pause_cluster(means: Means, session: Session, cluster_id: UUID, person: Person) -> Cluster:
    """The red button: budgets to the floor, nothing new; holds across restarts until somebody resumes."""
    cluster, resource = await _cluster(session, cluster_id, person)
    cluster.paused_by, cluster.paused_reason = person.name, person.reason
    record(session, ClusterPaused(**_said(means, cluster, person)))
    log.info("cluster.paused", **_about(cluster, resource, person))
    await rejudge(means, session, cluster, resource, by_hand("paused", person.name, person.reason))
    return cluster


async def resume_cluster(means: Means, session: Session, cluster_id: UUID, person: Person) -> Cluster:
    """Release the red button, and a drain by hand; guests that did not work are no reason to rest any more."""
    cluster, resource = await _cluster(session, cluster_id, person)
    if cluster.guest_failures and not cluster.deploy_failures:
        cluster.grow_after = None  # the rest was theirs
    cluster.guest_failures = 0
    cluster.paused_by = cluster.paused_reason = None
    cluster.draining, cluster.drained_by, cluster.drained_reason = False, None, None
    record(session, ClusterResumed(**_said(means, cluster, person)))
    log.info("cluster.resumed", **_about(cluster, resource, person))
    await rejudge(means, session, cluster, resource, by_hand("resumed", person.name, person.reason))
    return cluster


async def drain_cluster(means: Means, session: Session, cluster_id: UUID, person: Person) -> Cluster:
    """Give everything on the cluster back, with grace, until resumed."""
    cluster, resource = await _cluster(session, cluster_id, person)
    said = ClusterDrainRequested(**_said(means, cluster, person), was_draining=cluster.draining)
    record(session, said)
    cluster.draining, cluster.drained_by, cluster.drained_reason = True, person.name, person.reason
    log.info("cluster.drained", **_about(cluster, resource, person))
    await rejudge(means, session, cluster, resource, by_hand("drained", person.name, person.reason))
    return cluster


async def scale_cluster(
    means: Means, session: Session, cluster_id: UUID, person: Person, most_machines: int | None
) -> Cluster:
    """Never more than this many machines; None: as many as the policy allows."""
    cluster, resource = await _cluster(session, cluster_id, person)
    bounds = {"most_before": cluster.most_machines, "most_machines": most_machines}
    record(session, ClusterScaled(**_said(means, cluster, person), **bounds))
    cluster.most_machines, cluster.scaled_by, cluster.scaled_reason = (
        most_machines,
        person.name,
        person.reason,
    )
    log.info("cluster.scaled", **_about(cluster, resource, person), **bounds)
    said = bound_by_hand(most_machines, person.name, person.reason)
    await rejudge(means, session, cluster, resource, said)
    return cluster


async def drain_machine(session: Session, machine_id: UUID, person: Person) -> Machine:
    """Give one machine back, with grace; no decision brings this one back."""
    machine = await session.get(Machine, machine_id)
    if machine is None or not _may_touch(person, machine.organisation_id):
        raise not_found("machine")
    # Whoever judges holds the cluster's row: without it, what is written here would be overwritten.
    await session.get_one(Cluster, machine.cluster_id, with_for_update=NO_KEY)
    await session.refresh(machine, with_for_update=NO_KEY)
    if machine.state not in LIVE:
        raise conflict(f"{machine.name} is {machine.state.value}; there is nothing to drain.")
    machine.wanted, machine.wanted_by_hand = Wanted.GONE, True
    machine.reason = by_hand("drained", person.name, person.reason)
    log.info("machine.drained", machine=machine.name, by=person.name, reason=person.reason)
    return machine


async def _cluster(session: Session, cluster_id: UUID, person: Person) -> tuple[Cluster, Resource]:
    cluster = await session.get(Cluster, cluster_id, with_for_update=NO_KEY)
    if cluster is not None:
        resource = await session.get_one(Resource, cluster.resource_id)
        if _may_touch(person, resource.organisation_id):
            return cluster, resource
    raise not_found("cluster", "List them at /v1/clusters.")


def _may_touch(person: Person, organisation_id: UUID) -> bool:
    return person.organisation_id is None or person.organisation_id == organisation_id


def _said(means: Means, cluster: Cluster, person: Person) -> dict[str, object]:
    return {
        "at": means.clock.now(),
        "resource_id": cluster.resource_id,
        "cluster_id": cluster.id,
        "actor": person.name,
        "reason": person.reason,
    }


def _about(cluster: Cluster, resource: Resource, person: Person) -> dict[str, str]:
    return {
        "resource": resource.name,
        "cluster": cluster.name,
        "by": person.name,
        "reason": person.reason,
    }
