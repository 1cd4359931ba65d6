"""The agents in machines: who enrols, what they tell, and what they shall do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert

from libs.common.auth import Principal, Role
from libs.common.contracts.probe import Step
from libs.common.contracts.supply import MachineDrained
from libs.common.db import Session
from libs.common.ids import new_id
from services.contribution.domain import DRAIN, Stage, drain_deadline_s, token_hash
from services.contribution.models import Guest, GuestOrder, Machine
from services.contribution.usecases.health import observe
from services.contribution.usecases.ordering import orders_for
from services.contribution.usecases.probing import report
from services.contribution.usecases.refusals import note_alerts


class Unknown(Exception):
    """Nobody's token or secret. `machine_id`: whose token came with a second secret, and was therefore stolen."""

    def __init__(self, machine_id: UUID | None = None) -> None:
        self.machine_id = machine_id
        super().__init__("a second enrolment" if machine_id else "unknown")


@dataclass(frozen=True, slots=True)
class Told:
    """What an agent tells at a beat; numbers as far as they can be believed."""

    version: str
    boinc_error: str | None
    tasks: int
    running: int
    held: bool
    outcomes: Mapping[str, Mapping[str, Any]]
    alerts: Mapping[str, str] = field(default_factory=dict)
    """What projects complained of to the client, by their addresses."""


async def expect(session: Session, machine_id: UUID, token_sha256: str) -> None:
    """The machine's agent may enrol once with this token."""
    row = insert(Guest).values(
        machine_id=machine_id, token_sha256=token_sha256, version="", tasks=0, running=0, held=False
    )
    await session.execute(row.on_conflict_do_nothing())


async def resume(session: Session, machine_id: UUID, now: datetime) -> None:
    """The drain of the machine is called off."""
    mine = update(Guest).where(Guest.machine_id == machine_id)
    await session.execute(mine.values(resume_at=now, drained_at=None, lost_cpu_s=None))


async def enrol(session: Session, token: str, secret: str, version: str, now: datetime) -> None:
    """Let the machine in by the secret that it drew. The same pair again is the same enrolment. Raises Unknown."""
    known = select(Guest).where(Guest.token_sha256 == token_hash(token)).with_for_update()
    guest = await session.scalar(known)
    if guest is None:
        raise Unknown
    machine = await session.get_one(Machine, guest.machine_id)
    if machine.stage == Stage.DESTROYED:
        raise Unknown
    if guest.secret_sha256 not in (None, token_hash(secret)):
        raise Unknown(guest.machine_id)
    guest.secret_sha256 = token_hash(secret)
    guest.enrolled_at = guest.enrolled_at or now
    guest.version = version
    await observe(session, guest, machine, now)
    await report(session, machine, Step.ENROLLED, "", now)


async def beat(session: Session, secret: str, told: Told, now: datetime) -> list[dict[str, Any]]:
    """Note what the agent tells; the answer is what it shall do. Raises Unknown."""
    known = select(Guest).where(Guest.secret_sha256 == token_hash(secret)).with_for_update()
    guest = await session.scalar(known)
    if guest is None:
        raise Unknown
    machine = await session.get_one(Machine, guest.machine_id)
    if machine.stage == Stage.DESTROYED:
        raise Unknown
    guest.beat_at, guest.version, guest.boinc_error = now, told.version, told.boinc_error
    guest.tasks, guest.running, guest.held = told.tasks, told.running, told.held
    await note_alerts(session, guest, machine, told.alerts, now)
    await observe(session, guest, machine, now)
    if told.tasks > 0:  # without an account manager nothing else says that a project has taken it
        await report(session, machine, Step.ATTACHED, "", now)
    elif told.boinc_error is not None:
        await report(session, machine, Step.ENROLLED, f"its BOINC cannot be asked: {told.boinc_error}", now)
    orders = await orders_for(session, guest, machine, told.outcomes, now)
    return [*_drain_orders(session, guest, machine, told, now), *orders]


def _drain_orders(
    session: Session, guest: Guest, machine: Machine, told: Told, now: datetime
) -> list[dict[str, Any]]:
    """Note what became of the drain, and what of it, or of its end, is still to do."""
    outcome = told.outcomes.get(DRAIN)
    if outcome is not None and guest.drained_at is None and machine.stage == Stage.DRAINING:
        _note_drained(session, machine, guest, outcome, now)
    if machine.stage == Stage.DRAINING:
        guest.resume_at = None
    if guest.resume_at is not None:
        number = f"resume-{guest.resume_at.timestamp():.0f}"
        if number not in told.outcomes:
            return [{"id": number, "do": "resume"}]
        guest.resume_at = None
    if machine.stage != Stage.DRAINING or guest.drained_at is not None:
        return []
    return [{"id": DRAIN, "do": "drain", "deadline_s": drain_deadline_s(machine.grace_s, machine.at, now)}]


async def guests(
    session: Session, who: Principal, after: UUID | None, limit: int
) -> Sequence[tuple[Guest, Machine, GuestOrder | None]]:
    """Guests of machines that are not gone, of the caller's organisation (an admin: of all), in order of machine id."""
    query = (
        select(Guest, Machine, GuestOrder)
        .join(Machine, Machine.id == Guest.machine_id)
        .outerjoin(GuestOrder, GuestOrder.machine_id == Guest.machine_id)
        .where(Machine.stage < Stage.DESTROYED)
        .order_by(Guest.machine_id)
        .limit(limit)
    )
    if who.role is not Role.ADMIN:
        query = query.where(Machine.organisation_id == who.organisation_id)
    if after is not None:
        query = query.where(Guest.machine_id > after)
    return [(guest, machine, order) for guest, machine, order in (await session.execute(query)).all()]


def _note_drained(
    session: Session, machine: Machine, guest: Guest, outcome: Mapping[str, Any], now: datetime
) -> None:
    guest.drained_at, guest.lost_cpu_s = now, _figure(outcome, "lost_cpu_s")
    session.emit(
        MachineDrained(
            id=new_id(),
            at=now,
            machine_id=machine.id,
            organisation_id=machine.organisation_id,
            resource_id=machine.resource_id,
            lost_cpu_s=guest.lost_cpu_s,
            tasks=int(_figure(outcome, "tasks")),
            took_s=_figure(outcome, "took_s"),
        )
    )


def _figure(outcome: Mapping[str, Any], name: str) -> float:
    value = outcome.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and value is not None and 0 <= value <= 1e9 else 0.0
