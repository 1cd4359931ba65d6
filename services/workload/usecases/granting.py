"""Granting: what quotas of an organisation and of its projects, which span its clusters, leave to one of them.

Who grants holds the organisation's lock until its transaction ends, so that two clusters never get the same room.
Clusters are locked first, an organisation after them. An owner never waits for a quota: who does not get the lock soon
judges all the same, and makes nothing new.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import String, cast, false, func, or_, select
from sqlalchemy.exc import DBAPIError

from libs.common.contracts.supply import UNHEARD
from libs.common.db import Session
from libs.harvest.allotment import Asking, is_trivial
from libs.harvest.types import Decision, Rung, Verdict
from services.workload.domain.quotas import (
    Bound,
    Demand,
    Held,
    Place,
    Size,
    bound_by_organisation,
    bound_by_projects,
    count,
    share_out,
)
from services.workload.domain.states import COUNTED, LIVE
from services.workload.models import Cluster, Contribution, Machine, Resource
from services.workload.usecases.rules import Rulebook, Rules, Taken

log = structlog.get_logger(__name__)

WAITS_FOR = "2s"
"""For an organisation's lock, in PostgreSQL's words."""
_LOCK_NOT_AVAILABLE = "55P03"
_CONTESTED = "contested"
"""Of a transaction: organisations whose lock was waited for in vain."""


class Grant(NamedTuple):
    """The rules of a cluster within all quotas, and the priority of whom each machine works for."""

    rules: Rules
    priorities: Mapping[UUID, int]
    """Empty where every machine works for every project."""


async def grant(
    session: Session, rulebook: Rulebook, cluster: Cluster, rules: Rules, now: datetime, *, apart: bool
) -> Grant:
    """What a cluster may have of all that is shared. `apart`: each machine can be told its projects by itself.

    The organisation's machines are read, ranked and given to projects once for the clusters of a rulebook, while nobody
    else can add any.
    """
    demands = [_demand(row, rulebook.stand_ins) for row in rulebook.contributions]
    shares_out = not is_trivial([demand.asking for demand in demands])
    if not rulebook.quotas and not shares_out:
        return Grant(rules, {})
    if not any(taken.is_ours for taken in rulebook.taken):
        is_ours = await _lock(session, rulebook)
        held, returning = await _read_held(session, rulebook.resource, now)
        working = share_out(demands, held, apart=apart) if shares_out else None
        priorities = working.priorities if working else {}
        counted = count(rulebook.quotas, held, priorities, rulebook.longest_life_s, returning)
        rulebook.taken[:] = [Taken(is_ours, held, working, counted)]
    [taken] = rulebook.taken
    place = _place(cluster, rules)
    bounds = [
        bound_by_organisation(rulebook.quotas, taken.counted, place) if taken.counted else None,
        bound_by_projects(demands, taken.working, place, apart=apart) if taken.working else None,
        None if taken.is_ours else _nothing_new(taken.held, cluster),
    ]
    return Grant(_within(rules, [bound for bound in bounds if bound is not None]), taken.priorities)


def _within(rules: Rules, bounds: Sequence[Bound]) -> Rules:
    """The rules with the tightest bound of all; what has room left says nothing."""
    for bound in bounds:
        if rules.granted is None or bound.machines < rules.granted:
            why, is_shared = bound.why or rules.why, bool(bound.why) or rules.is_shared
            rules = replace(rules, granted=bound.machines, why=why, is_shared=is_shared)
    return rules


def name_bound(rules: Rules, decision: Decision, there: int) -> Rules:
    """The rules without the words about a shared quota where it is not what binds: a busy owner has the word."""
    calm = decision.rung is Rung.LEND and decision.verdict in (Verdict.IDLE, Verdict.NORMAL)
    binds = calm or (rules.granted is not None and rules.granted < there)
    return replace(rules, why="") if rules.is_shared and not binds else rules


def _demand(row: Contribution, stand_ins: Mapping[UUID, UUID]) -> Demand:
    resources = None if row.resource_ids is None else frozenset(map(UUID, row.resource_ids))
    if resources is not None and stand_ins:
        resources |= {stand_ins[one] for one in resources & stand_ins.keys()}
    asking = Asking(row.id, row.priority, row.most_machines, row.most_vcpus, resources)
    return Demand(row.project_name, asking)


def _place(cluster: Cluster, rules: Rules) -> Place:
    size, template = rules.policy.machine, rules.template
    disk_gib = max(size.disk_gib, template.disk_gib if template else 0.0)
    made = Size(size.vcpus, size.memory_mib, disk_gib)
    return Place(cluster.id, cluster.resource_id, made, rules.policy.max_machines)


def _nothing_new(held: Sequence[Held], cluster: Cluster) -> Bound:
    mine = sum(one.stays and one.cluster_id == cluster.id for one in held)
    return Bound(mine, "another cluster of the organisation has its quotas in hand")


async def _lock(session: Session, rulebook: Rulebook) -> bool:
    """Whether the lock is ours until the transaction ends. It is waited for once in a transaction, and not for long."""
    organisation_id, contested = rulebook.resource.organisation_id, session.info.setdefault(_CONTESTED, set())
    name = func.hashtextextended(cast(f"quota/{organisation_id}", String), 0)
    if await session.scalar(select(func.pg_try_advisory_xact_lock(name))):
        return True
    if organisation_id in contested:
        return False
    usual = await session.scalar(select(func.current_setting("lock_timeout")))
    try:
        async with session.savepoint():
            await session.execute(select(func.set_config("lock_timeout", WAITS_FOR, True)))
            await session.execute(select(func.pg_advisory_xact_lock(name)))
            await session.execute(select(func.set_config("lock_timeout", usual, True)))
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        contested.add(organisation_id)
        log.warning("quota.contested", organisation=str(organisation_id))
        return False
    return True


async def _read_held(session: Session, asks: Resource, now: datetime) -> tuple[list[Held], list[Held]]:
    """Every machine of the organisation that takes anything, as it is now that the lock is held; then those returning.

    Machines on a cloud that is away take nothing of what others may have, unless their guests are heard of; once it
    answers again nothing new is made in their place. For that cloud itself they count: when it is back, no more of all
    of them may stay than the quota allows.
    """
    resources = select(Resource.id).where(Resource.organisation_id == asks.organisation_id)
    away = resources.where(Resource.away_since.is_not(None))
    is_heard = func.coalesce(Machine.health.not_in(UNHEARD), false())
    is_out = ~is_heard & Machine.resource_id.in_(away) if asks.away_since is None else false()
    rows = select(
        Machine.id, Machine.cluster_id, Machine.resource_id, Machine.vcpus, Machine.memory_mib,
        Machine.disk_gib, Machine.state, Machine.wanted_by_hand, Machine.created_at, Machine.running_since,
        is_out.label("is_out"),
    ).where(Machine.resource_id.in_(resources), Machine.state.in_(LIVE), Machine.derivation_id.is_(None))  # fmt: skip
    answers = resources.where(Resource.well_since.is_not(None))
    found = (await session.execute(rows.where(or_(~is_out, Machine.resource_id.in_(answers))))).all()
    return [_held(row, now) for row in found if not row.is_out], [
        _held(row, now) for row in found if row.is_out
    ]


def _held(row: Any, now: datetime) -> Held:
    return Held(
        id=row.id,
        cluster_id=row.cluster_id,
        resource_id=row.resource_id,
        vcpus=row.vcpus,
        memory_mib=row.memory_mib,
        disk_gib=row.disk_gib,
        stays=row.state in COUNTED and not row.wanted_by_hand,
        age_s=(now - row.created_at).total_seconds(),
        progress_s=(now - row.running_since).total_seconds() if row.running_since else 0.0,
    )
