"""The rules in force for a resource's clusters: policies, templates, contributions, and the machines there are."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from uuid import UUID

from sqlalchemy import ColumnElement, exists, or_, select

from libs.common.contracts.resource import Mode
from libs.common.contracts.supply import TemplateState
from libs.common.db import Session, among
from libs.harvest.document import parse
from libs.harvest.quota import Quota, read_quota
from libs.harvest.types import Policy
from services.workload.domain.quotas import Counted, Held, Working
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
    is_shared: bool = False
    """Whether `why` speaks of a quota that the cluster shares with others."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What an organisation's machines take of its quotas, as a transaction read it for all of a rulebook's clusters."""

    is_ours: bool
    """Whether the organisation's lock is ours: nobody but this transaction adds a machine."""
    held: Sequence[Held]
    working: Working | None
    """For whom they work; None: every one for every project."""
    counted: Counted | None
    """Who stays within the organisation's quotas; None: nothing is bounded."""

    @property
    def priorities(self) -> Mapping[UUID, int]:
        """Of whom each machine works for; empty where every one works for every project."""
        return self.working.priorities if self.working else {}


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
    contributions: Sequence[Contribution]
    """All that are active for the organisation, of whatever resources, in a stable order."""
    machines: dict[UUID, list[Machine]]
    """Live ones by cluster, oldest first; without those that become images."""
    quotas: Sequence[tuple[str, Quota]] = ()
    """Those that are in force for the organisation anywhere, by the name of the policy."""
    longest_life_s: float = 0.0
    """The longest least life in those policies."""
    policies: dict[UUID, Policy] = field(default_factory=dict)
    """What was read of the assignments' documents so far, by scope."""
    stand_ins: Mapping[UUID, UUID] = field(default_factory=dict)
    """What stands in for which resource of the organisation now, where a contribution names resources."""
    taken: list[Taken] = field(default_factory=list)
    """What was read of the organisation's machines, at most one; empty: nothing was, or it holds no more."""

    @property
    def lends(self) -> bool:
        """Whether any active contribution lends this resource."""
        return any(_lends(row, self.resource) for row in self.contributions)

    def of(self, cluster: Cluster, now: datetime) -> Rules | None:
        """The rules of one cluster; the nearest policy wins. None without a policy."""
        assignment = self.assignments.get(cluster.id) or self.assignments.get(self.resource.id)
        if assignment is None:
            return None
        policy = self._policy(assignment)
        template = next((t for t in self.templates if t.name == policy.machine.template), None)
        granted, why = self._granted(cluster, template, now)
        if self.resource.seen_at is None and self.resource.mode == Mode.LEND:
            # No bound: a count that falls, if only until the first look, would rest before it grows again.
            template, why = None, why or "nothing new before what is there has been looked at"
        return Rules(assignment, policy, template, granted, why)

    def _policy(self, assignment: Assignment) -> Policy:
        """Raises InvalidPolicy."""
        known = self.policies.get(assignment.scope_id)
        if known is None:
            document = json.dumps(assignment.document, sort_keys=True)
            known = _parsed(assignment.policy_id, assignment.policy_revision, document)
            self.policies[assignment.scope_id] = known
        return known

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
    scopes = or_(
        among(Assignment.scope_id, [*cluster_ids, resource.id]), _is_quota_of(resource.organisation_id)
    )
    rows = select(Assignment).where(scopes, Assignment.gone.is_(False)).order_by(Assignment.policy_name)
    assignments = (await session.execute(rows)).scalars().all()
    of_resource = select(Template).where(Template.resource_id == resource.id)
    templates = (await session.execute(of_resource.order_by(Template.version.desc()))).scalars().all()
    machines: dict[UUID, list[Machine]] = {}
    live = select(Machine).where(among(Machine.cluster_id, cluster_ids), Machine.state.in_(LIVE))
    live = live.where(Machine.derivation_id.is_(None))
    for machine in (await session.execute(live.order_by(Machine.ordinal))).scalars():
        machines.setdefault(machine.cluster_id, []).append(machine)
    bounding = [row for row in assignments if row.quota is not None]
    contributions = await _contributions_of(session, resource.organisation_id)
    return Rulebook(
        resource,
        {row.scope_id: row for row in assignments},
        [row for row in templates if row.state == TemplateState.APPROVED],
        {
            row.version_id: revoked(row.name, row.version)
            for row in templates
            if row.state == TemplateState.REVOKED
        },
        contributions,
        machines,
        [(row.policy_name, read_quota(row.quota)) for row in bounding if row.quota is not None],
        max((row.document.get("minimum_life_s", 0.0) for row in bounding), default=0.0),
        stand_ins=await _stand_ins_of(session, contributions),
    )


async def contributions_of(session: Session, resource: Resource) -> list[Contribution]:
    """Active contributions that lend this resource, in a stable order."""
    return [
        row for row in await _contributions_of(session, resource.organisation_id) if _lends(row, resource)
    ]


async def stood_in_for(session: Session, resource: Resource) -> frozenset[str]:
    """Addresses of projects that are lent to resources for which this one may stand in, whether or not it does now."""
    rows = select(Resource.id).where(Resource.stand_in_id == resource.id, Resource.gone.is_(False))
    theirs = {str(each) for each in await session.scalars(rows)}
    known = await _contributions_of(session, resource.organisation_id) if theirs else ()
    return frozenset(row.project_url for row in known if not theirs.isdisjoint(row.resource_ids or ()))


async def _contributions_of(session: Session, organisation_id: UUID) -> Sequence[Contribution]:
    active = (Contribution.organisation_id == organisation_id) & Contribution.active.is_(True)
    rows = select(Contribution).where(active).order_by(Contribution.id)
    return (await session.execute(rows)).scalars().all()


async def _stand_ins_of(session: Session, contributions: Sequence[Contribution]) -> dict[UUID, UUID]:
    named = {UUID(each) for row in contributions for each in row.resource_ids or ()}
    if not named:
        return {}
    rows = select(Resource.id, Resource.stood_in_by).where(among(Resource.id, named))
    return {row.id: row.stood_in_by for row in await session.execute(rows) if row.stood_in_by}


def _lends(row: Contribution, resource: Resource) -> bool:
    if row.resource_ids is None:
        return True
    return not {str(resource.id), *(resource.stands_for or ())}.isdisjoint(row.resource_ids)


def _is_quota_of(organisation_id: UUID) -> ColumnElement[bool]:
    """Whether an assignment holds a quota for the organisation, wherever it is."""
    ours = (Resource.organisation_id == organisation_id) & Resource.gone.is_(False)
    # Looked up by the few quotas there are: an organisation may have a hundred thousand clusters.
    of_resource = exists().where(Resource.id == Assignment.scope_id, ours)
    of_cluster = exists().where(Cluster.id == Assignment.scope_id, Cluster.resource_id == Resource.id, ours)
    return Assignment.quota.is_not(None) & (of_resource | of_cluster)
