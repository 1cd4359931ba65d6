"""Images in the cloud: machines that became templates, and templates of which nothing may be left."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy import func, or_, select

from libs.boinc.image import Component, Proxy, Surroundings, render_image_data
from libs.common.contracts.derivation import DerivationMoved, Step
from libs.common.contracts.resource import Mode
from libs.common.contracts.supply import TemplateState
from libs.common.db import Session, among
from libs.common.ids import new_id
from libs.guest import agent_source
from libs.providers.values import TemplateSeen
from services.workload.domain.states import ENDED, LIVE, MachineState, Wanted, advance
from services.workload.models import Derivation, Machine, Template
from services.workload.usecases.recording import record

log = structlog.get_logger(__name__)

MODES = (Mode.OBSERVE, Mode.LEND, Mode.PAUSED)
"""Of a resource on which a builder may stay."""
LATE_AFTER = timedelta(minutes=5)
"""Templates ends what is late. Where it does not, nothing waits for its word any longer."""


def user_data_of(derivation: Derivation) -> str:
    """The document of its builder. Raises ValueError for what cannot be put in."""
    unknown = sorted(set(derivation.components) - set(Component))
    if unknown:
        raise ValueError(f"components: this Tides cannot put in {', '.join(map(str, unknown))}")
    host, _, port = (derivation.proxy or "").rpartition(":")
    around = Surroundings(derivation.ca_pem, Proxy(host, int(port)) if host else None)
    components = frozenset(Component(word) for word in derivation.components)
    return render_image_data(components, agent_source=agent_source(), around=around)


async def resources_to_look_at(session: Session, resource_ids: Sequence[UUID]) -> set[UUID]:
    """Of these, where an image is being made, or something of one is still to go."""
    awaited = or_(Derivation.over.is_(False), Derivation.discarded & Derivation.cleared.is_(False))
    rows = select(Derivation.resource_id).where(among(Derivation.resource_id, resource_ids), awaited)
    return set((await session.scalars(rows.distinct())).all())


async def to_clear(session: Session, resource_id: UUID) -> list[tuple[UUID, str, str]]:
    """Derivations whose templates are to go, with the template's name and why; each builder has ended.

    Of a builder that ended and was no template to our knowledge there may be one all the same. That goes at once: a
    resource that is being given back would else be released before templates has said that the derivation is over.
    """
    is_failed = Derivation.over.is_(False) & Derivation.step.is_distinct_from(Step.MADE.value)
    rows = (
        select(Derivation, Machine)
        .join(Machine, Machine.derivation_id == Derivation.id)
        .where(Derivation.resource_id == resource_id, Machine.state.in_(ENDED))
        .where(or_(Derivation.discarded, is_failed), Derivation.cleared.is_(False))
        .order_by(Derivation.id)
    )
    return [
        (derivation.id, machine.name, f"nothing of it may be left: {derivation.outcome or machine.reason}")
        for derivation, machine in (await session.execute(rows)).all()
    ]


async def count_undecided(session: Session, resource_id: UUID, now: datetime) -> int:
    """Templates that may be there and in nobody's books: whoever lets go of the resource waits for these.

    Of one that was made templates says in a moment whether it is kept, or when its time is over; what it has not said
    by then is waited for no longer. Of one that is over and not kept the beat has yet to say that it goes.
    """
    is_made = Derivation.step == Step.MADE.value
    is_waiting = Derivation.over.is_(False) & is_made & (Derivation.until > now - LATE_AFTER)
    is_to_go = Derivation.over & Derivation.kept.is_(False) & Derivation.discarded.is_(False)
    found = select(func.count()).where(Derivation.resource_id == resource_id, is_waiting | is_to_go)
    return int(await session.scalar(found) or 0)


def is_tainted(machine: Machine) -> bool:
    """Whether a process that knows no derivations asked the cloud for the builder, as a machine that is lent.

    Only such a one writes down what a builder was attached to. It holds a token, and maybe keys: no template is ever
    made of it.
    """
    return machine.attached is not None


async def templates_of_ours(session: Session, resource_id: UUID) -> set[str]:
    """Names of templates that were machines: whatever a person turns them into, they are no strangers."""
    rows = (
        select(Machine.name)
        .join(Derivation, Derivation.id == Machine.derivation_id)
        .where(
            Machine.resource_id == resource_id, Derivation.discarded.is_(False), Derivation.step == Step.MADE
        )
    )
    return set((await session.scalars(rows)).all())


async def settle_cleared(session: Session, derivation_id: UUID) -> None:
    """The cloud said that nothing of it is left."""
    derivation = await session.get_one(Derivation, derivation_id)
    derivation.cleared = True
    log.info("derivation.cleared", derivation=str(derivation_id), reason=derivation.outcome)


async def settle_kept(session: Session, machine_id: UUID, seen: TemplateSeen, now: datetime) -> None:
    """The machine is a template: as a machine it is gone, and others hear what the template is found by."""
    machine = await session.get_one(Machine, machine_id, with_for_update={"key_share": True})
    if machine.state in ENDED or machine.derivation_id is None:
        return
    derivation = await session.get_one(Derivation, machine.derivation_id)
    machine.state = advance(advance(machine.state, MachineState.DESTROYING), MachineState.DESTROYED)
    machine.state_since, machine.wanted, machine.wanted_by_hand = now, Wanted.GONE, True
    machine.reason, machine.error = f"it became the template {seen.reference}", None
    derivation.step, derivation.reason, derivation.told_at = Step.MADE.value, machine.reason, now
    made = DerivationMoved(
        id=new_id(), at=now, derivation_id=derivation.id, resource_id=derivation.resource_id, machine_id=machine.id,
        step=Step.MADE.value, reason=machine.reason, reference=seen.reference, disk_gib=seen.disk_gib,
        guest_os=seen.guest_os,
    )  # fmt: skip
    record(session, made)
    log.info("derivation.made", machine=machine.name, template=seen.reference)


async def is_in_use(session: Session, version: Template) -> bool:
    """Whether a machine of this version lives: it may share its disks with the template. Or another version is the same
    image: somebody registered it by hand, as one who takes back that it was revoked does."""
    living = select(Machine.id).where(
        Machine.template_version_id == version.version_id, Machine.state.in_(LIVE)
    )
    alike = select(Template.version_id).where(
        Template.resource_id == version.resource_id,
        Template.reference == version.reference,
        Template.version_id != version.version_id,
        Template.state != TemplateState.REVOKED.value,
    )
    return any([await session.scalar(query.limit(1)) is not None for query in (living, alike)])
