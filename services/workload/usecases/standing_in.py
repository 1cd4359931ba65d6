"""Clouds that are away: others are told, and what their owners named stands in for them until they have come back."""

from collections.abc import Collection, Mapping
from datetime import datetime
from uuid import UUID

import structlog
from sqlalchemy import or_, select, update

from libs.common.contracts.action import ResourceDeparted, ResourceReturned
from libs.common.contracts.resource import Mode
from libs.common.db import Session, among
from services.workload.domain.standing_in import Able, Seen, Standing, choose, is_past, judge
from services.workload.domain.states import LIVE
from services.workload.models import Cluster, Machine, Resource
from services.workload.usecases.images import resources_to_look_at
from services.workload.usecases.leasing import forget_failures
from services.workload.usecases.recording import record

log = structlog.get_logger(__name__)


async def note_away(session: Session, now: datetime) -> None:
    """Judge every cloud that fails or is away, and say what has changed. Rows that others have in hand are left out."""
    fails = Resource.gone.is_(False) & Resource.failing_since.is_not(None)
    rows = select(Resource).where(or_(fails, Resource.away_since.is_not(None))).order_by(Resource.id)
    found = (await session.scalars(rows.with_for_update(key_share=True, skip_locked=True))).all()
    before = {row.id: row.away_since is not None for row in found}
    unasked = await _read_unasked(session, found)
    for row in found:
        known, seen = Standing(row.away_since, row.well_since), Seen(row.failing_since, row.retry_at)
        is_over = row.gone or (row.id in unasked and is_past(seen, now))
        after = Standing() if is_over else judge(known, seen, now)
        row.away_since, row.well_since = after.away_since, after.well_since
        if is_over:
            forget_failures(row)
    await session.flush()
    named = {row.stand_in_id for row in found if row.stand_in_id is not None}
    able = await _read_able(session, named | {row.id for row in found})
    for row in found:
        _tell(session, row, choose(row.id, able), was_away=before[row.id], now=now)


async def _read_unasked(session: Session, rows: Collection[Resource]) -> set[UUID]:
    """Those of them that only observe, with nothing of ours there: their clouds are asked nothing."""
    ids = {row.id for row in rows if row.mode == Mode.OBSERVE and row.probe_id is None and not row.gone}
    if not ids:
        return ids
    machines = select(Machine.resource_id).where(among(Machine.resource_id, ids), Machine.state.in_(LIVE))
    occupied = select(Cluster.resource_id).where(among(Cluster.resource_id, ids), Cluster.occupied.is_(True))
    asked = set((await session.scalars(machines.union(occupied))).all())
    return ids - asked - await resources_to_look_at(session, list(ids))


def _tell(
    session: Session, row: Resource, stand_in_id: UUID | None, *, was_away: bool, now: datetime
) -> None:
    is_away = row.away_since is not None
    if (was_away, row.stood_in_by) == (is_away, stand_in_id):
        return
    row.stood_in_by = stand_in_id
    about = {"at": now, "resource_id": row.id, "organisation_id": row.organisation_id}
    if not is_away:
        reason = f"{row.name} {_why_back(row)}"
        record(session, ResourceReturned(**about, reason=reason))
        log.info("resource.back", resource=row.name)
        return
    since = f"{row.failing_since:%H:%M:%S}" if row.failing_since else "a while"
    reason = f"{row.name} gives no good answer since {since} ({row.refused_cause})"
    if row.stand_in_id is not None:
        reason += "; another stands in" if stand_in_id else "; its stand-in is away itself, or not lent"
    record(session, ResourceDeparted(**about, stand_in_id=stand_in_id, reason=reason))
    log.warning("resource.away", resource=row.name, stand_in=str(stand_in_id), reason=reason)


def _why_back(row: Resource) -> str:
    if row.gone:
        return "is gone"
    if row.mode == Mode.OBSERVE:
        return "only observes, and answers or is asked nothing"
    return "answers again, and has done so for five minutes"


async def assign_stand_ins(session: Session) -> None:
    """Write down for which resources each stands in, where that is other than it was; judgements see it then."""
    away = select(Resource.id, Resource.stood_in_by).where(
        Resource.stood_in_by.is_not(None), Resource.gone.is_(False)
    )
    wanted: dict[UUID, list[str]] = {}
    for resource_id, stand_in_id in await session.execute(away.order_by(Resource.id)):
        assert stand_in_id is not None
        wanted.setdefault(stand_in_id, []).append(str(resource_id))
    standing = select(Resource.id, Resource.stands_for).where(Resource.stands_for.is_not(None))
    known = {row.id: row.stands_for for row in await session.execute(standing)}
    for resource_id in sorted(wanted.keys() | known.keys()):
        if wanted.get(resource_id) != known.get(resource_id):
            mine = update(Resource).where(Resource.id == resource_id)
            await session.execute(mine.values(stands_for=wanted.get(resource_id)))


async def _read_able(session: Session, ids: Collection[UUID]) -> Mapping[UUID, Able]:
    columns = select(
        Resource.id, Resource.organisation_id, Resource.away_since, Resource.mode, Resource.stand_in_id
    )
    rows = columns.where(among(Resource.id, ids), Resource.gone.is_(False))
    return {
        row.id: Able(row.organisation_id, row.away_since is not None, row.mode == Mode.LEND, row.stand_in_id)
        for row in await session.execute(rows)
    }
