"""Judging: a sample, or silence, becomes a decision, and the decision what is wanted of limits and machines.

Any replica takes any message: cluster rows are locked in id order, and what is not newer is counted and ignored.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from uuid import UUID

import structlog
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Select, literal, or_, select

from libs.common.contracts.resource import Mode
from libs.common.contracts.supply import TemplateState
from libs.common.contracts.usage import Sample, UsageSampled
from libs.common.db import Session, Utc
from libs.common.ids import cluster_id, new_id
from libs.harvest.decide import decide
from libs.harvest.document import parse
from libs.harvest.state import from_json, to_json
from libs.harvest.types import Decision, Facts, MachineFact, Missing, Observation, Policy, State
from libs.harvest.words import explain
from services.workload.domain.states import COUNTED, ENGINE_STATE, LIVE
from services.workload.models import (
    Assignment,
    Cluster,
    Contribution,
    DecisionRecord,
    Machine,
    Resource,
    Template,
)
from services.workload.usecases.following import Means, Order, follow
from services.workload.usecases.projections import ensure_cluster

log = structlog.get_logger(__name__)

FUTURE = timedelta(seconds=60)
"""A sample further ahead than this is impossible and must not hold back the true ones that follow."""
SILENCE_INTERVALS = 3
SILENT_BATCH = 50


class Inputs(BaseModel):
    """Everything that a decision was made from and what it said, as it is stored."""

    model_config = ConfigDict(ser_json_inf_nan="strings")
    observation: Sample | Missing
    facts: Facts
    decision: Decision

    def as_json(self) -> dict[str, dict[str, object]]:
        """JSON values with NaN written as text, so that PostgreSQL keeps what the cloud said."""
        stored: dict[str, dict[str, object]] = json.loads(self.model_dump_json())
        return stored


@dataclass(frozen=True, slots=True)
class _Case:
    """A cluster at a moment of its cloud's clock."""

    means: Means
    resource: Resource
    cluster: Cluster
    now: datetime


@dataclass(frozen=True, slots=True)
class _Rules:
    """The policy in force and what else bounds a cluster."""

    assignment: Assignment
    policy: Policy
    template: Template | None
    granted: int | None
    why: str


@lru_cache(maxsize=1024)
def _parsed(_policy_id: UUID, _revision: int, document: str) -> Policy:
    return parse(json.loads(document))


async def judge_samples(means: Means, session: Session, event: UsageSampled) -> None:
    """Judge the newest sample of every cluster in the round; older ones are history and stats' business."""
    resource = await session.get(Resource, event.resource_id)
    if resource is None or resource.gone:
        return
    now = means.clock.now() + timedelta(seconds=event.clock_offset_s)
    newest: dict[UUID, Sample] = {}
    for sample in sorted(event.samples, key=lambda sample: sample.at):
        newest[cluster_id(resource.id, sample.cluster)] = sample
    known = await _lock(session, sorted(newest))
    for missing in sorted(set(newest) - set(known)):
        await ensure_cluster(session, missing, resource.id, newest[missing].cluster, newest[missing].name)
    if len(known) < len(newest):
        known = await _lock(session, sorted(newest))
    for identity, cluster in known.items():
        cluster.clock_offset_s = event.clock_offset_s
        if _take(cluster, newest[identity], now, event.received_at):
            await _judge(session, _Case(means, resource, cluster, now), newest[identity])


async def _lock(session: Session, ids: Sequence[UUID]) -> dict[UUID, Cluster]:
    rows = select(Cluster).where(Cluster.id.in_(ids)).order_by(Cluster.id).with_for_update(key_share=True)
    return {row.id: row for row in (await session.execute(rows)).scalars()}


def _take(cluster: Cluster, sample: Sample, now: datetime, received_at: datetime) -> bool:
    """Remember the sample as the newest of its cluster; False when it is not newer than what was judged."""
    if cluster.sampled_at is not None and sample.at <= cluster.sampled_at:
        cluster.superseded += 1
        return False
    if sample.at <= now + FUTURE:
        cluster.sampled_at = sample.at
        cluster.heard_at = received_at
        cluster.interval_s = sample.interval_s
        cluster.sample = json.loads(_Seen(sample=sample).model_dump_json())["sample"]
    return True


class _Seen(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="strings")
    sample: Sample


async def judge_silence(means: Means, session: Session) -> int:
    """Call `decide` with Missing for clusters that were not heard of for three intervals; how many there were.

    Clusters that another replica is judging are skipped: they are being heard of.
    """
    now = means.clock.now()
    interval = literal(timedelta(seconds=1)) * Cluster.interval_s
    rows = (
        select(Cluster, Resource)
        .join(Resource, Resource.id == Cluster.resource_id)
        .where(Resource.gone.is_(False), Cluster.state.is_not(None), Cluster.heard_at.is_not(None))
        .where(Cluster.heard_at + SILENCE_INTERVALS * interval < literal(now, Utc))
        .where(or_(Cluster.silent_at.is_(None), Cluster.silent_at + interval < literal(now, Utc)))
        .order_by(Cluster.id)
        .limit(SILENT_BATCH)
        .with_for_update(key_share=True, skip_locked=True, of=Cluster)
    )
    found = (await session.execute(rows)).all()
    for cluster, resource in found:
        cluster.silent_at = now
        there = now + timedelta(seconds=cluster.clock_offset_s)
        await _judge(session, _Case(means, resource, cluster, there), Missing(there))
    return len(found)


async def rejudge(means: Means, session: Session, cluster: Cluster, resource: Resource) -> None:
    """Decide anew without a new sample, because a person changed something: what they asked for holds at once."""
    now = means.clock.now() + timedelta(seconds=cluster.clock_offset_s)
    await _judge(session, _Case(means, resource, cluster, now), Missing(now))


async def _judge(session: Session, case: _Case, observation: Observation) -> None:
    resource, cluster, now = case.resource, case.cluster, case.now
    machines = list((await session.execute(_machines_of(cluster))).scalars())
    rules = await _rules(session, resource, cluster, machines, now)
    if rules is None:
        cluster.reason = "no policy is assigned to this cluster or its resource"
        cluster.decision = None
        return
    facts = _facts(resource, cluster, rules, machines, now)
    before = from_json(cluster.state) if cluster.state else State()
    after, decision = decide(rules.policy, before, observation, facts)
    inputs = Inputs(observation=observation, facts=facts, decision=decision).as_json()
    reason = explain(decision, rules.policy) + (f" ({rules.why})" if rules.why else "")
    if _differs(cluster.decision, inputs["decision"]):
        record = DecisionRecord(
            id=new_id(), cluster_id=cluster.id, at=decision.at, policy_id=rules.assignment.policy_id, reason=reason,
            policy_revision=rules.assignment.policy_revision, state_before=to_json(before), **inputs,
        )  # fmt: skip
        session.add(record)
        log.info(
            "cluster.decided",
            cluster=cluster.name,
            rung=decision.rung.name,
            wanted=decision.wanted,
            reason=reason,
        )
    cluster.state, cluster.decision, cluster.reason, cluster.decided_at = (
        to_json(after),
        inputs["decision"],
        reason,
        now,
    )
    cluster.floor_mhz_per_vcpu = rules.policy.floor_mhz_per_vcpu
    cluster.drain_grace_s = rules.policy.ladder.drain_grace_s
    await follow(
        session,
        Order(case.means, resource, cluster, decision, rules.policy, rules.template, reason),
        machines,
        now,
    )


def _machines_of(cluster: Cluster) -> Select[Machine]:
    return (
        select(Machine)
        .where(Machine.cluster_id == cluster.id, Machine.state.in_(LIVE))
        .order_by(Machine.ordinal)
    )


def _facts(
    resource: Resource, cluster: Cluster, rules: _Rules, machines: Sequence[Machine], now: datetime
) -> Facts:
    return Facts(
        now=now,
        machines=tuple(_fact(machine, now) for machine in machines if machine.state in COUNTED),
        granted_machines=rules.granted,
        paused=_why_paused(resource, cluster),
        draining=cluster.draining or resource.mode == Mode.DRAINING or _is_left_over(resource, machines),
    )


def _is_left_over(resource: Resource, machines: Sequence[Machine]) -> bool:
    """A resource that only observes again gives back what it still has."""
    return resource.mode == Mode.OBSERVE and bool(machines)


def _why_paused(resource: Resource, cluster: Cluster) -> str | None:
    if cluster.paused_reason is not None:
        return f"{cluster.paused_reason} (by {cluster.paused_by})"
    return "the resource is paused" if resource.mode == Mode.PAUSED else None


def _fact(machine: Machine, now: datetime) -> MachineFact:
    since = machine.running_since
    return MachineFact(
        machine=str(machine.id),
        host=machine.host,
        state=ENGINE_STATE[machine.state],
        vcpus=machine.vcpus,
        age_s=max(0.0, (now - machine.created_at).total_seconds()),
        progress_s=0.0 if since is None else max(0.0, (now - since).total_seconds()),
    )


async def _rules(
    session: Session, resource: Resource, cluster: Cluster, machines: Sequence[Machine], now: datetime
) -> _Rules | None:
    scopes = or_(
        (Assignment.scope == "cluster") & (Assignment.scope_id == cluster.id),
        (Assignment.scope == "resource") & (Assignment.scope_id == resource.id),
    )
    rows = (
        (await session.execute(select(Assignment).where(scopes, Assignment.gone.is_(False)))).scalars().all()
    )
    if not rows:
        return None
    assignment = min(rows, key=lambda row: row.scope)  # "cluster" < "resource": the nearest wins
    policy = _parsed(
        assignment.policy_id, assignment.policy_revision, json.dumps(assignment.document, sort_keys=True)
    )
    template = await _approved(session, resource, policy.machine.template)
    granted, why = await _granted(session, resource, cluster, template, now)
    counted = sum(1 for machine in machines if machine.state in COUNTED)
    if granted is None and cluster.grow_after is not None and now < cluster.grow_after:
        granted, why = (
            counted,
            f"nothing new before {cluster.grow_after:%H:%M:%S}: the last deployment failed",
        )
    if granted is None and resource.sweep_stopped is not None:
        granted, why = counted, "nothing new while the sweeper waits for a person"
    return _Rules(assignment, policy, template, granted, why)


async def _approved(session: Session, resource: Resource, name: str) -> Template | None:
    rows = (
        select(Template)
        .where(Template.resource_id == resource.id, Template.name == name)
        .where(Template.state == TemplateState.APPROVED.value)
        .order_by(Template.version.desc())
        .limit(1)
    )
    return (await session.execute(rows)).scalar_one_or_none()


async def _granted(
    session: Session, resource: Resource, cluster: Cluster, template: Template | None, now: datetime
) -> tuple[int | None, str]:
    """How many machines may exist for reasons outside the policy; None: no such bound."""
    if template is None:
        return 0, "no approved template"
    rows = select(Contribution).where(
        Contribution.organisation_id == resource.organisation_id, Contribution.active.is_(True)
    )
    lends = [
        row for row in (await session.execute(rows)).scalars()
        if row.resource_ids is None or str(resource.id) in row.resource_ids
    ]  # fmt: skip
    if not lends:
        return 0, "no active contribution"
    if cluster.most_machines is not None:
        return cluster.most_machines, f"scaled to at most {cluster.most_machines} by hand"
    return None, ""


def _differs(known: dict[str, object] | None, decision: dict[str, object]) -> bool:
    """Whether a decision is worth a row: anything but its time and the owner's load moved."""
    return known is None or _essence(known) != _essence(decision)


def _essence(decision: dict[str, object]) -> object:
    reason, budgets = decision["reason"], decision["budgets"]
    assert isinstance(reason, dict)
    assert isinstance(budgets, list)
    what = [decision[name] for name in ("verdict", "rung", "wanted", "running", "cap_mhz")]
    return (what, reason["code"], [(budget["host"], budget["budget_mhz"]) for budget in budgets])
