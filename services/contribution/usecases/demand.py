"""What a project's own server is told: which hosts of its own come and go here, and how much it may expect of them."""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert

from libs.common.contracts.demand import HostAttached, HostDetached, HostDraining, HoursExpected
from libs.common.db import Session
from libs.common.ids import new_id
from services.contribution.domain import Stage, expected_core_hours
from services.contribution.models import Claimed, Contact, Counter, Forecast, Machine, ToldHost

FORETELL_EVERY = timedelta(hours=1)


async def announce(
    session: Session, machine: Machine, counters: Iterable[Counter], lent: Collection[UUID], now: datetime
) -> None:
    """Tell projects what changed with the hosts that the machine's client reports; only those that it is lent to."""
    reported = {(row.project_id, row.host_id) for row in counters if row.host_id > 0}
    known = await session.scalars(select(ToldHost).where(ToldHost.machine_id == machine.id))
    told = {(row.project_id, row.host_id): row for row in known}
    for key in told.keys() - reported:
        await session.delete(told[key])
        session.emit(HostDetached(id=new_id(), at=now, project_id=key[0], host_id=key[1]))
    fresh = sorted(key for key in reported - told.keys() if key[0] in lent)
    if not fresh:
        return
    locked = select(Machine.stage).where(Machine.id == machine.id).with_for_update(read=True)
    if await session.scalar(locked) == Stage.DESTROYED:
        return
    contact = await session.get(Contact, machine.id)
    fpops = 0.0 if contact is None else contact.fpops
    await session.flush()
    for project_id, host_id in fresh:
        session.add(ToldHost(machine_id=machine.id, project_id=project_id, host_id=host_id))
        session.emit(_attached(machine, project_id, host_id, fpops, now))


async def tell_stage(session: Session, machine_id: UUID, stage: Stage, grace_s: float, now: datetime) -> None:
    """Tell the projects of a machine's hosts that it drains, runs after all, or is gone."""
    rows = await session.scalars(
        select(ToldHost).where(ToldHost.machine_id == machine_id).order_by(ToldHost.project_id)
    )
    told = [(row.project_id, row.host_id) for row in rows]
    if not told:
        return
    machine = await session.get_one(Machine, machine_id, populate_existing=True)
    contact = await session.get(Contact, machine_id)
    fpops = 0.0 if contact is None else contact.fpops
    for project_id, host_id in told:
        if stage == Stage.DESTROYED:
            session.emit(HostDetached(id=new_id(), at=now, project_id=project_id, host_id=host_id))
        elif stage == Stage.DRAINING:
            session.emit(
                HostDraining(id=new_id(), at=now, project_id=project_id, host_id=host_id, grace_s=grace_s)
            )
        else:
            session.emit(_attached(machine, project_id, host_id, fpops, now))
    if stage == Stage.DESTROYED:
        await session.execute(delete(ToldHost).where(ToldHost.machine_id == machine_id))


async def foretell(session: Session, now: datetime) -> None:
    """Tell each project that has hosts here, or had them an hour ago, what it may expect; one replica does, hourly."""
    had = select(Forecast.project_id).where(Forecast.hosts > 0)
    ids = (await session.scalars(select(ToldHost.project_id).union(had))).all()
    for project_id in sorted(ids):
        row = insert(Forecast).values(project_id=project_id, due_at=now, hosts=0)
        await session.execute(row.on_conflict_do_nothing())
        due = select(Forecast).where(Forecast.project_id == project_id, Forecast.due_at <= now)
        forecast = await session.scalar(due.with_for_update(skip_locked=True))
        if forecast is not None:
            said = await _expect(session, project_id, now)
            forecast.due_at, forecast.hosts = now + FORETELL_EVERY, said.hosts
            session.emit(said)


async def _expect(session: Session, project_id: UUID, now: datetime) -> HoursExpected:
    shares = (
        select(Counter.machine_id, func.sum(Counter.resource_share).label("whole"))
        .group_by(Counter.machine_id)
        .subquery()
    )
    cores = func.sum(Machine.vcpus * Counter.resource_share / func.nullif(shares.c.whole, 0))
    working = (
        select(func.count(), cores)
        .select_from(ToldHost)
        .join(Machine, Machine.id == ToldHost.machine_id)
        .join(
            Counter,
            (Counter.machine_id == ToldHost.machine_id) & (Counter.project_id == ToldHost.project_id),
        )
        .join(shares, shares.c.machine_id == ToldHost.machine_id)
        .where(ToldHost.project_id == project_id, Machine.stage < Stage.DRAINING)
    )
    hosts, vcpus = (await session.execute(working)).one()
    yesterday = datetime.combine(now.astimezone(UTC).date(), datetime.min.time(), UTC) - timedelta(days=1)
    claims = (
        select(func.sum(Claimed.cpu_s), func.min(Contact.first_at))
        .join(Contact, Contact.machine_id == Claimed.machine_id)
        .where(Claimed.project_id == project_id, Claimed.day >= yesterday.date())
    )
    cpu_s, first_at = (await session.execute(claims)).one()
    since = max([yesterday, *filter(None, [first_at])])
    hours = expected_core_hours(float(vcpus or 0.0), float(cpu_s or 0.0), (now - since).total_seconds())
    return HoursExpected(
        id=new_id(), at=now, project_id=project_id, hosts=hosts, cores=float(vcpus or 0.0), core_hours=hours
    )


def _attached(machine: Machine, project_id: UUID, host_id: int, fpops: float, now: datetime) -> HostAttached:
    return HostAttached(
        id=new_id(), at=now, project_id=project_id, host_id=host_id, vcpus=machine.vcpus, fpops=fpops
    )
