"""How far Tides may go on a resource, until its end. Every change is a new revision and an event."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from libs.common.auth import Principal
from libs.common.contracts.resource import Mode
from libs.common.db import Session
from libs.common.errors import invalid
from services.registry.models import Resource
from services.registry.usecases import probing
from services.registry.usecases.outcomes import withdraw
from services.registry.usecases.probing import Lending
from services.registry.usecases.registering import advance, announce, enter, forget, lock, refuse_deleting


@dataclass(frozen=True, slots=True)
class Wish:
    """A mode that somebody asks for."""

    mode: Mode
    force: bool = False
    """With `draining`: without waiting for machines' work."""
    probe: bool | None = None
    """With `lend`: whether one machine must reach a project first; None: as the resource says."""
    probe_lasts: timedelta = timedelta(hours=1)


async def set_mode(
    session: Session, who: Principal, resource_id: UUID, wish: Wish, now: datetime
) -> Resource:
    """Say how far Tides may go. The mode it has already is a no-op, but ends a probe. Raises 403, 404, 409."""
    resource = await lock(session, who, resource_id)
    refuse_deleting(resource)
    if resource.mode is wish.mode and resource.force == wish.force and resource.probe_id is None:
        return resource
    if wish.mode is Mode.LEND:
        return await probing.lend(session, who, resource, Lending(wish.probe, wish.probe_lasts), now)
    withdraw(resource, f"{who.name} asked for mode {wish.mode.value}", now)
    if wish.mode is Mode.DRAINING:
        _drain(session, resource, wish.force, now)
    else:
        enter(session, resource, wish.mode, now)
    return resource


async def remove(session: Session, who: Principal, resource_id: UUID, force: bool, now: datetime) -> Resource:
    """Begin the end: drain, and forget when nothing of ours is left. A repeat is a no-op, or adds force."""
    resource = await lock(session, who, resource_id)
    if resource.released_at is not None:
        # Drained before, and draining ever since: nothing can have come into being.
        resource.deleting = True
        await forget(session, resource, now)
        return resource
    if resource.deleting and (resource.force or not force):
        return resource
    resource.deleting = True
    withdraw(resource, f"{who.name} removed the resource", now)
    _drain(session, resource, force or resource.force, now)
    return resource


def check_wish(wish: Wish) -> None:
    """Raise 422 for force without draining, and a probe without lending."""
    if wish.force and wish.mode is not Mode.DRAINING:
        raise invalid("force", "Only draining can be forced.", "Leave `force` out, or ask for `draining`.")
    if wish.probe is not None and wish.mode is not Mode.LEND:
        raise invalid("probe", "Only lending is probed.", "Leave `probe` out, or ask for `lend`.")


def _drain(session: Session, resource: Resource, force: bool, now: datetime) -> None:
    resource.mode, resource.force, resource.released_at = Mode.DRAINING, force, None
    resource.forced_at = (resource.forced_at or now) if force else None
    advance(resource, now)
    resource.draining_revision = resource.draining_revision or resource.revision
    announce(session, resource)
