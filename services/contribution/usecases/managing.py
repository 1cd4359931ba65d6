"""The account manager: who comes, what it shall do, and what it says that it has done."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert

from libs.boinc.credit import claimed_credit
from libs.boinc.manager import ManagerReply, ManagerRequest, ReportedProject
from libs.common.db import Session
from libs.common.secrets import Vault, authenticator_context
from services.contribution.domain import (
    FIRST_REPEAT_S,
    NEWS,
    REPEAT_S,
    ROTATE_EVERY,
    TROUBLE_REPEAT_S,
    Lent,
    Stage,
    Standing,
    accounts_for,
    claim,
    is_settled,
    next_token,
    token_hash,
)
from services.contribution.models import (
    Claimed,
    Contact,
    Contribution,
    Counter,
    GuestToken,
    Machine,
    Project,
)
from services.contribution.settings import Manager
from services.contribution.usecases.allotting import lent_to
from services.contribution.usecases.demand import announce
from services.contribution.usecases.probing import report_contact

FORGET_AFTER = timedelta(days=30)
"""A token that was spent so long ago is a stranger's, like any other."""
FASTEST_FPOPS = 1e12
"""A benchmark above this is no processor's core."""


class Stranger(Exception):
    """Nobody's token. `machine_id`: whose it was, where it is a spent one and therefore stolen."""

    def __init__(self, machine_id: UUID | None = None) -> None:
        self.machine_id = machine_id
        super().__init__("a spent token" if machine_id else "an unknown token")


@dataclass(frozen=True, slots=True)
class Admitted:
    """A machine of ours, and the token that it shall have instead of the one it came with."""

    machine: Machine
    new_token: str | None


async def answer(
    session: Session, manager: Manager, vault: Vault, asked: ManagerRequest, now: datetime
) -> ManagerReply:
    """What the client shall do now. Raises Stranger."""
    admitted = await _admit(session, asked.authenticator, now)
    machine = admitted.machine
    projects = await lent_to(session, machine)
    lent = [
        Lent(project.url, project.url_signature, share, _open(vault, row))
        for row, project, share in projects
        if project.url_signature is not None
    ]
    draining = machine.stage >= Stage.DRAINING
    if draining:  # it begins nothing new
        lent = [one for one in lent if one.url in {project.url for project in asked.projects}]
    accounts = accounts_for(lent, asked.projects, draining=draining)
    first_at, counters = await _learn(session, machine, asked, [project for _, project, _ in projects], now)
    await announce(session, machine, counters, {project.id for _, project, _ in projects}, now)
    await report_contact(session, machine, [project for _, project, _ in projects], asked.projects, now)
    is_news = draining or now - max([first_at, *(row.updated_at for row, _, _ in projects)]) < NEWS
    settled = admitted.new_token is None and (is_settled(accounts, asked.projects) or not is_news)
    return ManagerReply(
        name=manager.name,
        signing_key=manager.key,
        repeat_s=REPEAT_S if settled else FIRST_REPEAT_S,
        accounts=accounts,
        authenticator=admitted.new_token,
        opaque=str(machine.id),
    )


def change_nothing(manager: Manager, opaque: str, repeat_s: int = TROUBLE_REPEAT_S) -> ManagerReply:
    """What is answered in trouble: a client goes on as it is, where an error would silence it for hours.

    `opaque` is what it sent, which no other client is given.
    """
    try:
        return ManagerReply(manager.name, manager.key, repeat_s, opaque=opaque)
    except ValueError:
        return ManagerReply(manager.name, manager.key, repeat_s)


async def give_token(session: Session, machine_id: UUID, sha256: str, now: datetime) -> None:
    """The machine will come with this token first, and is given another one then."""
    row = insert(GuestToken).values(
        sha256=sha256, machine_id=machine_id, standing=Standing.CURRENT, rotates_at=now
    )
    await session.execute(row.on_conflict_do_nothing())


async def _admit(session: Session, token: str, now: datetime) -> Admitted:
    """Who comes with the token. The one before stays good until the next one is seen: replies get lost."""
    known = select(GuestToken, Machine).join(Machine, Machine.id == GuestToken.machine_id)
    locked = known.where(GuestToken.sha256 == token_hash(token)).with_for_update(of=GuestToken)
    found = (await session.execute(locked)).first() if token else None
    if found is None:
        raise Stranger
    row, machine = found.GuestToken, found.Machine
    if machine.stage == Stage.DESTROYED:
        raise Stranger
    if row.standing == Standing.SPENT:
        raise Stranger(machine.id)
    if row.standing == Standing.NEXT:
        mine = (GuestToken.machine_id == machine.id) & (GuestToken.standing == Standing.CURRENT)
        await session.execute(update(GuestToken).where(mine).values(standing=Standing.SPENT, nonce=None))
        old = (GuestToken.machine_id == machine.id) & (GuestToken.rotates_at < now - FORGET_AFTER)
        await session.execute(delete(GuestToken).where(old, GuestToken.standing == Standing.SPENT))
        row.standing, row.rotates_at = Standing.CURRENT, now + ROTATE_EVERY
        return Admitted(machine, None)
    if row.nonce is None and now >= row.rotates_at:
        row.nonce = secrets.token_hex(16)
        fresh = token_hash(next_token(token, row.nonce))
        session.add(
            GuestToken(
                sha256=fresh, machine_id=machine.id, standing=Standing.NEXT, rotates_at=now, nonce=None
            )
        )
    return Admitted(machine, None if row.nonce is None else next_token(token, row.nonce))


def _open(vault: Vault, row: Contribution) -> str:
    return vault.open(row.sealed_authenticator, authenticator_context(row.id))


async def _learn(
    session: Session, machine: Machine, asked: ManagerRequest, lent: Sequence[Project], now: datetime
) -> tuple[datetime, list[Counter]]:
    """Note the contact, and what was computed since the last one. Returns when it first came, and the counters.

    `lent` are projects that are known already.
    """
    fpops = min(max(0.0, asked.host.fpops), FASTEST_FPOPS)
    said = {
        "at": now,
        "client_version": _short(asked.client_version, 32),
        "host_cpid": _short(asked.host_cpid, 64),
        "fpops": fpops,
    }
    row = insert(Contact).values(machine_id=machine.id, first_at=now, **said)
    noted = row.on_conflict_do_update(index_elements=["machine_id"], set_=said).returning(Contact.first_at)
    first_at: datetime = (await session.execute(noted)).scalar_one()
    mine = select(Counter).where(Counter.machine_id == machine.id)
    counters = {row.project_id: row for row in await session.scalars(mine)}
    reported = [project for project in asked.projects if project.cpu_s is not None]
    urls = {project.url for project in asked.projects}
    known = {project.url: project.id for project in lent}
    if others := urls - known.keys():
        rows = await session.execute(select(Project.url, Project.id).where(Project.url.in_(others)))
        known |= {url: project_id for url, project_id in rows}
    attached = {known[project.url] for project in asked.projects if project.url in known}
    for project_id in counters.keys() - attached:
        await session.delete(counters.pop(project_id))  # attached again, it begins at zero
    for project in reported:
        if project.url in known:
            project_id = known[project.url]
            counter = counters.get(project_id)
            if counter is None:
                counter = Counter(machine_id=machine.id, project_id=project_id, at=first_at, cpu_s=0.0)
                session.add(counter)
                counters[project_id] = counter
            await _count(session, machine, counter, project, (fpops, now))
    return first_at, list(counters.values())


async def _count(
    session: Session,
    machine: Machine,
    counter: Counter,
    project: ReportedProject,
    when: tuple[float, datetime],
) -> None:
    fpops, now = when
    elapsed_s = max(0.0, (now - counter.at).total_seconds())
    cpu_s = claim(counter.cpu_s, project.cpu_s or 0.0, machine.vcpus, elapsed_s)
    counter.at, counter.cpu_s = now, counter.cpu_s + cpu_s
    counter.host_id, counter.resource_share = project.host_id, project.resource_share
    counter.jobs_succeeded, counter.jobs_failed = project.jobs_succeeded, project.jobs_failed
    counter.starved = project.starved
    if cpu_s > 0:
        row = insert(Claimed).values(
            day=now.astimezone(UTC).date(),
            machine_id=machine.id,
            project_id=counter.project_id,
            organisation_id=machine.organisation_id,
            cpu_s=cpu_s,
            credit=claimed_credit(cpu_s, fpops),
        )
        more = {"cpu_s": Claimed.cpu_s + row.excluded.cpu_s, "credit": Claimed.credit + row.excluded.credit}
        keys: Sequence[str] = ["day", "machine_id", "project_id"]
        await session.execute(row.on_conflict_do_update(index_elements=keys, set_=more))


def _short(text: str, longest: int) -> str:
    return "".join(character for character in text if character.isprintable())[:longest]
