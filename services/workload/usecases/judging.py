"""Judging: a sample, or silence, becomes a decision, and the decision what is wanted of limits and machines.

Any replica takes any message: cluster rows are locked in id order, and what is not newer is counted and ignored.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import select
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.orm import defer

from libs.common.alike import write_alike
from libs.common.contracts.resource import Mode
from libs.common.contracts.usage import Sample, UsageSampled
from libs.common.db import Json, Session, among
from libs.common.ids import cluster_id, new_id
from libs.common.tracing import as_part, carried, tell
from libs.harvest.decide import decide
from libs.harvest.document import InvalidPolicy
from libs.harvest.state import from_json, to_json
from libs.harvest.types import Decision, Missing, Observation, ReasonCode, State
from libs.harvest.words import explain
from services.workload.domain.plan import give_everything_back, hold_at_floor
from services.workload.domain.states import LIVE, MachineState, Wanted
from services.workload.domain.words import name_quota, replace_cause
from services.workload.models import Cluster, Machine, Resource
from services.workload.usecases.facts import Clocks, Granted, facts_of, why_draining
from services.workload.usecases.following import Means, Order, follow, hold, is_limited
from services.workload.usecases.granting import grant, name_bound
from services.workload.usecases.projections import ensure_clusters
from services.workload.usecases.rules import Rulebook, Rules, open_rulebook
from services.workload.usecases.stored import (
    Moved,
    Told,
    decision_as_json,
    facts_as_json,
    keep,
    log_decided,
    observation_as_json,
    what_moved,
)

log = structlog.get_logger(__name__)

FUTURE = timedelta(seconds=60)
"""A sample further ahead than this is impossible and must not hold back the true ones that follow."""
MOST_OFFSET_S = 1e9
_JUDGED = (
    Cluster.sampled_at, Cluster.heard_at, Cluster.clock_offset_s, Cluster.interval_s, Cluster.sample,
    Cluster.state, Cluster.decision, Cluster.reason, Cluster.decided_at, Cluster.budgets_mhz, Cluster.cap_mhz,
    Cluster.floor_mhz_per_vcpu, Cluster.drain_grace_s,
)  # fmt: skip
"""What a sample may change in a cluster."""


@dataclass(frozen=True, slots=True)
class _Heard:
    """How a sample reached us."""

    received_at: datetime
    offset_s: float
    """The cloud's clock minus ours."""


@dataclass(frozen=True, slots=True)
class _Case:
    """A cluster with its rules, at a moment of two clocks: rows keep ours, the engine goes by the cloud's."""

    means: Means
    rulebook: Rulebook
    cluster: Cluster
    now: datetime
    by_hand: str | None = None
    """What led here beside a sample (a person, a renewal): such a decision is always stored, with these words."""
    heard: _Heard | None = None
    """None: nothing new was."""

    @property
    def there(self) -> datetime:
        """Now, on the cloud's clock."""
        return self.now + timedelta(seconds=self.cluster.clock_offset_s)

    @property
    def clocks(self) -> Clocks:
        """Now, on both."""
        return Clocks(self.now, self.there)


async def judge_samples(means: Means, session: Session, event: UsageSampled) -> None:
    """Judge the newest sample of every cluster in the round; older ones are history and stats' business."""
    newest: dict[UUID, Sample] = {}
    for sample in sorted(event.samples, key=lambda sample: sample.at):
        newest[cluster_id(event.resource_id, sample.cluster)] = sample
    known = await _lock(session, newest)
    resource = await session.get(Resource, event.resource_id)  # after the locks: it may have changed before
    if resource is not None and len(known) < len(newest):
        known = await _make(session, resource, newest, known)
    if resource is None or resource.gone:
        return
    now, offset = means.clock.now(), _offset(event)
    rulebook = await open_rulebook(session, resource, list(known))
    heard = _Heard(min(event.received_at, now), offset.total_seconds())
    due: list[tuple[_Case, Observation]] = []
    for identity, cluster in known.items():
        sample = newest[identity]
        if _is_news(cluster, sample, now + offset):
            due.append((_Case(means, rulebook, cluster, now, heard=heard), sample))
        else:
            cluster.superseded += 1
    await _judge_all(session, due)
    if resource.mode != Mode.OBSERVE or rulebook.machines:
        session.once_committed(partial(means.errands.name, resource.id))


async def _make(
    session: Session, resource: Resource, newest: dict[UUID, Sample], known: dict[UUID, Cluster]
) -> dict[UUID, Cluster]:
    """All clusters of the round, with those that nobody had seen before; the resource as it is then."""
    if resource.gone:
        return known
    missing = newest.keys() - known.keys()
    seen = [(each, newest[each].cluster, newest[each].name) for each in missing]
    await ensure_clusters(session, resource.id, seen)
    whole = await _lock(session, newest)
    await session.refresh(resource)
    return whole


async def _lock(session: Session, ids: Iterable[UUID]) -> dict[UUID, Cluster]:
    rows = select(Cluster).where(among(Cluster.id, ids)).order_by(Cluster.id)
    # The sample that was shown until now is not looked at: it is replaced.
    locked = rows.with_for_update(key_share=True).options(defer(Cluster.sample))
    return {row.id: row for row in (await session.execute(locked)).scalars()}


def _offset(event: UsageSampled) -> timedelta:
    """The cloud's clock minus ours; what no clock can be off by counts as nothing."""
    seconds = event.clock_offset_s
    return timedelta(seconds=seconds if abs(seconds) <= MOST_OFFSET_S else 0.0)


def _is_news(cluster: Cluster, sample: Sample, there: datetime) -> bool:
    """Whether a sample is newer than what was judged.

    After the cloud's clock was set back, what was judged by the wrong one does not hold back what comes now.
    """
    known = cluster.sampled_at
    return known is None or sample.at > known or (sample.at <= there + FUTURE < known)


def _note(case: _Case, observation: Observation, seen: Json) -> None:
    """Write down what was heard of a cluster, if anything was."""
    cluster, heard = case.cluster, case.heard
    if heard is None or isinstance(observation, Missing):
        return
    cluster.clock_offset_s, cluster.interval_s = heard.offset_s, case.rulebook.resource.interval_s
    latest = case.there + FUTURE
    if observation.at > latest:
        return
    if observation.is_whole():
        cluster.sampled_at, cluster.heard_at = observation.at, heard.received_at
        cluster.sample = seen
    elif cluster.sampled_at is not None and cluster.sampled_at > latest:
        cluster.sampled_at = None


async def rejudge_all(means: Means, session: Session, resource: Resource) -> None:
    """Decide anew, without a new sample, about every cluster of a resource that was judged before."""
    judged = select(Cluster).where(Cluster.resource_id == resource.id, Cluster.state.is_not(None))
    ordered = judged.order_by(Cluster.id).with_for_update(key_share=True)
    await rejudge_these(means, session, resource, (await session.execute(ordered)).scalars().all())


async def rejudge_these(
    means: Means, session: Session, resource: Resource, clusters: Sequence[Cluster]
) -> None:
    """The same about some of its clusters, which are locked."""
    now = means.clock.now()
    rulebook = await open_rulebook(session, resource, [cluster.id for cluster in clusters])
    cases = [_Case(means, rulebook, cluster, now) for cluster in clusters]
    await _judge_all(session, [(case, Missing(case.there)) for case in cases])


async def rejudge(
    means: Means, session: Session, cluster: Cluster, resource: Resource, by_hand: str | None = None
) -> None:
    """Decide anew without a new sample. What a person asked for (`by_hand`) holds at once and is kept in words."""
    await session.refresh(resource)  # it may have changed before the cluster was locked
    if resource.gone:
        return
    now = means.clock.now()
    case = _Case(means, await open_rulebook(session, resource, [cluster.id]), cluster, now, by_hand)
    await _judge(session, case, Missing(case.there))


async def _judge_all(session: Session, due: Sequence[tuple[_Case, Observation]]) -> None:
    """Decide about clusters of one resource together; one by one where one of them cannot be decided about.

    A savepoint for each would cost more than all else in judging.
    """
    if not due:
        return
    try:
        async with session.savepoint():
            told = [await _decide(session, case, observation) for case, observation in due]
            await write_alike(session, [case.cluster for case, _ in due], _JUDGED)
            await keep(session, told)
    except Exception as error:
        _raise_if_of_database(error)
        await _judge_apart(session, due)
        return
    log_decided(told)


async def _judge_apart(session: Session, due: Sequence[tuple[_Case, Observation]]) -> None:
    """What was rolled back together is read again and judged apart."""
    clusters = [case.cluster for case, _ in due]
    for cluster in clusters:
        await session.refresh(cluster)
    resource = due[0][0].rulebook.resource
    await session.refresh(resource)
    rulebook = await open_rulebook(session, resource, [cluster.id for cluster in clusters])
    for case, observation in due:
        await _judge(session, replace(case, rulebook=rulebook), observation)


async def _judge(session: Session, case: _Case, observation: Observation) -> None:
    """Decide about one cluster. One that cannot be decided about is held at the floor, and no other suffers by it."""
    about = {"resource": case.rulebook.resource.name, "cluster": case.cluster.name}
    try:
        async with session.savepoint():
            told = [await _decide(session, case, observation)]
            await keep(session, told)
        log_decided(told)
        return
    except InvalidPolicy as error:
        why = f"the policy cannot be read: {error}"
    except Exception as error:
        _raise_if_of_database(error)
        log.exception("cluster.not_judged", **about)
        why = f"judging failed with {type(error).__name__}"
    case.rulebook.taken.clear()  # also the lock went with what was undone
    case.means.instruments.decided()
    try:
        async with session.savepoint():
            await _hold(session, case, observation, why)
    except Exception as error:
        _raise_if_of_database(error)
        log.exception("cluster.not_held", **about)


def _raise_if_of_database(error: Exception) -> None:
    """A database that fails, and not what was written to it, lets the whole message come again."""
    if isinstance(error, DBAPIError) and not isinstance(error, DataError | IntegrityError):
        raise error


async def _hold(session: Session, case: _Case, observation: Observation, why: str) -> None:
    """Nothing was decided: no budget above its floor and nothing new, but nothing is given back either."""
    cluster, resource = case.cluster, case.rulebook.resource
    await session.refresh(cluster)
    _note(case, observation, observation_as_json(observation))
    is_lent = (Machine.cluster_id == cluster.id) & Machine.derivation_id.is_(None)
    rows = select(Machine).where(is_lent, Machine.state.in_(LIVE))
    fresh = rows.order_by(Machine.ordinal).execution_options(populate_existing=True)
    machines = (await session.execute(fresh)).scalars().all()
    floors: dict[str, float] = {}
    for machine in machines:
        if machine.host is not None and is_limited(machine) and machine.state is not MachineState.SUSPENDED:
            mhz = cluster.floor_mhz_per_vcpu * machine.vcpus
            floors[machine.host] = floors.get(machine.host, 0.0) + mhz
    decision = hold_at_floor(case.there, cluster.budgets_mhz, floors)
    kept = [machine for machine in machines if machine.wanted is not Wanted.GONE]
    running = sum(machine.wanted is Wanted.RUNNING for machine in kept)
    decision = replace(decision, wanted=len(kept), running=running)
    reason = f"{why}; held at the floor, nothing new"
    if cluster.reason != reason:
        log.warning("cluster.held", resource=resource.name, cluster=cluster.name, reason=reason)
    cluster.decision = decision_as_json(decision)
    cluster.reason, cluster.decided_at = reason, case.there
    hold(session, Order(case.means, resource, cluster, decision, None, None, reason), machines, case.now)


def _remembered(cluster: Cluster) -> tuple[State, Mapping[str, Any]]:
    """The engine's memory, and as it is stored; one that cannot be read is begun anew, which gives nothing back."""
    try:
        if cluster.state:
            return from_json(cluster.state), cluster.state
    except ValueError as error:
        log.error("cluster.state_unreadable", cluster=cluster.name, error=str(error))
    return State(), to_json(State())


def _give_up_revoked(rulebook: Rulebook, machines: Sequence[Machine]) -> None:
    """No machine lives on a revoked template, however closely its request and the revocation met."""
    for machine in machines:
        why = rulebook.revoked.get(machine.template_version_id)
        if why is not None and not machine.wanted_by_hand:
            machine.wanted, machine.wanted_by_hand, machine.reason = Wanted.GONE, True, why
            rulebook.taken.clear()


@as_part("decide")
async def _decide(session: Session, case: _Case, observation: Observation) -> Told | None:
    """Decide about one cluster and write down what follows; what is to be kept of it, where something moved."""
    seen = observation_as_json(observation)
    _note(case, observation, seen)
    cluster, rules = case.cluster, case.rulebook.of(case.cluster, case.now)
    machines = case.rulebook.machines.get(cluster.id, [])
    _give_up_revoked(case.rulebook, machines)
    if rules is None:
        case.means.instruments.decided("no_policy")
        await _give_back(session, case, machines)
        return None
    rules, ranks = await grant(session, case.rulebook, cluster, rules, case.now, apart=case.means.apart)
    granted = Granted(rules.granted, ranks)
    facts = facts_of(case.rulebook.resource, cluster, machines, granted, case.clocks, observation)
    before, known = _remembered(cluster)
    after, decision = decide(rules.policy, before, observation, facts)
    rules = name_bound(rules, decision, len(facts.machines))
    case.means.instruments.decided(decision.verdict)
    reason = _tell(case, rules, decision, _names(cluster, observation))
    decided, told = decision_as_json(decision), None
    moved = what_moved(cluster.decision, decision) if case.by_hand is None else Moved.COURSE
    if moved is not Moved.NOTHING:
        trace = carried()  # acts that follow belong to its trace
        kept = {
            "id": new_id(), "cluster_id": cluster.id, "at": decision.at, "policy_id": rules.assignment.policy_id,
            "policy_revision": rules.assignment.policy_revision, "state_before": known, "observation": seen,
            "facts": facts_as_json(facts), "decision": {**decided, **trace} if trace else decided,
            "reason": _with_hand(case, reason),
        }  # fmt: skip
        told = Told(kept, {
            "resource": case.rulebook.resource.name, "cluster": cluster.name, "rung": decision.rung.name,
            "wanted": decision.wanted, "reason": kept["reason"],
        }, moved)  # fmt: skip
        tell(decision=kept["id"], **told.said)
    cluster.state, cluster.decision = to_json(after), decided
    cluster.reason, cluster.decided_at = reason, case.there
    cluster.floor_mhz_per_vcpu = rules.policy.floor_mhz_per_vcpu
    cluster.drain_grace_s = rules.policy.ladder.drain_grace_s
    order = Order(case.means, case.rulebook.resource, cluster, decision, rules.policy, rules.template, reason)
    if await follow(session, order, machines, case.now):
        case.rulebook.taken.clear()
    return told


async def _give_back(session: Session, case: _Case, machines: Sequence[Machine]) -> None:
    """Without a policy nothing is decided, and nothing is lent."""
    cluster, no_policy = case.cluster, "no policy is assigned to this cluster or its resource"
    reason = why_draining(case.rulebook.resource, cluster, machines) or no_policy
    cluster.reason, cluster.decision = reason, None
    floor_mhz = cluster.floor_mhz_per_vcpu * sum(machine.vcpus for machine in machines)
    decision = give_everything_back(case.there, floor_mhz)
    order = Order(case.means, case.rulebook.resource, cluster, decision, None, None, reason)
    await follow(session, order, machines, case.now)


def _tell(case: _Case, rules: Rules, decision: Decision, names: Mapping[str, str]) -> str:
    """The decision's reason in words, with who and what stands behind it."""
    told = explain(decision, rules.policy, names)
    machines = case.rulebook.machines.get(case.cluster.id, [])
    why = why_draining(case.rulebook.resource, case.cluster, machines)
    if decision.reason.code is ReasonCode.DRAINING and why is not None:
        told = replace_cause(told, why)
    if not rules.why:
        return told
    if rules.is_shared and decision.reason.code is ReasonCode.QUOTA:
        return name_quota(told, rules.why)
    outweighs = decision.reason.code in (ReasonCode.DRAINING, ReasonCode.PAUSED)
    return f"{told} ({rules.why})" if outweighs else f"{rules.why}; {told}"


def _with_hand(case: _Case, reason: str) -> str:
    """The reason, led by what a person did where it does not say so itself."""
    return reason if case.by_hand is None or case.by_hand in reason else f"{case.by_hand}; {reason}"


def _names(cluster: Cluster, observation: Observation) -> dict[str, str]:
    """Display names of hosts by their references, as far as known."""
    if isinstance(observation, Sample):
        return dict(zip(observation.hosts, observation.host_names, strict=False))
    sample = cluster.sample or {}
    return dict(zip(sample.get("hosts", ()), sample.get("host_names", ()), strict=True))
