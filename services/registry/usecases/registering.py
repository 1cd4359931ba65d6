"""What people do with resources. Every change of what others are told is a new revision and an event."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import or_, select, update
from sqlalchemy.exc import IntegrityError

from libs.common.auth import Principal, Role
from libs.common.contracts.resource import Mode, ResourceChanged
from libs.common.db import Session
from libs.common.errors import Problem, conflict, invalid, not_found
from libs.common.ids import new_id, state_id
from services.registry.domain import Credential, Endpoint, Health, Seen, name_key
from services.registry.models import GoneResource, Resource
from services.registry.usecases.credentials import (
    endpoint_in_use,
    forget_refusal,
    is_other_login,
    set_alternate,
)
from services.registry.usecases.outcomes import told, withdraw


async def register(
    session: Session,
    who: Principal,
    about: dict[str, Any],
    endpoint: Endpoint,
    seen: Seen | None,
    now: datetime,
) -> Resource:
    """Keep a new resource, in mode `observe`. `about` is name and interval_s. Raises 409 for a known cloud or name."""
    await refuse_same_name(session, who.organisation_id, about["name"])
    resource = Resource(
        id=new_id(), organisation_id=who.organisation_id, revision=1, mode=Mode.OBSERVE, force=False,
        deleting=False, health=Health.UNKNOWN, capabilities=[], inventory=[], inventory_revision=0,
        created_at=now, updated_at=now, name_key=name_key(about["name"]), **about,
    )  # fmt: skip
    _point(resource, endpoint)
    if seen is not None:
        _take(resource, seen)
    session.add(resource)
    await _flush_unique(session)
    announce(session, resource)
    return resource


async def refuse_duplicate(
    session: Session, who: Principal, identity: str, instance_identity: str | None, but: UUID | None = None
) -> None:
    """Raise 409 when this cloud and scope are registered already, under whatever address."""
    same = [Resource.identity == identity]
    if instance_identity is not None:
        same.append(Resource.instance_identity == instance_identity)
    known = await session.scalar(
        select(Resource).where(or_(*same), Resource.id != (but or UUID(int=0))).limit(1)
    )
    if known is None:
        return
    detail = "This cloud and scope are registered already."
    if _may_see(who, known):
        detail = f"This cloud and scope are registered already, as resource {known.id}."
    raise _taken(detail)


async def refuse_same_name(
    session: Session, organisation_id: UUID, name: str, but: UUID | None = None
) -> None:
    """Raise 409 when another resource of the organisation bears this name.

    Names are compared, and keys that are another name's are taken away: an older process renames without them.
    """
    others = select(Resource.id, Resource.name, Resource.name_key).where(
        Resource.organisation_id == organisation_id, Resource.id != (but or UUID(int=0))
    )
    known = (await session.execute(others.order_by(Resource.id))).all()
    if any(name_key(other.name) == name_key(name) for other in known):
        raise _same_name()
    stale = [other.id for other in known if other.name_key not in (None, name_key(other.name))]
    if stale:
        await session.execute(update(Resource).where(Resource.id.in_(stale)).values(name_key=None))


async def find(session: Session, who: Principal, resource_id: UUID) -> Resource:
    """One resource of the caller's organisation; an admin sees all. Raises 404."""
    return _visible(who, await session.get(Resource, resource_id))


async def list_page(
    session: Session, who: Principal, after: UUID | None, limit: int, wanted: dict[str, Any]
) -> Sequence[Resource]:
    """Up to `limit + 1` resources in the order of their registration. `wanted` may hold name and mode."""
    query = select(Resource).order_by(Resource.id).limit(limit + 1).filter_by(**wanted)
    if after is not None:
        query = query.where(Resource.id > after)
    if who.role is not Role.ADMIN:
        query = query.where(Resource.organisation_id == who.organisation_id)
    return (await session.scalars(query)).all()


@dataclass(frozen=True, slots=True)
class Change:
    """What is to change; None and what is left out stay."""

    about: dict[str, Any]
    endpoint: Endpoint | None
    seen: Seen | None
    sets_alternate: bool = False
    alternate: Credential | None = None
    """Counts only with `sets_alternate`; None then takes it away."""


async def change(
    session: Session, who: Principal, known: tuple[UUID, int], wanted: Change, now: datetime
) -> Resource:
    """Change a resource that still has the known (id, revision). Raises 404, 409, 412."""
    resource = await lock(session, who, known[0])
    if resource.revision != known[1]:
        raise Problem(
            412, "It has changed since you read it.", remedy="Read it again and repeat your change."
        )
    refuse_deleting(resource)
    if wanted.about.get("stand_in_id") is not None:
        await _refuse_stand_in(session, resource, wanted.about["stand_in_id"])
    name = wanted.about.get("name", resource.name)
    if name_key(name) != name_key(resource.name):
        await refuse_same_name(session, resource.organisation_id, name, resource.id)
        resource.name_key = name_key(name)
    for field, value in wanted.about.items():
        setattr(resource, field, value)
    if wanted.endpoint is not None and wanted.endpoint.identity != resource.identity:
        # What was seen at another address is no fact of this one.
        resource.instance_identity, resource.validation, resource.capabilities = None, None, []
        resource.activated_at = None
        withdraw(resource, "the resource is another cloud now", now)
    before = endpoint_in_use(resource)
    _use(resource, wanted)
    if wanted.seen is not None:
        _take(resource, wanted.seen)
    advance(resource, now)
    if is_other_login(before, endpoint_in_use(resource)):
        resource.credential_revision = resource.revision
    await _flush_unique(session)
    announce(session, resource)
    return resource


async def keep_validation(session: Session, known: tuple[UUID, int], seen: Seen) -> Resource:
    """Remember what a validation of the known (id, revision) found. Raises 409, also when it has changed meanwhile."""
    resource = await session.get(Resource, known[0], with_for_update=True)
    if resource is None or resource.revision != known[1]:
        raise conflict("The resource has changed while its cloud was asked.", "Validate it again.")
    _take(resource, seen)
    await _flush_unique(session)
    return resource


async def keep_failed_validation(
    session: Session, known: tuple[UUID, int], validation: dict[str, Any]
) -> None:
    """Remember that, and why, a validation of this revision failed; facts found earlier give way."""
    resource = await session.get(Resource, known[0], with_for_update=True)
    if resource is not None and resource.revision == known[1]:
        resource.validation = validation


async def clear_alarm(session: Session, who: Principal, resource_id: UUID) -> Resource:
    """A person has seen the sweeper's alarm."""
    resource = await lock(session, who, resource_id)
    resource.alarm = None
    return resource


async def forget(session: Session, resource: Resource, now: datetime, *, abandoned: str = "") -> None:
    """Delete the row, say that the resource is gone, and remember what was said."""
    advance(resource, now)
    last = state_of(resource, gone=True, abandoned=abandoned)
    session.emit(last)
    session.add(GoneResource(id=resource.id, state=last.model_dump(mode="json")))
    await session.delete(resource)


async def lock(session: Session, who: Principal, resource_id: UUID) -> Resource:
    """The row for a change. Raises 404."""
    return _visible(who, await session.get(Resource, resource_id, with_for_update=True))


def refuse_deleting(resource: Resource) -> None:
    """Raise 409 while the resource is being deleted."""
    if resource.deleting:
        raise conflict("The resource is being deleted.", "Wait until it is gone, then register it again.")


def enter(session: Session, resource: Resource, mode: Mode, now: datetime) -> None:
    """Go into a mode in which nothing is to be given up, whatever was being given up before; others are told."""
    resource.mode, resource.force, resource.forced_at = mode, False, None
    resource.released_at, resource.draining_revision = None, None
    advance(resource, now)
    announce(session, resource)


def advance(resource: Resource, now: datetime) -> None:
    """A new revision: others will be told."""
    resource.revision += 1
    resource.updated_at = now


def announce(session: Session, resource: Resource) -> None:
    """Tell the state of this revision."""
    session.emit(state_of(resource))


def state_of(resource: Resource, *, gone: bool = False, abandoned: str = "") -> ResourceChanged:
    """What others are told of this revision; telling it again is the same message."""
    in_use = endpoint_in_use(resource)
    return ResourceChanged(
        id=state_id(ResourceChanged.key, str(resource.id), resource.revision),
        at=resource.updated_at,
        revision=resource.revision,
        gone=gone,
        resource_id=resource.id,
        organisation_id=resource.organisation_id,
        name=resource.name,
        provider=resource.provider,
        url=resource.url,
        settings=resource.settings,
        username=in_use.username,
        sealed_secret="" if gone else in_use.sealed_secret,
        uses_alternate=resource.alternate_since is not None,
        ca_pem=resource.ca_pem,
        thumbprint=resource.thumbprint,
        mode=resource.mode,
        force=resource.force,
        abandoned=abandoned,
        interval_s=resource.interval_s,
        site=resource.site or "",
        stand_in_id=None if gone else resource.stand_in_id,
        probe_id=None if gone else resource.probe_id,
        probe_until=None if gone else resource.probe_until,
        probe_outcome=told(resource),
    )


async def _refuse_stand_in(session: Session, resource: Resource, stand_in_id: UUID) -> None:
    """Raise 422 for a stand-in that could not be one: itself, or none of the same organisation."""
    other = await session.get(Resource, stand_in_id)
    if stand_in_id == resource.id:
        raise invalid("stand_in_id", "A resource cannot stand in for itself.", "Name another one.")
    if other is None or other.organisation_id != resource.organisation_id or other.deleting:
        raise invalid(
            "stand_in_id",
            "There is no such resource in the organisation.",
            "Name one that is registered and not being removed.",
        )


def _use(resource: Resource, wanted: Change) -> None:
    """Take the credentials that were given; a first one that is another deserves to be tried at once."""
    if wanted.endpoint is not None:
        if is_other_login(resource, wanted.endpoint):
            forget_refusal(resource)
        _point(resource, wanted.endpoint)
    if wanted.sets_alternate:
        set_alternate(resource, wanted.alternate)


def _point(resource: Resource, endpoint: Endpoint) -> None:
    resource.provider, resource.url, resource.identity = endpoint.provider, endpoint.url, endpoint.identity
    resource.username, resource.sealed_secret = endpoint.username, endpoint.sealed_secret
    resource.ca_pem, resource.thumbprint = endpoint.ca_pem, endpoint.thumbprint
    resource.settings = endpoint.settings


def _take(resource: Resource, seen: Seen) -> None:
    resource.instance_identity = seen.instance_identity
    resource.validation = seen.validation
    resource.capabilities = seen.capabilities


def _visible(who: Principal, resource: Resource | None) -> Resource:
    if resource is None or not _may_see(who, resource):
        raise not_found("resource")
    return resource


def _may_see(who: Principal, resource: Resource) -> bool:
    return who.role is Role.ADMIN or who.organisation_id == resource.organisation_id


def _taken(detail: str) -> Problem:
    return conflict(detail, "Change that resource, or give another scope in `settings`.", field="url")


def _same_name() -> Problem:
    return conflict(
        "Another resource of this organisation bears this name.",
        "Choose another name, or rename that resource first.",
        field="name",
    )


async def _flush_unique(session: Session) -> None:
    try:
        await session.flush()
    except IntegrityError as error:
        if "uq_resource_name" in str(error.orig):
            raise _same_name() from None
        raise _taken("This cloud and scope are registered already.") from None
