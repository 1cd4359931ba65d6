"""Credit that projects granted: the difference of totals, so that nothing counts twice and nothing is lost."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from uuid import UUID

import structlog
from sqlalchemy import ARRAY, BigInteger, Text, any_, delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert

from libs.boinc.web import HostCredit
from libs.common.auth import Principal
from libs.common.db import Session
from services.contribution.domain import NOBODY, Stage, first_total, gain_of
from services.contribution.models import (
    Account,
    Contact,
    Contribution,
    Counter,
    Granted,
    GrantedHost,
    Machine,
)
from services.contribution.usecases.claims import Asked, asked_of, columns_of
from services.contribution.usecases.lending import say
from services.contribution.usecases.visiting import KnownUser

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose hosts are told, at which project, and by which e-mail address their ids are mixed; empty: not known."""

    project_id: UUID
    organisation_id: UUID
    user_id: int
    email: str = ""


@dataclass(frozen=True, slots=True)
class _Ours:
    """The machine that a host is now, and since when some machine of ours has been it."""

    machine_id: UUID
    since: datetime


@dataclass(frozen=True, slots=True)
class Grant:
    """Credit of a day, project, machine or organisation."""

    of: date | UUID
    credit: float


async def count_credit(session: Session, owner: Owner, hosts: Sequence[HostCredit], now: datetime) -> float:
    """Count what each host gained since it was last seen; the answer is what machines of ours gained.

    A total that falls is begun anew: what was counted stays counted. Of a host that is nobody's machine only what it
    gains while it is looked at is counted, apart from ours.
    """
    told = {host.id: host for host in hosts if host.id > 0 and host.total_credit > 0}
    ids = literal(list(told), ARRAY(BigInteger))
    mine = (GrantedHost.project_id == owner.project_id) & (
        GrantedHost.organisation_id == owner.organisation_id
    )
    query = select(GrantedHost).where(mine, GrantedHost.host_id == any_(ids)).with_for_update()
    known = {row.host_id: row for row in await session.scalars(query)}
    ours = await _machines_of(session, owner, list(told.values()))
    gains: dict[UUID, float] = {}
    for host in told.values():
        machine = ours.get(host.id)
        row = known.get(host.id)
        if row is None:
            since = None if machine is None else machine.since
            row = GrantedHost(
                project_id=owner.project_id,
                organisation_id=owner.organisation_id,
                host_id=host.id,
                user_id=owner.user_id,
                machine_id=None,
                total=first_total(host.total_credit, host.created_at, since),
            )
            session.add(row)
        gain, total = gain_of(host.total_credit, row.total)
        if total < row.total:
            log.warning("credit.fell", project=str(owner.project_id), host=host.id, by=row.total - total)
        row.total, row.seen_at = total, now
        row.machine_id = row.machine_id if machine is None else machine.machine_id
        if gain > 0:
            whose = row.machine_id or NOBODY
            gains[whose] = gains.get(whose, 0.0) + gain
    await _add(session, owner, gains, now)
    return sum(gain for whose, gain in gains.items() if whose != NOBODY)


async def known_hosts(session: Session, project_id: UUID) -> frozenset[int]:
    """The project's ids of hosts that stand anywhere here."""
    counted = select(GrantedHost.host_id).where(GrantedHost.project_id == project_id)
    reported = select(Counter.host_id).where(Counter.project_id == project_id, Counter.host_id > 0)
    return frozenset((await session.scalars(counted.union(reported))).all())


async def forget_hosts(session: Session, project_id: UUID, host_ids: Collection[int]) -> None:
    """The project has deleted these hosts: nothing here names them any more; sums by machine and day stay."""
    if not host_ids:
        return
    gone = any_(literal(sorted(host_ids), ARRAY(BigInteger)))
    mine = (GrantedHost.project_id == project_id) & (GrantedHost.host_id == gone)
    await session.execute(delete(GrantedHost).where(mine))
    reported = (Counter.project_id == project_id) & (Counter.host_id == gone)
    machines = await session.scalars(
        update(Counter).where(reported).values(host_id=0).returning(Counter.machine_id)
    )
    ended = select(Machine.id).where(Machine.id.in_(machines.all()), Machine.stage == Stage.DESTROYED)
    await session.execute(update(Contact).where(Contact.machine_id.in_(ended)).values(host_cpid=""))
    log.info("project.hosts_deleted", project=str(project_id), hosts=len(host_ids))


async def forget_user(session: Session, project_id: UUID, user: KnownUser, now: datetime) -> None:
    """The project has deleted this user: what was lent by it ends, and its keys and hosts are forgotten."""
    if user.account_id is not None:  # first, as everybody locks who needs both
        await session.get(Account, user.account_id, with_for_update=True)
    organisation_id = user.organisation_id
    mine = (GrantedHost.project_id == project_id) & (GrantedHost.organisation_id == organisation_id)
    await session.execute(delete(GrantedHost).where(mine, GrantedHost.user_id == user.user_id))
    lent = (Contribution.project_id == project_id) & (Contribution.organisation_id == organisation_id)
    named = select(Contribution).where(lent, Contribution.account_id.is_not_distinct_from(user.account_id))
    named = named.where(Contribution.sealed_authenticator != "").order_by(Contribution.id)
    for contribution in await session.scalars(named.with_for_update()):
        contribution.active, contribution.gone, contribution.account_id = False, True, None
        contribution.sealed_authenticator = ""
        await say(session, contribution, now)
    await session.flush()
    await session.execute(delete(Account).where(Account.id == user.account_id))
    log.warning("project.user_deleted", project=str(project_id), organisation=str(organisation_id))


async def grants(session: Session, who: Principal, asked: Asked) -> tuple[list[Grant], float, float]:
    """Of machines: a page, one row more than its limit where there is more, and all of it added up. And what hosts
    were granted in that time that are no machines of ours."""
    of, credit, rows = columns_of(Granted)[asked.by], func.sum(Granted.credit), asked_of(Granted, who, asked)
    ours, others = rows & (Granted.machine_id != NOBODY), rows & (Granted.machine_id == NOBODY)
    query = select(of, credit).where(ours).group_by(of).order_by(of).limit(asked.limit + 1)
    found = await session.execute(query if asked.after is None else query.where(of > asked.after))
    sums = [await session.scalar(select(credit).where(part)) or 0.0 for part in (ours, others)]
    return [Grant(*row) for row in found.all()], sums[0], sums[1]


async def _machines_of(session: Session, owner: Owner, hosts: Sequence[HostCredit]) -> dict[int, _Ours]:
    """Machines by the host that they are: by the host id that their clients report, else by the client's own id."""
    ids = literal([host.id for host in hosts], ARRAY(BigInteger))
    organisation = Machine.organisation_id == owner.organisation_id
    by_id = (
        select(Counter.host_id, Counter.machine_id, Contact.first_at)
        .join(Machine, Machine.id == Counter.machine_id)
        .join(Contact, Contact.machine_id == Counter.machine_id)
        .where(Counter.project_id == owner.project_id, Counter.host_id == any_(ids), organisation)
        .order_by(Counter.at)
    )
    found: dict[int, _Ours] = {}
    for host_id, machine_id, first_at in (await session.execute(by_id)).all():
        before = found.get(host_id)
        found[host_id] = _Ours(machine_id, first_at if before is None else min(before.since, first_at))
    by_cpid = {host.host_cpid: host.id for host in hosts if host.host_cpid and host.id not in found}
    if not owner.email or not by_cpid:
        return found
    mixed = func.md5(Contact.host_cpid + owner.email)
    cpids = literal(list(by_cpid), ARRAY(Text))
    query = (
        select(mixed, Contact.machine_id, Contact.first_at)
        .join(Machine, Machine.id == Contact.machine_id)
        .where(organisation, Contact.host_cpid != "", mixed == any_(cpids))
        .order_by(Contact.at)
    )
    for cpid, machine_id, first_at in (await session.execute(query)).all():
        found[by_cpid[cpid]] = _Ours(machine_id, first_at)
    return found


async def _add(session: Session, owner: Owner, gains: dict[UUID, float], now: datetime) -> None:
    for machine_id, credit in gains.items():
        row = insert(Granted).values(
            day=now.astimezone(UTC).date(),
            project_id=owner.project_id,
            organisation_id=owner.organisation_id,
            machine_id=machine_id,
            credit=credit,
        )
        keys = ["day", "project_id", "organisation_id", "machine_id"]
        more = {"credit": Granted.credit + row.excluded.credit}
        await session.execute(row.on_conflict_do_update(index_elements=keys, set_=more))
