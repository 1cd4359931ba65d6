"""Reports, from rolled-up hours and, for hours that are not, from their samples: always the same figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, func, select, text

from libs.common.auth import Principal, Role
from libs.common.contracts.action import LimitsApplied, MachineDeployed, MachineDestroyed
from libs.common.db import Session
from libs.common.errors import not_found
from services.stats.domain.samples import MEASURES
from services.stats.models import action_event, cluster, refusal, resource
from services.stats.usecases.figures import CLUSTER_FIGURES, NOBODY, ORGANISATION_FIGURES
from services.stats.usecases.rolling import sum_of_hosts

RAW_FOR = timedelta(days=7)
_CHOSEN = """
    chosen as (
        select cluster_id, hour from dirty_hour
        where hour >= :since and hour < :until and (:everything or cluster_id = any(cast(:ids as uuid[])))
    )
"""
_ROLLED = """
    r.hour >= :since and r.hour < :until and (:everything or r.cluster_id = any(cast(:ids as uuid[])))
    and not exists (select from dirty_hour d where d.cluster_id = r.cluster_id and d.hour = r.hour)
"""
_BY_CLUSTER = text(f"""
    with {_CHOSEN}, {CLUSTER_FIGURES},
    every as (
        select cluster_id, samples, core_s, lent_s, contended_s from figures
        union all
        select cluster_id, samples, core_s, lent_s, contended_s from cluster_hour r where {_ROLLED}
    )
    select e.cluster_id, c.name, sum(samples) as samples, sum(core_s) as core_s, sum(lent_s) as lent_s,
        sum(contended_s) as contended_s
    from every e left join cluster c on c.id = e.cluster_id
    group by e.cluster_id, c.name order by c.name, e.cluster_id
""")
_BY_ORGANISATION = text(f"""
    with {_CHOSEN}, {ORGANISATION_FIGURES},
    every as (
        select organisation_id, core_s from figures
        union all
        select organisation_id, core_s from organisation_hour r where {_ROLLED}
    )
    select organisation_id, sum(core_s) as core_s from every group by organisation_id order by organisation_id
""")


class By(StrEnum):
    """What core-hours are added up by."""

    CLUSTER = "cluster"
    ORGANISATION = "organisation"


@dataclass(frozen=True, slots=True)
class Span:
    """From then until then, in whole hours where figures come by the hour."""

    since: datetime
    until: datetime

    def in_hours(self) -> "Span":
        """Rounded outwards to full hours."""
        until = self.until.replace(minute=0, second=0, microsecond=0)
        return Span(
            self.since.replace(minute=0, second=0, microsecond=0),
            until if until == self.until else until + timedelta(hours=1),
        )


@dataclass(frozen=True, slots=True)
class Figures:
    """What a cluster's samples add up to."""

    cluster_id: UUID
    name: str
    samples: int
    core_h: float
    lent_h: float
    contended_h: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything added up."""

    samples: int
    core_hours: float
    contention_percent: float
    deploys: int
    destroys: int
    limit_changes: int
    events: int
    refused: int


async def figures_by_cluster(session: Session, who: Principal, span: Span) -> list[Figures]:
    """What each cluster that the caller may see adds up to."""
    rows = await session.execute(_BY_CLUSTER, await _bounds(session, who, span))
    return [
        Figures(
            row.cluster_id,
            row.name or "",
            int(row.samples),
            row.core_s / 3600,
            row.lent_s / 3600,
            row.contended_s / 3600,
        )
        for row in rows
    ]


async def core_hours_by_organisation(
    session: Session, who: Principal, span: Span
) -> dict[UUID | None, float]:
    """Core-hours by the organisation whose machines ran; None: no machine was known at the time."""
    rows = await session.execute(_BY_ORGANISATION, await _bounds(session, who, span))
    nobody = UUID(NOBODY)
    found = {
        None if row.organisation_id == nobody else row.organisation_id: row.core_s / 3600 for row in rows
    }
    if who.role is Role.ADMIN:
        return found
    return {key: value for key, value in found.items() if key in (None, who.organisation_id)}


async def summarise(session: Session, who: Principal, span: Span) -> Summary:
    """Samples, core-hours, contention and acts of a span, from stored rows alone."""
    figures = await figures_by_cluster(session, who, span)
    lent_h = sum(row.lent_h for row in figures)
    contended_h = sum(row.contended_h for row in figures)
    query = (
        select(action_event.c.key, func.count(), func.sum(action_event.c.changes))
        .where(action_event.c.at >= span.since, action_event.c.at < span.until)
        .group_by(action_event.c.key)
    )
    refused = select(func.coalesce(func.sum(refusal.c.count), 0))
    if who.role is not Role.ADMIN:
        own = select(resource.c.id).where(resource.c.organisation_id == who.organisation_id)
        query = query.where(action_event.c.resource_id.in_(own))
        refused = refused.where(refusal.c.resource_id.in_(own))
    acts = {key: (count, changes) for key, count, changes in (await session.execute(query)).all()}
    return Summary(
        samples=sum(row.samples for row in figures),
        core_hours=sum(row.core_h for row in figures),
        contention_percent=100 * contended_h / lent_h if lent_h else 0.0,
        deploys=acts.get(MachineDeployed.key, (0, 0))[0],
        destroys=acts.get(MachineDestroyed.key, (0, 0))[0],
        limit_changes=int(acts.get(LimitsApplied.key, (0, 0))[1]),
        events=sum(count for count, _ in acts.values()),
        refused=int(await session.scalar(refused) or 0),
    )


async def usage(
    session: Session, cluster_id: UUID, host: str | None, span: Span, step_s: int, now: datetime
) -> list[Mapping[str, Any]]:
    """Means and maxima per step, of one host or of the whole cluster; five-minute values where samples have gone."""
    raw_from = (now - RAW_FOR).replace(minute=0, second=0, microsecond=0)
    bounds = {
        "cluster_id": cluster_id,
        "host": host or "",
        "since": span.since,
        "until": span.until,
        "raw_since": max(span.since, raw_from),
        "step": timedelta(seconds=step_s),
    }
    rows = (await session.execute(_USAGE_OF_HOST if host else _USAGE_OF_CLUSTER, bounds)).mappings()
    return [dict(row) for row in rows]


async def insist_on_cluster(session: Session, who: Principal, cluster_id: UUID) -> None:
    """Raises 404 for a cluster that is unknown or another organisation's."""
    query = (
        select(resource.c.organisation_id)
        .select_from(cluster.outerjoin(resource, resource.c.id == cluster.c.resource_id))
        .where(cluster.c.id == cluster_id)
    )
    row = (await session.execute(query)).first()
    if row is None or (who.role is not Role.ADMIN and row.organisation_id != who.organisation_id):
        raise not_found("cluster")


async def _bounds(session: Session, who: Principal, span: Span) -> dict[str, Any]:
    hours = span.in_hours()
    ids: list[UUID] = []
    if who.role is not Role.ADMIN:
        own = select(cluster.c.id).join(resource, resource.c.id == cluster.c.resource_id)
        ids = list(await session.scalars(own.where(resource.c.organisation_id == who.organisation_id)))
    return {"since": hours.since, "until": hours.until, "ids": ids, "everything": who.role is Role.ADMIN}


def _usage(raw: str) -> TextClause:
    columns = ", ".join(f"{name}_mean, {name}_max" for name in MEASURES)
    live = ", ".join(f"{name} as {name}_mean, {name} as {name}_max" for name in MEASURES)
    folded = ", ".join(
        f"sum({name}_mean * samples) / sum(samples) filter (where {name}_mean is not null) as {name}_mean, "
        f"max({name}_max) as {name}_max"
        for name in MEASURES
    )
    return text(f"""
        with raw as ({raw}),
        every as (
            select at - interval '1 microsecond' as at, 1 as samples, {live} from raw
            union all
            select at, samples, {columns} from five_minutes
            where cluster_id = :cluster_id and host = :host and at >= :since and at < :until and at < :raw_since
        )
        select date_bin(:step, at, :since) as at, sum(samples) as samples, {folded}
        from every group by 1 order by 1
    """)


_RAW = "from host_sample where cluster_id = :cluster_id and at > :raw_since and at <= :until"
_USAGE_OF_HOST = _usage(f"select at, {', '.join(MEASURES)} {_RAW} and host = :host")
_USAGE_OF_CLUSTER = _usage(
    f"select at, {', '.join(sum_of_hosts(name) for name in MEASURES)} {_RAW} group by at"
)
