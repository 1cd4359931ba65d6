"""Leases: which replica acts on which cloud, by the database's clock."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Select, String, and_, cast, exists, func, or_, select, update

from libs.common.contracts.action import ActionLoginRefused
from libs.common.contracts.lenient import word_of
from libs.common.contracts.resource import Mode
from libs.common.db import Session, among
from libs.common.secrets import Unsealable
from libs.common.sharing import RENEW_AFTER, Sharing
from libs.providers.base import Cause, Connection, LoginRefused, ProviderError, Rejected
from services.workload.domain.standing_in import UNTRIED_FOR
from services.workload.domain.states import LIVE, MachineState, Wanted
from services.workload.models import Cluster, Machine, Replica, Resource
from services.workload.usecases.images import resources_to_look_at
from services.workload.usecases.recording import record

log = structlog.get_logger(__name__)

LEASE = timedelta(seconds=30)
"""So long nobody acts after a replica has died: limits are cut within two samples all the same."""
RENEW_BELOW = LEASE - RENEW_AFTER
"""More than the deadline of a call and the time between two beats."""
SHARING = Sharing(Replica, Resource, LEASE)
CLAIM_AT_ONCE = 100
_PLAIN: dict[str, Any] = {"execution_options": {"synchronize_session": False}}
LONGEST_PAUSE_S = 30.0
MOST_RETRY_AFTER_S = 300.0
"""A cloud that asks for longer is asked again all the same."""
FIRST_AUTH_PAUSE_S, LONGEST_AUTH_PAUSE_S = 120.0, 900.0
"""A wrong password tried too often locks the account out of its vCenter, usually at five in three minutes, and others
try it too: one try, then a long pause. A new password is tried at once."""


class LeaseLost(Exception):
    """Another replica acts on the resource now; whatever was learnt here is old."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A resource that this replica may act on, how to reach its cloud, and what of ours is there."""

    resource_id: UUID
    revision: int
    name: str
    provider: str
    mode: Mode
    force: bool
    released: bool
    connection: Connection
    clusters: tuple[str, ...]
    """The cloud's references, by name, where all is to be given back; else not read."""
    occupied: tuple[str, ...]
    """Those in which a pool or a folder of ours may be; not read while anything is lent."""
    has_machines: bool
    is_untouched: bool
    """Nothing of ours has ever been made there."""
    is_settled: bool
    """Every machine is as wanted, or waits for its time."""
    is_probed: bool
    """A machine may be made there although it only observes."""
    is_resting: bool
    """Its cloud refused or did not answer a moment ago: it is held, and not asked."""


async def take_leases(session: Session, replica: UUID, busy: Collection[UUID] = ()) -> None:
    """Renew what this replica holds, take of what is free up to its share, and hand back what is above that.

    What is `busy` is kept until it is not: a hand-over ends no act. A part of what is free is taken at a time.
    """
    clock = func.clock_timestamp()
    await SHARING.say_alive(session, replica)
    old = and_(Resource.lease_token == replica, Resource.lease_until.between(clock, clock + RENEW_BELOW))
    await _let_have(session, replica, select(Resource.id).where(old))
    share = await SHARING.look(session, replica)
    if share.held < share.takes:
        is_free = or_(Resource.lease_until.is_(None), Resource.lease_until < clock)
        some = select(Resource.id).where(is_free).limit(min(CLAIM_AT_ONCE, share.takes - share.held))
        await _let_have(session, replica, some)
    elif share.held > share.keeps:
        await _hand_back(session, replica, share.held - share.keeps, busy)


async def _let_have(session: Session, replica: UUID, due: Select[UUID]) -> None:
    there = due.where(Resource.gone.is_(False)).order_by(Resource.id)
    mine = update(Resource).where(Resource.id.in_(there.with_for_update(key_share=True, skip_locked=True)))
    await session.execute(
        mine.values(lease_token=replica, lease_until=func.clock_timestamp() + LEASE), **_PLAIN
    )


async def _hand_back(session: Session, replica: UUID, many: int, busy: Collection[UUID]) -> None:
    """First those where everything is as wanted: who takes over need not find out what is under way."""
    is_under_way = exists().where(
        Machine.resource_id == Resource.id,
        Machine.state.in_(LIVE),
        cast(Machine.state, String) != cast(Machine.wanted, String),
    )
    idle = select(Resource.id).where(Resource.lease_token == replica, Resource.id.not_in(busy))
    chosen = idle.order_by(is_under_way, Resource.id.desc()).limit(many)
    free = {"lease_token": None, "lease_until": None}
    theirs = update(Resource).where(Resource.id.in_(chosen.with_for_update(key_share=True, skip_locked=True)))
    given = (await session.execute(theirs.values(**free).returning(Resource.name), **_PLAIN)).scalars().all()
    if given:
        log.info("leases.handed_back", resources=sorted(given), surplus=many)


async def read_claims(
    session: Session, replica: UUID, installation_id: UUID, now: datetime, only: frozenset[UUID] | None = None
) -> list[Claimed]:
    """The resources that this replica holds, or those of them that are asked for."""
    held = (
        select(Resource)
        .where(Resource.lease_token == replica, Resource.lease_until > func.clock_timestamp())
        .where(Resource.gone.is_(False))
        .order_by(Resource.name)
    )
    if only is not None:
        held = held.where(among(Resource.id, only))
    resources = (await session.execute(held)).scalars().all()
    machines = await _machines_of(session, [row.id for row in resources])
    awaited = await resources_to_look_at(session, [row.id for row in resources])
    # Only who lets go of a cloud goes by its clusters, and where nothing was ever made there is nothing to let go of.
    leaving = [row.id for row in resources if _may_leave(word_of(Mode, row.mode), row.id in machines)]
    clusters = await _clusters_of(session, leaving) if leaving else {}
    return [
        Claimed(
            row.id,
            row.revision,
            row.name,
            row.provider,
            word_of(Mode, row.mode),
            row.force,
            row.released,
            _connection(row, installation_id),
            tuple(ref for ref, _ in clusters.get(row.id, ())),
            tuple(ref for ref, occupied in clusters.get(row.id, ()) if occupied),
            has_machines=machines.get(row.id, (False, True))[0],
            is_untouched=row.id not in machines
            and not any(occupied for _, occupied in clusters.get(row.id, ())),
            is_settled=machines.get(row.id, (False, True))[1],
            is_probed=row.probe_id is not None or row.id in awaited,
            is_resting=row.retry_at is not None and row.retry_at > now,
        )
        for row in resources
    ]


def _may_leave(mode: Mode, is_touched: bool) -> bool:
    return mode is Mode.DRAINING or (mode is Mode.OBSERVE and is_touched)


async def _clusters_of(session: Session, resource_ids: Sequence[UUID]) -> dict[UUID, list[tuple[str, bool]]]:
    """By resource: the clusters' references, and whether anything of ours may be in them."""
    clusters: dict[UUID, list[tuple[str, bool]]] = {}
    refs = select(Cluster.resource_id, Cluster.ref, Cluster.occupied)
    of_resources = refs.where(among(Cluster.resource_id, resource_ids)).order_by(Cluster.name, Cluster.id)
    for resource_id, ref, occupied in await session.execute(of_resources):
        clusters.setdefault(resource_id, []).append((ref, occupied))
    return clusters


async def _machines_of(session: Session, resource_ids: Sequence[UUID]) -> dict[UUID, tuple[bool, bool]]:
    """By resource that ever had machines: whether any is live, and whether all are as wanted or only wait."""
    is_live = Machine.state.in_(LIVE)
    waits = (Machine.state == MachineState.DRAINING) & (Machine.wanted == Wanted.GONE)
    waits |= Machine.state == MachineState.LOST
    is_as_wanted = (cast(Machine.state, String) == cast(Machine.wanted, String)) | waits
    made = select(Machine.resource_id, func.bool_or(is_live), func.bool_and(is_as_wanted | ~is_live))
    grouped = made.where(among(Machine.resource_id, resource_ids)).group_by(Machine.resource_id)
    return {resource_id: (live, settled) for resource_id, live, settled in await session.execute(grouped)}


def _connection(row: Resource, installation_id: UUID) -> Connection:
    return Connection(
        row.id,
        installation_id,
        row.url,
        row.username,
        row.sealed_secret,
        row.ca_pem,
        row.thumbprint,
        dict(row.settings),
        row.revision,
    )


async def release_claims(session: Session, replica: UUID) -> None:
    """Give back every lease at an orderly stop, so that another replica need not wait."""
    await session.execute(
        update(Resource).where(Resource.lease_token == replica).values(lease_token=None, lease_until=None)
    )
    await SHARING.leave(session, replica)


async def guard(session: Session, replica: UUID, resource_id: UUID, left_s: float = 0.0) -> Resource:
    """The resource's row, locked, if this replica holds its lease for so long still. Raises LeaseLost.

    Rows are locked in one order everywhere: resource, then clusters by id, then machines.
    """
    rows = (
        select(Resource)
        .where(Resource.id == resource_id, Resource.lease_token == replica)
        .where(Resource.lease_until > func.clock_timestamp() + timedelta(seconds=left_s))
        .with_for_update(key_share=True)
    )
    row = (await session.execute(rows)).scalar_one_or_none()
    if row is None:
        raise LeaseLost(str(resource_id))
    return row


_ENDPOINT = frozenset({Cause.AUTH, Cause.TLS, Cause.THROTTLED})


def is_of_endpoint(error: ProviderError) -> bool:
    """Whether a refused act speaks of the whole cloud. All others speak of one object; the next look tells more."""
    return error.cause in _ENDPOINT or error.retry_after_s is not None


def back_off(resource: Resource, error: ProviderError | Unsealable, now: datetime) -> None:
    """The cloud did not answer or refused: rest a little, and long where the password may be wrong."""
    resource.failures += 1
    if resource.failing_since is None or _was_left_alone(resource, now):
        resource.failing_since = now
    told = error if isinstance(error, ProviderError) else Rejected(Cause.INVALID, str(error))
    resource.refused_cause, resource.refused_detail = told.cause.value, told.detail[:1000]
    # A session that has just ended is no refused login: the next one may be as good as ever.
    is_refused = isinstance(error, Rejected) and error.cause is Cause.AUTH
    first_s, longest_s = (FIRST_AUTH_PAUSE_S, LONGEST_AUTH_PAUSE_S) if is_refused else (2.0, LONGEST_PAUSE_S)
    pause_s = min(longest_s, first_s * 2.0 ** min(resource.failures - 1, 10))
    told_s = error.retry_after_s if isinstance(error, ProviderError) else None
    pause_s = max(pause_s, min(told_s or 0.0, MOST_RETRY_AFTER_S))
    resource.retry_at = now + timedelta(seconds=pause_s)


def forget_failures(resource: Resource) -> None:
    """It has answered, or nobody asks it any more: nothing is held against it."""
    resource.failures, resource.retry_at = 0, None
    resource.refused_cause = resource.refused_detail = resource.failing_since = None


def _was_left_alone(resource: Resource, now: datetime) -> bool:
    """Whether nobody has tried it for long though it was time to: workload itself was away."""
    return resource.retry_at is not None and now - resource.retry_at > UNTRIED_FOR


def tell_refused(session: Session, resource: Resource, error: Exception, now: datetime) -> None:
    """Say that the resource's credential was refused, if it was: there may be another one."""
    if isinstance(error, LoginRefused):
        detail, revision = error.detail[:1000], resource.revision
        refused = ActionLoginRefused(
            at=now, resource_id=resource.id, resource_revision=revision, detail=detail
        )
        record(session, refused)
