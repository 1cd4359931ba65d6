"""The rules in force for a resource's clusters: policies, templates, contributions, and the machines there are."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from uuid import UUID

from sqlalchemy import or_, select

from libs.common.contracts.resource import Mode
from libs.common.contracts.supply import TemplateState
from libs.common.db import Session
from libs.harvest.document import parse
from libs.harvest.types import Policy
from services.workload.domain.renewal import MOST_FAILURES, NEVER_WORKED, why_starved
from services.workload.domain.states import COUNTED, LIVE, MachineState
from services.workload.domain.words import bound_by_hand, revoked
from services.workload.models import Assignment, Cluster, Contribution, Machine, Resource, Template


@dataclass(frozen=True, slots=True)
class Rules:
    """The policy in force for one cluster, and what else bounds it."""

    assignment: Assignment
    policy: Policy
    template: Template | None
    """Of what machines are made; None: none can be made now."""
    granted: int | None
    """How many machines may exist for reasons outside the policy; None: no such bound."""
    why: str


@dataclass(frozen=True, slots=True)
class Rulebook:
    """All rules of one resource, read at once."""

    resource: Resource
    assignments: dict[UUID, Assignment]
    """By resource or cluster."""
    templates: Sequence[Template]
    """Approved ones, the newest version first."""
    revoked: dict[UUID, str]
    """Why machines of a template version may not live, by version."""
    lends: bool
    """Whether any active contribution lends this resource."""
    machines: dict[UUID, list[Machine]]
    """Live ones by cluster, oldest first."""

    def of(self, cluster: Cluster, now: datetime) -> Rules | None:
        """The rules of one cluster; the nearest policy wins. None without a policy."""
        assignment = self.assignments.get(cluster.id) or self.assignments.get(self.resource.id)
        if assignment is None:
            return None
        document = json.dumps(assignment.document, sort_keys=True)
        policy = _parsed(assignment.policy_id, assignment.policy_revision, document)
        template = next((t for t in self.templates if t.name == policy.machine.template), None)
        granted, why = self._granted(cluster, template, now)
        if self.resource.seen_at is None and self.resource.mode == Mode.LEND:
            # No bound: a count that falls, if only until the first look, would rest before it grows again.
            template, why = None, why or "nothing new before what is there has been looked at"
        return Rules(assignment, policy, template, granted, why)

    def _granted(self, cluster: Cluster, template: Template | None, now: datetime) -> tuple[int | None, str]:
        there = sum(
            machine.state in COUNTED and not machine.wanted_by_hand
            for machine in self.machines.get(cluster.id, ())
        )
        bounds: list[tuple[int, str]] = []
        if template is None:
            bounds.append((0, "no approved template"))
        if not self.lends:
            bounds.append((0, "no active contribution"))
        if self.resource.sweep_stopped is not None:
            bounds.append((there, "nothing new while the sweeper waits for a person"))
        if cluster.grow_after is not None and now < cluster.grow_after:
            until = f"{cluster.grow_after:%H:%M:%S}"
            what = (
                "the last machine's guest did not work"
                if cluster.guest_failures and not cluster.deploy_failures
                else "the last deployment failed"
            )
            bounds.append((there, f"nothing new before {until}: {what}"))
        bounds += [(there, why) for why in self._ails(cluster)]
        if cluster.most_machines is not None:
            scaled = bound_by_hand(cluster.most_machines, cluster.scaled_by, cluster.scaled_reason)
            bounds.append((cluster.most_machines, scaled))
        return min(bounds, key=lambda bound: bound[0], default=(None, ""))

    def _ails(self, cluster: Cluster) -> Iterator[str]:
        """What the guests of the cluster say against more of them."""
        running = [m for m in self.machines.get(cluster.id, ()) if m.state is MachineState.RUNNING]
        failed = [machine for machine in running if machine.health in NEVER_WORKED]
        if failed and cluster.guest_failures >= MOST_FAILURES:
            why = failed[0].health_why or failed[0].health
            yield f"nothing new, and nothing replaced: {MOST_FAILURES} guests in a row did not work ({why})"
        if starved := why_starved([(machine.health, machine.health_why) for machine in running]):
            yield starved


@lru_cache(maxsize=1024)
def _parsed(_policy_id: UUID, _revision: int, document: str) -> Policy:
    return parse(json.loads(document))


async def open_rulebook(session: Session, resource: Resource, cluster_ids: Sequence[UUID]) -> Rulebook:
    """Read everything that bounds these clusters."""
    scopes = or_(Assignment.scope_id.in_(cluster_ids), Assignment.scope_id == resource.id)
    assignments = await session.execute(select(Assignment).where(scopes, Assignment.gone.is_(False)))
    of_resource = select(Template).where(Template.resource_id == resource.id)
    templates = (await session.execute(of_resource.order_by(Template.version.desc()))).scalars().all()
    machines: dict[UUID, list[Machine]] = {}
    live = select(Machine).where(Machine.cluster_id.in_(cluster_ids), Machine.state.in_(LIVE))
    for machine in (await session.execute(live.order_by(Machine.ordinal))).scalars():
        machines.setdefault(machine.cluster_id, []).append(machine)
    return Rulebook(
        resource,
        {row.scope_id: row for row in assignments.scalars()},
        [row for row in templates if row.state == TemplateState.APPROVED],
        {
            row.version_id: revoked(row.name, row.version)
            for row in templates
            if row.state == TemplateState.REVOKED
        },
        bool(await contributions_of(session, resource)),
        machines,
    )


async def contributions_of(session: Session, resource: Resource) -> list[Contribution]:
    """Active contributions that lend this resource, in a stable order."""
    rows = select(Contribution).where(
        Contribution.organisation_id == resource.organisation_id, Contribution.active.is_(True)
    )
    return [
        row
        for row in (await session.execute(rows.order_by(Contribution.id))).scalars()
        if row.resource_ids is None or str(resource.id) in row.resource_ids
    ]
