"""What monitor keeps: who may be watched, who watches, and how far samples went out. One function, one transaction."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from libs.common.auth import Principal, Role
from libs.common.contracts.resource import (
    ClusterFacts,
    InventoryChanged,
    LoginRefused,
    ResourceChanged,
    ResourceDegraded,
    ResourceRecovered,
)
from libs.common.db import Session
from libs.common.ids import state_id
from libs.common.sharing import Sharing
from services.monitor.domain import DEGRADED_AFTER, newest_mark
from services.monitor.models import Replica, Resource

BATCH = 50
LEASE = timedelta(seconds=30)
SHARING = Sharing(Replica, Resource, LEASE)
_PLAIN: dict[str, Any] = {"execution_options": {"synchronize_session": False}}
_CLUSTERS = TypeAdapter(tuple[ClusterFacts, ...])


async def hear_resource(session: Session, event: ResourceChanged) -> None:
    """Take the newest state of a resource. One that is gone keeps its row, without what could open it."""
    row = event.model_dump(
        include={
            "revision", "gone", "organisation_id", "name", "provider", "url", "settings", "username",
            "sealed_secret", "ca_pem", "thumbprint", "interval_s",
        }
    )  # fmt: skip
    # Another password or address deserves another try at once.
    row |= {"mode": event.mode.value, "retry_at": None}
    if event.gone:
        row |= {"sealed_secret": "", "lease_token": None, "lease_until": None}
    values = insert(Resource).values(id=event.resource_id, **row)
    taken = await session.execute(
        values.on_conflict_do_update(
            index_elements=["id"],
            set_={name: values.excluded[name] for name in row},
            where=Resource.revision < values.excluded.revision,
        ).returning(Resource.id)
    )
    if event.gone and taken.first() is not None:
        await _end_inventory(session, event)


async def _end_inventory(session: Session, event: ResourceChanged) -> None:
    resource = await session.get_one(Resource, event.resource_id)
    if resource.inventory_revision > 0:
        resource.inventory = []
        resource.inventory_revision += 1
        session.emit(_inventory_changed(resource, event.at, gone=True))


@dataclass(frozen=True, slots=True)
class Lease:
    """Who holds."""

    token: UUID
    holder: str


async def hold(session: Session, lease: Lease, busy: Collection[UUID]) -> Sequence[Resource]:
    """Renew what this replica holds, give up what is beyond its share, claim what nobody holds.

    Shares are even among replicas that are known to live. What is `busy` is not given up before its round has ended.
    """
    until = func.clock_timestamp() + LEASE
    await SHARING.say_alive(session, lease.token, name=lease.holder)
    share = await SHARING.look(session, lease.token)
    renewal = update(Resource).where(Resource.lease_token == lease.token, Resource.gone.is_(False))
    held = list(
        (await session.scalars(renewal.values(lease_until=until).returning(Resource), **_PLAIN)).all()
    )
    idle = sorted((resource.id for resource in held if resource.id not in busy), reverse=True)
    surplus = idle[: max(0, len(held) - share.keeps)]
    if surplus:
        await _give_up(session, Resource.id.in_(surplus))
        return [resource for resource in held if resource.id not in surplus]
    if len(held) < share.takes:
        held += await _claim(session, lease, until, share.takes - len(held))
    return held


async def _claim(session: Session, lease: Lease, until: Any, most: int) -> Sequence[Resource]:
    free = or_(Resource.lease_token.is_(None), Resource.lease_until < func.clock_timestamp())
    due = (
        select(Resource.id)
        .where(Resource.gone.is_(False), free)
        .order_by(Resource.id)
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    claim = update(Resource).where(Resource.id.in_(due)).values(lease_token=lease.token, lease_until=until)
    claimed: Sequence[Resource] = (await session.scalars(claim.returning(Resource), **_PLAIN)).all()
    return claimed


async def let_go(session: Session, token: UUID) -> None:
    """An orderly end: others take over at once."""
    await _give_up(session, Resource.lease_token == token)
    await SHARING.leave(session, token)


async def sweep_replicas(session: Session) -> None:
    """Forget replicas that ended long ago."""
    await SHARING.forget(session)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A round whose cloud answered: what was published, and what was seen."""

    marks: Mapping[str, datetime]
    received_at: datetime
    clock_offset_s: float
    due_at: datetime
    inventory: tuple[ClusterFacts, ...] | None
    """None: not to be judged this time."""


async def settle(session: Session, token: UUID, resource_id: UUID, outcome: Outcome) -> bool:
    """Keep what a round brought, and say what changed; False, and nothing, when the lease has gone to another."""
    resource = await _guarded(session, token, resource_id)
    if resource is None:
        return False
    resource.marks = {cluster: at.isoformat() for cluster, at in outcome.marks.items()}
    cloud_now = outcome.received_at + timedelta(seconds=outcome.clock_offset_s)
    resource.sampled_at = newest_mark(outcome.marks, cloud_now)
    resource.received_at = outcome.received_at
    resource.clock_offset_s = outcome.clock_offset_s
    resource.due_at = outcome.due_at
    if resource.degraded_at is not None:
        outage = outcome.received_at - (resource.failing_since or resource.degraded_at)
        session.emit(
            ResourceRecovered(
                at=outcome.received_at,
                resource_id=resource_id,
                outage_s=max(0.0, outage.total_seconds()),
            )
        )
    resource.failures, resource.cause, resource.detail = 0, None, None
    resource.failing_since = resource.degraded_at = resource.retry_at = None
    if outcome.inventory is not None and outcome.inventory != inventory_of(resource):
        resource.inventory = _CLUSTERS.dump_python(outcome.inventory, mode="json")
        resource.inventory_revision += 1
        session.emit(_inventory_changed(resource, outcome.received_at))
    return True


@dataclass(frozen=True, slots=True)
class Failure:
    """A round without an answer."""

    cause: str
    detail: str
    at: datetime
    retry_at: datetime
    refused_revision: int | None = None
    """The revision whose user name and password were refused; None: it failed for another reason."""


async def settle_failure(session: Session, token: UUID, resource_id: UUID, failure: Failure) -> bool:
    """Count a failed round; the second in a row is said to others. False when the lease has gone to another."""
    resource = await _guarded(session, token, resource_id)
    if resource is None:
        return False
    resource.failures += 1
    resource.failing_since = resource.failing_since or failure.at
    resource.cause, resource.detail = failure.cause, failure.detail
    resource.retry_at = resource.due_at = failure.retry_at
    if failure.refused_revision is not None:
        session.emit(
            LoginRefused(
                at=failure.at,
                resource_id=resource_id,
                resource_revision=failure.refused_revision,
                detail=failure.detail,
            )
        )
    if resource.failures >= DEGRADED_AFTER and resource.degraded_at is None:
        resource.degraded_at = failure.at
        session.emit(
            ResourceDegraded(
                at=failure.at, resource_id=resource_id, cause=failure.cause, detail=failure.detail
            )
        )
    return True


def inventory_of(resource: Resource) -> tuple[ClusterFacts, ...]:
    """The clusters as they were last told."""
    return _CLUSTERS.validate_python(resource.inventory)


def marks_of(resource: Resource) -> dict[str, datetime]:
    """Per cluster the newest published interval."""
    return {cluster: datetime.fromisoformat(at) for cluster, at in resource.marks.items()}


async def read_states(session: Session, after: UUID | None) -> tuple[Sequence[InventoryChanged], UUID | None]:
    """The next few inventories as they were last told, those of gone resources too, and where to go on."""
    query = select(Resource).where(Resource.inventory_revision > 0).order_by(Resource.id).limit(BATCH)
    if after is not None:
        query = query.where(Resource.id > after)
    states = []
    for resource in await session.scalars(query):
        assert resource.received_at is not None
        states.append(_inventory_changed(resource, resource.received_at, gone=resource.gone))
    return states, states[-1].resource_id if len(states) == BATCH else None


async def list_watched(
    session: Session, who: Principal, after: UUID | None, limit: int
) -> Sequence[tuple[Resource, str | None]]:
    """Up to `limit + 1` resources with the name of who holds them, if somebody does."""
    holds = and_(Replica.token == Resource.lease_token, Resource.lease_until > func.clock_timestamp())
    query = (
        select(Resource, Replica.name)
        .outerjoin(Replica, holds)
        .where(Resource.gone.is_(False))
        .order_by(Resource.id)
        .limit(limit + 1)
    )
    if after is not None:
        query = query.where(Resource.id > after)
    if who.role is not Role.ADMIN:
        query = query.where(Resource.organisation_id == who.organisation_id)
    return [(resource, name) for resource, name in (await session.execute(query)).all()]


def _inventory_changed(resource: Resource, at: datetime, *, gone: bool = False) -> InventoryChanged:
    revision = resource.inventory_revision
    return InventoryChanged(
        id=state_id(InventoryChanged.key, str(resource.id), revision),
        at=at,
        revision=revision,
        gone=gone,
        resource_id=resource.id,
        clusters=inventory_of(resource),
    )


async def _guarded(session: Session, token: UUID, resource_id: UUID) -> Resource | None:
    """The row for a settlement, if this replica still holds it."""
    held = select(Resource).where(Resource.id == resource_id, Resource.lease_token == token)
    return await session.scalar(held.with_for_update())


async def _give_up(session: Session, which: Any) -> None:
    await session.execute(update(Resource).where(which).values(lease_token=None, lease_until=None), **_PLAIN)
