"""Which machines work for which contribution, by priorities and quotas where there are any."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import func, or_, select

from libs.common.contracts.supply import UNHEARD
from libs.common.db import Session
from libs.harvest.allotment import Asking, Given, Share, allot, is_trivial
from services.contribution.domain import Stage, works_for
from services.contribution.models import AwayResource, Contribution, Guest, Machine, Project
from services.contribution.usecases.standing_in import read_stand_ins, with_stand_ins

Lending = tuple[Contribution, Project, float]
"""A contribution, its project, and the share of the machine's work that the project gets beside others."""
STANDS_BY = 0.0
"""BOINC's share of a project whose work is fetched when no other has any."""


class _Living(NamedTuple):
    """A machine that is not on its way out."""

    id: UUID
    resource_id: UUID
    vcpus: int
    stage: int


async def lent_to(session: Session, machine: Machine) -> list[Lending]:
    """What a machine works for. One that drains is given nothing new: it goes on with what it has."""
    query = (
        select(Contribution, Project)
        .join(Project, Project.id == Contribution.project_id)
        .where(Contribution.organisation_id == machine.organisation_id)
        .where(Contribution.active.is_(True), Contribution.gone.is_(False))
        .order_by(Contribution.id)
    )
    found = (await session.execute(query)).all()
    stand_ins = await read_stand_ins(session, machine.organisation_id)
    lent = {row.id: with_stand_ins(row.resource_ids, stand_ins) for row, _ in found}
    rows = [(row, project) for row, project in found if works_for(machine.resource_id, lent[row.id])]
    asking = [_asking(row, stand_ins) for row, _ in found]
    if is_trivial(asking) or machine.stage >= Stage.DRAINING:
        return [(row, project, row.weight) for row, project in rows]
    share = (await _shares(session, machine.organisation_id, asking, machine.id)).get(machine.id, Share())
    working = [(row, project, row.weight) for row, project in rows if row.id in share.projects]
    return working + [(row, project, STANDS_BY) for row, project in rows if row.id in share.standing_by]


async def count_machines(
    session: Session, contributions: Sequence[Contribution]
) -> dict[UUID, dict[Stage, int]]:
    """Machines that work for each contribution, by stage; those that were destroyed do not count."""
    counts: dict[UUID, dict[Stage, int]] = {row.id: dict.fromkeys(Stage, 0) for row in contributions}
    for organisation_id in {row.organisation_id for row in contributions}:
        mine = [row for row in contributions if row.organisation_id == organisation_id]
        for contribution_id, stages in (await _count(session, organisation_id, mine)).items():
            counts[contribution_id].update(stages)
    return counts


async def _count(
    session: Session, organisation_id: UUID, contributions: Sequence[Contribution]
) -> dict[UUID, Counter[Stage]]:
    living = (Contribution.organisation_id == organisation_id) & Contribution.gone.is_(False)
    stand_ins = await read_stand_ins(session, organisation_id)
    found = await session.scalars(select(Contribution).where(living))
    asking = [_asking(row, stand_ins) for row in found if row.active]
    query = (
        select(Machine.resource_id, Machine.stage, func.count())
        .where(Machine.organisation_id == organisation_id, Machine.stage < Stage.DESTROYED)
        .group_by(Machine.resource_id, Machine.stage)
    )
    counts: dict[UUID, Counter[Stage]] = {row.id: Counter() for row in contributions}
    shares_out = not is_trivial(asking)
    for resource_id, stage, count in (await session.execute(query)).all():
        for row in contributions:
            lent = with_stand_ins(row.resource_ids, stand_ins)
            if works_for(resource_id, lent) and (stage >= Stage.DRAINING or not shares_out):
                counts[row.id][Stage(stage)] += count
    if shares_out:
        stages = {row.id: row.stage for row in await _living(session, organisation_id)}
        for machine_id, share in (await _shares(session, organisation_id, asking)).items():
            for project in counts.keys() & set(share.projects):
                counts[project][Stage(stages[machine_id])] += 1
    return counts


async def _shares(
    session: Session, organisation_id: UUID, asking: Sequence[Asking[UUID]], last: UUID | None = None
) -> dict[UUID, Share[UUID]]:
    """For whom the machines of an organisation work, up to the last one: younger ones move no older one."""
    given = [
        Given(row.id, row.resource_id, row.vcpus) for row in await _living(session, organisation_id, last)
    ]
    return allot(asking, given)


async def _living(session: Session, organisation_id: UUID, last: UUID | None = None) -> list[_Living]:
    """Those on a cloud that is away do not count, unless they are heard of: as workload has it, and who asks is."""
    columns = select(Machine.id, Machine.resource_id, Machine.vcpus, Machine.stage)
    mine = (AwayResource.organisation_id == organisation_id) & AwayResource.is_away.is_(True)
    is_there = Machine.resource_id.not_in(select(AwayResource.resource_id).where(mine))
    is_heard = Guest.said.is_not(None) & Guest.said.not_in(UNHEARD)
    query = (
        columns.outerjoin(Guest, Guest.machine_id == Machine.id)
        .where(Machine.organisation_id == organisation_id, Machine.stage < Stage.DRAINING)
        .where(or_(is_there, is_heard, Machine.id == last))
    )
    if last is not None:
        query = query.where(Machine.id <= last)
    return [_Living(*row) for row in await session.execute(query.order_by(Machine.id))]


def _asking(row: Contribution, stand_ins: Mapping[UUID, UUID]) -> Asking[UUID]:
    lent = with_stand_ins(row.resource_ids, stand_ins)
    resources = None if lent is None else frozenset(lent)
    return Asking(row.id, row.priority, row.most_machines, row.most_vcpus, resources)
