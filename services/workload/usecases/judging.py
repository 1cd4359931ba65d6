"""Judging: a sample, or silence, becomes a decision, and the decision what is wanted of limits and machines.

Any replica takes any message: cluster rows are locked in id order, and what is not newer is counted and ignored.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from pydantic import BaseModel, ConfigDict
from sqlalchemy import func, literal, or_, select

from libs.common.contracts.resource import Mode
from libs.common.contracts.usage import Sample, UsageSampled
from libs.common.db import Session, Utc
from libs.common.ids import cluster_id, new_id
from libs.harvest.decide import decide
from libs.harvest.state import from_json, to_json
from libs.harvest.types import Decision, Facts, MachineFact, Missing, Observation, State
from libs.harvest.words import explain
from services.workload.domain.plan import give_everything_back
from services.workload.domain.states import COUNTED, ENGINE_STATE, MachineState
from services.workload.models import Cluster, DecisionRecord, Machine, Resource
from services.workload.usecases.following import Means, Order, follow
from services.workload.usecases.projections import ensure_cluster
from services.workload.usecases.rules import Rulebook, Rules, open_rulebook

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
    """A cluster with its rules, at a moment of two clocks: rows keep ours, the engine goes by the cloud's."""

    means: Means
    rulebook: Rulebook
    cluster: Cluster
    now: datetime

    @property
    def there(self) -> datetime:
        """Now, on the cloud's clock."""
        return self.now + timedelta(seconds=self.cluster.clock_offset_s)


async def judge_samples(means: Means, session: Session, event: UsageSampled) -> None:
    """Judge the newest sample of every cluster in the round; older ones are history and stats' business."""
    resource = await session.get(Resource, event.resource_id)
    if resource is None or resource.gone:
        return
    now = means.clock.now()
    newest: dict[UUID, Sample] = {}
    for sample in sorted(event.samples, key=lambda sample: sample.at):
        newest[cluster_id(resource.id, sample.cluster)] = sample
    known = await _lock(session, sorted(newest))
    for missing in sorted(set(newest) - set(known)):
        await ensure_cluster(session, missing, resource.id, newest[missing].cluster, newest[missing].name)
    if len(known) < len(newest):
        known = await _lock(session, sorted(newest))
    rulebook = await open_rulebook(session, resource, list(known))
    for identity, cluster in known.items():
        sample = newest[identity]
        if cluster.sampled_at is not None and sample.at <= cluster.sampled_at:
            cluster.superseded += 1
            continue
        cluster.clock_offset_s, cluster.interval_s = event.clock_offset_s, resource.interval_s
        case = _Case(means, rulebook, cluster, now)
        if sample.at <= case.there + FUTURE and _is_whole(sample):
            cluster.sampled_at, cluster.heard_at = sample.at, min(event.received_at, now)
            cluster.sample = json.loads(_Seen(sample=sample).model_dump_json())["sample"]
        await _judge(session, case, sample)


async def _lock(session: Session, ids: Sequence[UUID]) -> dict[UUID, Cluster]:
    rows = select(Cluster).where(Cluster.id.in_(ids)).order_by(Cluster.id).with_for_update(key_share=True)
    return {row.id: row for row in (await session.execute(rows)).scalars()}


def _is_whole(sample: Sample) -> bool:
    """Whether every column has one value per host; what is not so is judged, but cannot be shown."""
    columns = (getattr(sample, column.name) for column in fields(sample))
    return all(len(column) == len(sample.hosts) for column in columns if isinstance(column, tuple))


class _Seen(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="strings")
    sample: Sample


async def judge_silence(means: Means, session: Session) -> int:
    """Call `decide` with Missing for clusters that were not heard of for three intervals; how many there were.

    Clusters that another replica is judging are skipped: they are being heard of.
    """
    now = means.clock.now()
    interval = func.make_interval(0, 0, 0, 0, 0, 0, Cluster.interval_s)
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
        await _judge_again(means, session, cluster, resource, now)
    return len(found)


async def rejudge(means: Means, session: Session, cluster: Cluster, resource: Resource) -> None:
    """Decide anew without a new sample, because a person changed something: what they asked for holds at once."""
    await _judge_again(means, session, cluster, resource, means.clock.now())


async def _judge_again(
    means: Means, session: Session, cluster: Cluster, resource: Resource, now: datetime
) -> None:
    case = _Case(means, await open_rulebook(session, resource, [cluster.id]), cluster, now)
    await _judge(session, case, Missing(case.there))


async def _judge(session: Session, case: _Case, observation: Observation) -> None:
    cluster, rules = case.cluster, case.rulebook.of(case.cluster, case.now)
    machines = case.rulebook.machines.get(cluster.id, [])
    if rules is None:
        await _give_back(session, case, machines)
        return
    facts = _facts(case, rules, machines)
    before = from_json(cluster.state) if cluster.state else State()
    after, decision = decide(rules.policy, before, observation, facts)
    inputs = Inputs(observation=observation, facts=facts, decision=decision).as_json()
    reason = explain(decision, rules.policy, _names(cluster)) + (f" ({rules.why})" if rules.why else "")
    if _differs(cluster.decision, inputs["decision"]):
        record = DecisionRecord(
            id=new_id(), cluster_id=cluster.id, at=decision.at, policy_id=rules.assignment.policy_id, reason=reason,
            policy_revision=rules.assignment.policy_revision, state_before=to_json(before), **inputs,
        )  # fmt: skip
        session.add(record)
        about = {"cluster": cluster.name, "rung": decision.rung.name, "wanted": decision.wanted}
        log.info("cluster.decided", **about, reason=reason)
    cluster.state, cluster.decision = to_json(after), inputs["decision"]
    cluster.reason, cluster.decided_at = reason, case.there
    cluster.floor_mhz_per_vcpu = rules.policy.floor_mhz_per_vcpu
    cluster.drain_grace_s = rules.policy.ladder.drain_grace_s
    order = Order(case.means, case.rulebook.resource, cluster, decision, rules.policy, rules.template, reason)
    await follow(session, order, machines, case.now)


async def _give_back(session: Session, case: _Case, machines: Sequence[Machine]) -> None:
    """Without a policy nothing is decided, and nothing is lent."""
    cluster, reason = case.cluster, "no policy is assigned to this cluster or its resource"
    cluster.reason, cluster.decision = reason, None
    floor_mhz = cluster.floor_mhz_per_vcpu * sum(machine.vcpus for machine in machines)
    decision = give_everything_back(case.there, floor_mhz)
    order = Order(case.means, case.rulebook.resource, cluster, decision, None, None, reason)
    await follow(session, order, machines, case.now)


def _names(cluster: Cluster) -> dict[str, str]:
    sample = cluster.sample or {}
    return dict(zip(sample.get("hosts", ()), sample.get("host_names", ()), strict=True))


def _facts(case: _Case, rules: Rules, machines: Sequence[Machine]) -> Facts:
    resource, cluster = case.rulebook.resource, case.cluster
    return Facts(
        now=case.there,
        machines=tuple(_fact(machine, case.now) for machine in machines if machine.state in COUNTED),
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
    # What drains because of a decision is still the decision's: it may run on when the owner calms down.
    drains = machine.state is MachineState.DRAINING and not machine.wanted_by_hand
    return MachineFact(
        machine=str(machine.id),
        host=machine.host,
        state=ENGINE_STATE[MachineState.RUNNING if drains else machine.state],
        vcpus=machine.vcpus,
        age_s=max(0.0, (now - machine.created_at).total_seconds()),
        progress_s=0.0 if since is None else max(0.0, (now - since).total_seconds()),
    )


def _differs(known: dict[str, object] | None, decision: dict[str, object]) -> bool:
    """Whether a decision is worth a row: anything but its time and the owner's load moved."""
    return known is None or _essence(known) != _essence(decision)


def _essence(decision: dict[str, object]) -> object:
    reason, budgets = decision["reason"], decision["budgets"]
    assert isinstance(reason, dict)
    assert isinstance(budgets, list)
    what = [decision[name] for name in ("verdict", "rung", "wanted", "running", "cap_mhz")]
    return (what, reason["code"], [(budget["host"], budget["budget_mhz"]) for budget in budgets])
