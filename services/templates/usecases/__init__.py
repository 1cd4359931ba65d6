"""What can be done with templates: one function, one transaction; `look_up` alone has none."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from libs.boinc.image import Component
from libs.common.auth import Principal, Role
from libs.common.contracts.resource import ResourceChanged
from libs.common.contracts.supply import TemplateChanged, TemplateState
from libs.common.db import Session
from libs.common.errors import conflict, invalid, not_found
from libs.common.ids import new_id, state_id
from libs.providers.base import Cause, Connection, ProviderError, TemplateSeen, Unavailable
from libs.providers.sessions import Sessions, is_spent
from services.templates.domain import Verb, follow
from services.templates.models import KnownResource, Template, Version

LOOK_WITHIN_S = 20
BATCH = 100
_KNOWN = (
    "organisation_id",
    "provider",
    "url",
    "settings",
    "username",
    "sealed_secret",
    "ca_pem",
    "thumbprint",
)


@dataclass(frozen=True, slots=True)
class Target:
    """Where to look: a driver and how to reach the resource."""

    provider: str
    connection: Connection


@dataclass(frozen=True, slots=True)
class Origin:
    """The version that another one was derived from, as it is now."""

    version_id: UUID
    name: str
    version: int
    state: TemplateState


@dataclass(frozen=True, slots=True)
class Look:
    """Versions of one resource that are to be looked for."""

    target: Target
    references: dict[UUID, str]


async def look_up(sessions: Sessions, target: Target, reference: str) -> TemplateSeen | None:
    """What the cloud has under this name or reference, within 20 s. Raises ProviderError, UnknownDriver."""
    try:
        async with asyncio.timeout(LOOK_WITHIN_S):
            provider = await sessions.get(target.provider, target.connection)
            return await provider.find_template(reference)
    except TimeoutError:
        raise Unavailable(Cause.TIMEOUT, f"no answer within {LOOK_WITHIN_S} s") from None
    except ProviderError as error:
        if is_spent(error):
            await sessions.drop(target.connection.resource_id)
        raise


async def target_of(session: Session, who: Principal, resource_id: UUID, installation_id: UUID) -> Target:
    """How to reach a resource of the caller's organisation. Raises 422 for an unknown one."""
    known = await session.get(KnownResource, resource_id)
    if known is None or known.gone or not _may_see(who, known.organisation_id):
        raise invalid("resource_id", "No resource with this id is known.", "Register the resource first.")
    return _target(known, installation_id)


@dataclass(frozen=True, slots=True)
class Image:
    """An image as it was found and as it was described."""

    seen: TemplateSeen
    disk_gib: float
    derived_from: UUID | None = None
    components: Sequence[Component] = ()


async def register(
    session: Session, resource_id: UUID, name: str, image: Image, now: datetime
) -> tuple[Template, Version]:
    """Keep a template found in a resource as version 1, a draft. Raises 409 when the name is taken there."""
    known = await session.get_one(KnownResource, resource_id)
    template = Template(
        id=new_id(),
        organisation_id=known.organisation_id,
        resource_id=resource_id,
        name=name,
        created_at=now,
    )
    session.add(template)
    try:
        await session.flush()
    except IntegrityError:
        raise conflict(
            "A template of this name exists on the resource.", "Add a version to it (`--next`).", "name"
        ) from None
    return template, await _draft(session, template, 1, image, now)


async def add_version(
    session: Session, who: Principal, template_id: UUID, image: Image, now: datetime
) -> tuple[Template, Version]:
    """Keep another image of a template as its next version, a draft."""
    template = await find(session, who, template_id, lock=True)
    newest = select(func.max(Version.version)).where(Version.template_id == template_id)
    number = (await session.scalar(newest) or 0) + 1
    return template, await _draft(session, template, number, image, now)


async def add_derived(
    session: Session, template: Template, version_id: UUID, image: Image, state: TemplateState, now: datetime
) -> Version:
    """Keep an image that was made from another as the next version; the template's row is locked."""
    newest = select(func.max(Version.version)).where(Version.template_id == template.id)
    number = (await session.scalar(newest) or 0) + 1
    return _keep(session, template, number, image, now, (version_id, state))


async def change(
    session: Session, who: Principal, template_id: UUID, number: int, verb: Verb, now: datetime
) -> tuple[Template, Version]:
    """Approve or revoke a version. Raises 404, and 409 when its state does not allow it."""
    template = await find(session, who, template_id, lock=True)
    query = select(Version).where(Version.template_id == template_id, Version.version == number)
    version = await session.scalar(query.with_for_update())
    if version is None:
        raise not_found("version of this template")
    state = follow(TemplateState(version.state), verb)
    if state is None:
        raise conflict(f"A version that is {version.state} cannot be {verb}d.", "Register a new version.")
    version.state = state.value
    version.revision += 1
    session.emit(_changed(template, version, now))
    return template, version


async def find(session: Session, who: Principal, template_id: UUID, *, lock: bool = False) -> Template:
    """One template of the caller's organisation; an admin sees all. Raises 404."""
    query = select(Template).where(Template.id == template_id)
    template = await session.scalar(query.with_for_update() if lock else query)
    if template is None or not _may_see(who, template.organisation_id):
        raise not_found("template")
    return template


async def page(
    session: Session, who: Principal, resource_id: UUID | None, after: UUID | None, limit: int
) -> Sequence[Template]:
    """Templates in the order they were registered, beginning after this id."""
    query = select(Template).order_by(Template.id).limit(limit)
    if who.role is not Role.ADMIN:
        query = query.where(Template.organisation_id == who.organisation_id)
    if resource_id is not None:
        query = query.where(Template.resource_id == resource_id)
    if after is not None:
        query = query.where(Template.id > after)
    return (await session.scalars(query)).all()


async def versions_of(session: Session, templates: Sequence[Template]) -> Sequence[Version]:
    """Every version of these templates, oldest first."""
    ids = [template.id for template in templates]
    query = select(Version).where(Version.template_id.in_(ids)).order_by(Version.version)
    return (await session.scalars(query)).all()


async def origins_of(session: Session, versions: Sequence[Version]) -> dict[UUID, Origin]:
    """What these versions were derived from, by the origin's id."""
    ids = {version.derived_from for version in versions if version.derived_from is not None}
    if not ids:
        return {}
    query = select(Version.id, Template.name, Version.version, Version.state)
    rows = await session.execute(
        query.join(Template, Template.id == Version.template_id).where(Version.id.in_(ids))
    )
    return {row.id: Origin(row.id, row.name, row.version, TemplateState(row.state)) for row in rows}


async def learn_resource(session: Session, event: ResourceChanged) -> None:
    """Remember how to reach the resource; the secret stays sealed."""
    values = {name: getattr(event, name) for name in _KNOWN}
    values |= {"revision": event.revision, "gone": event.gone}
    row = insert(KnownResource).values(resource_id=event.resource_id, **values)
    await session.execute(
        row.on_conflict_do_update(
            index_elements=["resource_id"], set_=values, where=KnownResource.revision < event.revision
        )
    )


async def read_states(session: Session, after: UUID | None) -> tuple[Sequence[TemplateChanged], UUID | None]:
    """The next few versions as they are, the revoked too, and where to go on."""
    query = select(Version, Template).join(Template, Template.id == Version.template_id).order_by(Version.id)
    if after is not None:
        query = query.where(Version.id > after)
    rows = (await session.execute(query.limit(BATCH))).all()
    states = [_changed(template, version, version.created_at) for version, template in rows]
    return states, states[-1].version_id if len(states) == BATCH else None


async def looks(session: Session, installation_id: UUID) -> list[Look]:
    """The approved versions of every living resource, by resource."""
    query = (
        select(KnownResource, Version.id, Version.reference)
        .join(Template, Template.resource_id == KnownResource.resource_id)
        .join(Version, Version.template_id == Template.id)
        .where(Version.state == TemplateState.APPROVED.value, KnownResource.gone.is_(False))
        .order_by(KnownResource.resource_id, Version.id)
    )
    found: dict[UUID, Look] = {}
    for known, version_id, reference in (await session.execute(query)).all():
        look = found.setdefault(known.resource_id, Look(_target(known, installation_id), {}))
        look.references[version_id] = reference
    return list(found.values())


async def note_looks(session: Session, missing: dict[UUID, bool], now: datetime) -> None:
    """Remember which versions were found and which were not."""
    for version_id, is_missing in missing.items():
        row = update(Version).where(Version.id == version_id)
        await session.execute(row.values(missing=is_missing, checked_at=now))


def _target(known: KnownResource, installation_id: UUID) -> Target:
    connection = Connection(
        resource_id=known.resource_id,
        installation_id=installation_id,
        url=known.url,
        username=known.username,
        sealed_secret=known.sealed_secret,
        ca_pem=known.ca_pem,
        thumbprint=known.thumbprint,
        settings=known.settings,
        revision=known.revision,
    )
    return Target(known.provider, connection)


async def _draft(session: Session, template: Template, number: int, image: Image, now: datetime) -> Version:
    if image.derived_from is not None:
        await _check_origin(session, template, image.derived_from)
    return _keep(session, template, number, image, now, (new_id(), TemplateState.DRAFT))


def _keep(
    session: Session,
    template: Template,
    number: int,
    image: Image,
    now: datetime,
    known_as: tuple[UUID, TemplateState],
) -> Version:
    version_id, state = known_as
    version = Version(
        id=version_id,
        template_id=template.id,
        version=number,
        reference=image.seen.reference,
        disk_gib=image.disk_gib,
        guest_os=image.seen.guest_os[:200],
        state=state.value,
        revision=1,
        missing=False,
        checked_at=now,
        created_at=now,
        derived_from=image.derived_from,
        components=sorted(set(image.components)),
    )
    session.add(version)
    session.emit(_changed(template, version, now))
    return version


def _changed(template: Template, version: Version, now: datetime) -> TemplateChanged:
    return TemplateChanged(
        id=state_id(TemplateChanged.key, str(version.id), version.revision),
        at=now,
        revision=version.revision,
        version_id=version.id,
        template_id=template.id,
        organisation_id=template.organisation_id,
        name=template.name,
        version=version.version,
        resource_id=template.resource_id,
        reference=version.reference,
        disk_gib=version.disk_gib,
        state=TemplateState(version.state),
        derived_from=version.derived_from,
        components=tuple(version.components),
    )


async def _check_origin(session: Session, template: Template, version_id: UUID) -> None:
    """Raises 422 unless the version is one of the same resource that is not withdrawn."""
    query = select(Version.state).join(Template, Template.id == Version.template_id)
    state = await session.scalar(
        query.where(Version.id == version_id, Template.resource_id == template.resource_id)
    )
    if state is None:
        raise invalid("derived_from", "The resource has no template version with this id.", "Name one of it.")
    if state == TemplateState.REVOKED:
        raise invalid("derived_from", "This version was revoked.", "Name one that is approved.")


def _may_see(who: Principal, organisation_id: UUID) -> bool:
    return who.role is Role.ADMIN or who.organisation_id == organisation_id
