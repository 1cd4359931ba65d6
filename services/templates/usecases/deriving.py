"""Versions that are made from others: asked for by a person, made by workload, ended here, once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import structlog
from sqlalchemy import or_, select
from sqlalchemy.exc import IntegrityError

from libs.boinc.image import Component
from libs.common.auth import Principal
from libs.common.contracts.derivation import DerivationChanged, DerivationMoved, Step
from libs.common.contracts.supply import TemplateState
from libs.common.db import Session
from libs.common.errors import conflict, not_found
from libs.common.ids import new_id, state_id
from libs.providers.base import TemplateSeen
from services.templates import usecases
from services.templates.domain import Outcome
from services.templates.models import Derivation, KnownResource, Template, Version
from services.templates.usecases import BATCH, Image

log = structlog.get_logger(__name__)

LONGEST_REASON = 1000


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asks to be put into a new version."""

    components: frozenset[Component]
    ca_pem: str | None
    proxy: str | None
    auto_approve: bool
    until: datetime


async def source_of(
    session: Session, who: Principal, template_id: UUID, number: int, *, lock: bool = False
) -> tuple[Template, Version]:
    """An approved version to derive from. Raises 404 for an unknown one, 409 for one that is not approved."""
    template = await usecases.find(session, who, template_id, lock=lock)
    query = select(Version).where(Version.template_id == template_id, Version.version == number)
    version = await session.scalar(query)
    if version is None:
        raise not_found("version of this template")
    if version.state != TemplateState.APPROVED:
        raise conflict(
            f"A version that is {version.state} is not derived from.", "Name one that is approved."
        )
    return template, version


async def begin(
    session: Session, who: Principal, template_id: UUID, number: int, wish: Wish, now: datetime
) -> Derivation:
    """Ask for a new version of the template. Raises 404, and 409 also where one is being made of this version."""
    template, source = await source_of(session, who, template_id, number, lock=True)
    derivation = Derivation(
        id=new_id(),
        template_id=template.id,
        source_id=source.id,
        components=sorted(wish.components),
        ca_pem=wish.ca_pem,
        proxy=wish.proxy,
        auto_approve=wish.auto_approve,
        asked_by=who.name,
        until=wish.until,
        state=Outcome.RUNNING.value,
        step=Step.WAITING.value,
        reason="it was asked for",
        revision=1,
        created_at=now,
    )
    session.add(derivation)
    try:
        await session.flush()
    except IntegrityError:
        raise conflict(
            "A version is being derived from this one already.", "Wait for its end, or cancel it."
        ) from None
    session.emit(_changed(derivation, template, source, now))
    log.info(
        "derivation.begun", template=template.name, version=source.version, derivation=str(derivation.id)
    )
    return derivation


async def cancel(
    session: Session, who: Principal, template_id: UUID, derivation_id: UUID, now: datetime
) -> Derivation:
    """End a derivation; what it left in the cloud goes. Raises 404, and 409 when it is over."""
    await usecases.find(session, who, template_id)
    derivation = await _locked(session, derivation_id)
    if derivation is None or derivation.template_id != template_id:
        raise not_found("derivation of this template")
    if derivation.state != Outcome.RUNNING:
        raise conflict(
            f"The derivation is over: it {derivation.state}.", "Revoke the version that came of it."
        )
    await _end(session, derivation, Outcome.CANCELLED, f"cancelled by {who.name}", now)
    return derivation


async def page(session: Session, template_id: UUID, before: UUID | None, limit: int) -> Sequence[Derivation]:
    """Derivations of a template, newest first, beginning before this id."""
    query = select(Derivation).where(Derivation.template_id == template_id)
    if before is not None:
        query = query.where(Derivation.id < before)
    return (await session.scalars(query.order_by(Derivation.id.desc()).limit(limit))).all()


async def numbers_of(session: Session, derivations: Sequence[Derivation]) -> dict[UUID, int]:
    """Version numbers of what these were made from and of what came of them, by version id."""
    ids = {derivation.source_id for derivation in derivations} | {derivation.id for derivation in derivations}
    rows = await session.execute(select(Version.id, Version.version).where(Version.id.in_(ids)))
    return {row.id: row.version for row in rows}


async def follow(session: Session, event: DerivationMoved) -> None:
    """Workload says how far it is. Made: a version comes of it; ended: it failed. One that is over stays as it is."""
    if event.step == Step.MADE:  # whoever adds versions locks the template, and that first
        of = select(Template.id).join(Derivation, Derivation.template_id == Template.id)
        await session.execute(of.where(Derivation.id == event.derivation_id).with_for_update(of=Template))
    derivation = await _locked(session, event.derivation_id)
    if derivation is None or derivation.state != Outcome.RUNNING:
        return
    derivation.machine_id = event.machine_id or derivation.machine_id
    if event.step == Step.MADE and event.reference is not None:
        await _take_in(session, derivation, event)
        return
    if event.step == Step.ENDED:
        derivation.step = event.step
        await _end(session, derivation, Outcome.FAILED, event.reason or "the machine is gone", event.at)
        return
    derivation.step, derivation.reason = event.step[:20], event.reason[:LONGEST_REASON]


async def end_overdue(session: Session, now: datetime) -> int:
    """What is past its time, or whose resource is gone, has failed; how many."""
    gone = select(Template.id).join(KnownResource, KnownResource.resource_id == Template.resource_id)
    is_late = or_(
        Derivation.until <= now, Derivation.template_id.in_(gone.where(KnownResource.gone.is_(True)))
    )
    query = select(Derivation).where(Derivation.state == Outcome.RUNNING.value, is_late)
    late = (await session.scalars(query.with_for_update(skip_locked=True))).all()
    for derivation in late:
        why = "its time is over" if derivation.until <= now else "its resource was removed"
        await _end(session, derivation, Outcome.FAILED, f"{why}: {derivation.reason}", now)
    return len(late)


async def read_states(
    session: Session, after: UUID | None
) -> tuple[Sequence[DerivationChanged], UUID | None]:
    """The next few derivations as they are, and where to go on."""
    query = (
        select(Derivation, Template, Version)
        .join(Template, Template.id == Derivation.template_id)
        .join(Version, Version.id == Derivation.source_id)
        .order_by(Derivation.id)
    )
    if after is not None:
        query = query.where(Derivation.id > after)
    rows = (await session.execute(query.limit(BATCH))).all()
    states = [_changed(*row, row[0].ended_at or row[0].created_at) for row in rows]
    return states, states[-1].derivation_id if len(states) == BATCH else None


async def _take_in(session: Session, derivation: Derivation, event: DerivationMoved) -> None:
    """The template that was made becomes a version: approved where that was asked for and its origin still is."""
    template = await session.get_one(Template, derivation.template_id)
    source = await session.get_one(Version, derivation.source_id)
    if source.state != TemplateState.APPROVED:
        why = f"version {source.version} was {source.state} before it was done"
        await _end(session, derivation, Outcome.FAILED, why, event.at)
        return
    disk_gib = event.disk_gib or source.disk_gib
    seen = TemplateSeen(event.reference or "", template.name, disk_gib, event.guest_os or source.guest_os)
    components = [Component(word) for word in {*source.components, *derivation.components}]
    image = Image(seen, disk_gib, source.id, components)
    state = TemplateState.APPROVED if derivation.auto_approve else TemplateState.DRAFT
    version = await usecases.add_derived(session, template, derivation.id, image, state, event.at)
    derivation.step = event.step
    await _end(
        session, derivation, Outcome.SUCCEEDED, f"version {version.version}, {version.state}", event.at
    )


async def _locked(session: Session, derivation_id: UUID) -> Derivation | None:
    query = select(Derivation).where(Derivation.id == derivation_id)
    return (await session.scalars(query.with_for_update())).one_or_none()


async def _end(
    session: Session, derivation: Derivation, outcome: Outcome, reason: str, now: datetime
) -> None:
    derivation.state, derivation.reason, derivation.ended_at = outcome.value, reason[:LONGEST_REASON], now
    derivation.revision += 1
    template = await session.get_one(Template, derivation.template_id)
    source = await session.get_one(Version, derivation.source_id)
    session.emit(_changed(derivation, template, source, now))
    log.info("derivation.ended", template=template.name, outcome=outcome.value, reason=derivation.reason)


def _changed(derivation: Derivation, template: Template, source: Version, now: datetime) -> DerivationChanged:
    is_over = derivation.state != Outcome.RUNNING
    return DerivationChanged(
        id=state_id(DerivationChanged.key, str(derivation.id), derivation.revision),
        at=now,
        revision=derivation.revision,
        derivation_id=derivation.id,
        organisation_id=template.organisation_id,
        resource_id=template.resource_id,
        version_id=source.id,
        name=template.name,
        version=source.version,
        components=tuple(derivation.components),
        ca_pem=derivation.ca_pem,
        proxy=derivation.proxy,
        until=derivation.until,
        over=is_over,
        kept=derivation.state == Outcome.SUCCEEDED,
        outcome=derivation.reason if is_over else "",
    )
