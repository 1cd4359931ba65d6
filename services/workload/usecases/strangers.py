"""Strangers: machines with our mark that no row stands for. What a person is shown of them, and what they allow."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import structlog
from sqlalchemy import func, or_, select

from libs.common.contracts.action import SweepAllowed
from libs.common.db import Session
from libs.common.errors import invalid, not_found
from services.workload.domain.states import LIVE
from services.workload.models import Machine, Orphan, Resource
from services.workload.usecases.following import Means
from services.workload.usecases.operating import NO_KEY, Person
from services.workload.usecases.recording import record
from services.workload.usecases.sweeping import must_wait

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sweep:
    """What the sweeper found on one resource."""

    resource: Resource
    known: int
    """Machines that rows stand for."""
    strangers: Sequence[tuple[Orphan, str | None]]
    """By name; with what an earlier row says of it, where there is one that may be shown."""

    @property
    def since(self) -> datetime | None:
        """When the first of them was first seen."""
        return min((orphan.seen_at for orphan, _ in self.strangers), default=None)


async def list_sweeps(
    session: Session, organisation_id: UUID | None, after: UUID | None, limit: int
) -> list[Sweep]:
    """Resources with strangers, or whose sweeper waits, by id; up to `limit + 1`."""
    has = select(Orphan.name).where(Orphan.resource_id == Resource.id).exists()
    rows = select(Resource).where(Resource.gone.is_(False), or_(Resource.sweep_stopped.is_not(None), has))
    if organisation_id is not None:
        rows = rows.where(Resource.organisation_id == organisation_id)
    if after is not None:
        rows = rows.where(Resource.id > after)
    found = (await session.scalars(rows.order_by(Resource.id).limit(limit + 1))).all()
    return [await _sweep_of(session, resource, organisation_id) for resource in found]


async def read_sweep(session: Session, organisation_id: UUID | None, resource_id: UUID) -> Sweep:
    """What was found on one resource. Raises 404."""
    resource = await session.get(Resource, resource_id)
    if resource is None or resource.gone or organisation_id not in (None, resource.organisation_id):
        raise not_found("resource")
    return await _sweep_of(session, resource, organisation_id)


async def allow_strangers(
    means: Means, session: Session, resource_id: UUID, person: Person, names: Sequence[str]
) -> list[str]:
    """A person looked: the strangers of these names, and no others, are destroyed. Raises 404, 422.

    The sweeper waits on where those that are left are too many by themselves, or may be younger than a backup.
    """
    resource = await session.get(Resource, resource_id, with_for_update=NO_KEY)
    if resource is None or resource.gone:
        raise not_found("resource")
    sweep = await _sweep_of(session, resource, None)
    known = {orphan.name: orphan for orphan, _ in sweep.strangers}
    unknown = len(set(names) - known.keys())
    if unknown:
        raise invalid(
            "names",
            f"{unknown} of the names are no strangers on this resource; nothing was allowed.",
            f"Take names from /v1/sweeps/{resource_id}.",
        )
    allowed = sorted(set(names))
    for name in allowed:
        known[name].allowed, known[name].allowed_by = True, person.name
    left = sum(not orphan.allowed for orphan in known.values())
    if not must_wait(resource, left, sweep.known):
        resource.sweep_stopped = None
    log.warning("sweep.allowed", resource=resource.name, by=person.name, strangers=allowed, left=left)
    said = SweepAllowed(
        at=means.clock.now(), resource_id=resource.id, actor=person.name, reason=person.reason,
        machines=tuple(allowed),
    )  # fmt: skip
    record(session, said)
    return allowed


async def _sweep_of(session: Session, resource: Resource, organisation_id: UUID | None) -> Sweep:
    """`organisation_id`: whose past may be told (None: everybody's); a cloud may have been another's before."""
    lives = (Machine.resource_id == resource.id) & Machine.state.in_(LIVE)
    known = await session.scalar(select(func.count()).where(lives))
    past = Machine.name == Orphan.name
    if organisation_id is not None:
        past &= Machine.organisation_id == organisation_id
    rows = (
        select(Orphan, Machine.reason)
        .outerjoin(Machine, past)
        .where(Orphan.resource_id == resource.id)
        .order_by(Orphan.name)
    )
    found = [(orphan, reason) for orphan, reason in await session.execute(rows)]
    return Sweep(resource, known or 0, found)
