"""What can be done with contributions, and the machines that work for them: one function, one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from libs.boinc.account import account_file_name
from libs.common.auth import Principal, Role
from libs.common.contracts.action import (
    MachineAbandoned,
    MachineDeployed,
    MachineDestroyed,
    MachineDraining,
    MachineFact,
    MachineRequested,
    MachineResumed,
)
from libs.common.contracts.supply import ContributionChanged
from libs.common.db import Session
from libs.common.errors import conflict, invalid, not_found
from libs.common.ids import new_id, state_id
from libs.common.secrets import Vault, authenticator_context
from services.contribution.domain import MOST_PER_ORGANISATION, RefusedKey, Stage, check_key
from services.contribution.models import Contribution, Machine, Project
from services.contribution.usecases.demand import tell_stage
from services.contribution.usecases.guests import expect, resume
from services.contribution.usecases.managing import give_token
from services.contribution.usecases.ordering import take_early_cap
from services.contribution.usecases.refusals import forget_refusal

BATCH = 100


@dataclass(frozen=True, slots=True)
class Terms:
    """What a person says about a contribution."""

    project_id: UUID
    weight: float
    resource_ids: tuple[UUID, ...] | None
    authenticator: str
    account_id: UUID | None = None
    """The stored account that the key is of; None: it was given."""
    priority: int = 0
    most_machines: int | None = None
    most_vcpus: int | None = None

    def __repr__(self) -> str:
        return f"Terms(project_id={self.project_id})"


@dataclass(frozen=True, slots=True)
class Changes:
    """What shall be different; None leaves it. `resource_ids` counts only with `sets_resources`."""

    weight: float | None = None
    active: bool | None = None
    authenticator: str | None = None
    account_id: UUID | None = None
    """The stored account that the authenticator is of; None: it was given."""
    resource_ids: tuple[UUID, ...] | None = None
    sets_resources: bool = False
    bounds: Mapping[str, int | None] = field(default_factory=dict)
    """Of `priority`, `most_machines` and `most_vcpus` those that shall be different."""

    def __repr__(self) -> str:
        return f"Changes(weight={self.weight}, active={self.active})"


_STAGES: dict[type[MachineFact], Stage] = {
    MachineRequested: Stage.REQUESTED,
    MachineDeployed: Stage.RUNNING,
    MachineDraining: Stage.DRAINING,
    MachineDestroyed: Stage.DESTROYED,
    MachineAbandoned: Stage.DESTROYED,
}
MACHINE_FACTS = tuple(_STAGES)


async def contribute(
    session: Session, who: Principal, vault: Vault, terms: Terms, now: datetime
) -> Contribution:
    """Begin to lend. Raises 422 at `authenticator` or `project_id`, 409 when the organisation does so already."""
    _check(terms.authenticator)
    project = await session.get(Project, terms.project_id)
    if project is None:
        raise invalid("project_id", "No project with this id is known.", "Add the project first.")
    await _insist_on_room(session, who)
    await _refuse_same_file(session, who, project)
    contribution_id = new_id()
    contribution = Contribution(
        id=contribution_id,
        organisation_id=who.organisation_id,
        project_id=project.id,
        weight=terms.weight,
        active=True,
        gone=False,
        resource_ids=None if terms.resource_ids is None else list(terms.resource_ids),
        sealed_authenticator=vault.seal(terms.authenticator, authenticator_context(contribution_id)),
        account_id=terms.account_id,
        priority=terms.priority,
        most_machines=terms.most_machines,
        most_vcpus=terms.most_vcpus,
        revision=1,
        created_at=now,
        updated_at=now,
    )
    session.add(contribution)
    try:
        await session.flush()
    except IntegrityError:
        raise conflict(
            "Your organisation lends to this project already.", "Change that contribution."
        ) from None
    session.emit(_changed(contribution, project, now))
    return contribution


async def change(
    session: Session, who: Principal, vault: Vault, contribution_id: UUID, changes: Changes, now: datetime
) -> Contribution:
    """Change what is given. Raises 404, 422."""
    contribution = await find(session, who, contribution_id, lock=True)
    if changes.authenticator is not None:
        _check(changes.authenticator)
        context = authenticator_context(contribution_id)
        contribution.sealed_authenticator = vault.seal(changes.authenticator, context)
        contribution.account_id = changes.account_id
        forget_refusal(contribution)
    if changes.weight is not None:
        contribution.weight = changes.weight
    if changes.active is not None:
        contribution.active = changes.active
    if changes.sets_resources:
        contribution.resource_ids = None if changes.resource_ids is None else list(changes.resource_ids)
    for name, bound in changes.bounds.items():
        setattr(contribution, name, bound)
    await say(session, contribution, now)
    return contribution


async def end(session: Session, who: Principal, contribution_id: UUID, now: datetime) -> None:
    """Stop lending to the project. Raises 404 when it has ended already."""
    contribution = await find(session, who, contribution_id, lock=True)
    contribution.active = False
    contribution.gone = True
    await say(session, contribution, now)


async def parties_of(session: Session, who: Principal, contribution_id: UUID) -> tuple[UUID, UUID]:
    """Who lends, and to which project, by a living contribution that the caller may see. Raises 404."""
    query = select(Contribution.project_id, Contribution.organisation_id)
    row = (
        await session.execute(query.where(Contribution.id == contribution_id, Contribution.gone.is_(False)))
    ).first()
    if row is None or not _may_see(who, row.organisation_id):
        raise not_found("contribution")
    return row.organisation_id, row.project_id


async def find(
    session: Session, who: Principal, contribution_id: UUID, *, lock: bool = False
) -> Contribution:
    """A living contribution of the caller's organisation; an admin sees all. Raises 404."""
    query = select(Contribution).where(Contribution.id == contribution_id, Contribution.gone.is_(False))
    found = await session.scalar(query.with_for_update() if lock else query)
    if found is None or not _may_see(who, found.organisation_id):
        raise not_found("contribution")
    return found


async def contributions(
    session: Session, who: Principal, after: UUID | None, limit: int
) -> Sequence[Contribution]:
    """Living contributions in the order they began, beginning after this id."""
    query = select(Contribution).where(Contribution.gone.is_(False)).order_by(Contribution.id).limit(limit)
    if who.role is not Role.ADMIN:
        query = query.where(Contribution.organisation_id == who.organisation_id)
    return (await session.scalars(query if after is None else query.where(Contribution.id > after))).all()


async def projects_of(session: Session, contributions: Sequence[Contribution]) -> dict[UUID, Project]:
    """The projects of these contributions, by id."""
    ids = {contribution.project_id for contribution in contributions}
    return {row.id: row for row in await session.scalars(select(Project).where(Project.id.in_(ids)))}


async def read_states(
    session: Session, after: UUID | None
) -> tuple[Sequence[ContributionChanged], UUID | None]:
    """The next few contributions as they are, the ended ones as gone, and where to go on."""
    query = (
        select(Contribution, Project)
        .join(Project, Project.id == Contribution.project_id)
        .order_by(Contribution.id)
        .limit(BATCH)
    )
    if after is not None:
        query = query.where(Contribution.id > after)
    rows = (await session.execute(query)).all()
    states = [_changed(contribution, project, contribution.updated_at) for contribution, project in rows]
    return states, states[-1].contribution_id if len(states) == BATCH else None


async def tell_resealed(session: Session, contribution: Contribution, now: datetime) -> None:
    """Tell everybody the key that is sealed anew."""
    await say(session, contribution, now)


async def learn_machine(session: Session, event: MachineFact) -> None:
    """Move a machine on; what comes late moves nothing back."""
    stage = _STAGES[type(event)]
    moved: dict[str, Any] = {"stage": stage, "at": event.at}
    if isinstance(event, MachineDraining) and event.grace_s > 0:
        moved["grace_s"] = event.grace_s
    further = Machine.stage < stage
    if stage == Stage.DRAINING:
        further &= Machine.at <= event.at  # an old word of a drain that was called off
    row = insert(Machine).values(
        id=event.machine_id,
        organisation_id=event.organisation_id,
        resource_id=event.resource_id,
        vcpus=event.vcpus,
        **moved,
    )
    upsert = row.on_conflict_do_update(index_elements=["id"], set_=moved, where=further)
    is_moved = await session.scalar(upsert.returning(Machine.id)) is not None
    if stage < Stage.DESTROYED:
        await take_early_cap(session, event.machine_id)
    if is_moved and stage > Stage.RUNNING:
        await tell_stage(session, event.machine_id, stage, moved.get("grace_s", 0.0), event.at)
    if isinstance(event, MachineRequested) and event.probe_id is not None:
        mine = update(Machine).where(Machine.id == event.machine_id)  # later facts may have been here before
        await session.execute(mine.values(probe_id=event.probe_id))
    if isinstance(event, MachineRequested) and event.guest_token_sha256:
        await give_token(session, event.machine_id, event.guest_token_sha256, event.at)
        await expect(session, event.machine_id, event.guest_token_sha256)


async def call_off_drain(session: Session, event: MachineResumed) -> None:
    """The machine is wanted again: its client may fetch work, and its agent undoes the drain."""
    draining = (Machine.id == event.machine_id) & (Machine.stage == Stage.DRAINING) & (Machine.at < event.at)
    back = update(Machine).where(draining).values(stage=Stage.RUNNING, at=event.at).returning(Machine.id)
    if await session.scalar(back) is not None:
        await resume(session, event.machine_id, event.at)
        await tell_stage(session, event.machine_id, Stage.RUNNING, 0.0, event.at)


async def say(session: Session, contribution: Contribution, now: datetime) -> None:
    """Tell the contribution as it is now, under its next revision."""
    contribution.revision += 1
    contribution.updated_at = now
    session.emit(_changed(contribution, await session.get_one(Project, contribution.project_id), now))


def _changed(contribution: Contribution, project: Project, now: datetime) -> ContributionChanged:
    resource_ids = contribution.resource_ids
    return ContributionChanged(
        id=state_id(ContributionChanged.key, str(contribution.id), contribution.revision),
        at=now,
        revision=contribution.revision,
        gone=contribution.gone,
        contribution_id=contribution.id,
        organisation_id=contribution.organisation_id,
        project_id=project.id,
        project_name=project.name,
        project_url=project.url,
        weight=contribution.weight,
        active=contribution.active,
        resource_ids=None if resource_ids is None else tuple(resource_ids),
        sealed_authenticator=contribution.sealed_authenticator,
        project_signed=project.url_signature is not None,
        priority=contribution.priority,
        most_machines=contribution.most_machines,
        most_vcpus=contribution.most_vcpus,
    )


async def _insist_on_room(session: Session, who: Principal) -> None:
    living = (Contribution.organisation_id == who.organisation_id) & Contribution.gone.is_(False)
    if (await session.scalar(select(func.count()).where(living)) or 0) >= MOST_PER_ORGANISATION:
        raise conflict(
            f"An organisation lends to at most {MOST_PER_ORGANISATION} projects.", "End another first."
        )


async def _refuse_same_file(session: Session, who: Principal, project: Project) -> None:
    """Raise 409: http and https of one project are one account file to a client, which has room for one of them."""
    living = (Contribution.organisation_id == who.organisation_id) & Contribution.gone.is_(False)
    others = select(Project).join(Contribution, Contribution.project_id == Project.id).where(living)
    for other in await session.scalars(others.where(Project.id != project.id)):
        if account_file_name(other.url) == account_file_name(project.url):
            raise conflict(
                f"Your organisation lends to {other.url} already, which BOINC takes for the same project.",
                "End that contribution first.",
                "project_id",
            )


def _check(authenticator: str) -> None:
    try:
        check_key(authenticator)
    except RefusedKey as error:
        raise invalid("authenticator", str(error)) from None


def _may_see(who: Principal, organisation_id: UUID) -> bool:
    return who.role is Role.ADMIN or who.organisation_id == organisation_id
