"""Orders to guests beside their drain: how much of its processors one may use, and to end. First wished for, then
acknowledged."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert

from libs.common.auth import Principal, Role
from libs.common.contracts.action import GuestsThrottled
from libs.common.contracts.supply import GuestHealthChanged
from libs.common.db import Session
from libs.common.errors import conflict, not_found
from libs.common.ids import new_id
from services.contribution.domain import FREE_PERCENT, Health, Stage, allowed_percent
from services.contribution.models import EarlyCap, Guest, GuestOrder, Machine

log = structlog.get_logger(__name__)

STOP_FETCHED_WITHIN = timedelta(minutes=10)
"""An order to end that nobody fetched by then is void: what it was for has passed."""
AGAIN_AFTER = timedelta(seconds=60)
"""An order that a guest could not carry out is given again then."""
EARLY_FOR = timedelta(days=7)
"""A machine of which nothing else was heard for so long is none of ours."""
_THROTTLED = re.compile(r"throttle-(\d{1,3}(?:\.\d+)?)-(\d{1,3})")
Ordered = tuple[Guest, Machine, GuestOrder]


@dataclass(frozen=True, slots=True)
class Person:
    """Who orders, and why; both are shown with the guest."""

    who: Principal
    reason: str


async def throttle(
    session: Session, machine_id: UUID, person: Person, percent: float, lasts: timedelta, now: datetime
) -> Ordered:
    """Let a guest use so much of its processors for so long. Raises 404, 409 where no agent would hear of it."""
    found = await _find(session, machine_id, person.who)
    order = found[2]
    order.throttle_percent, order.throttle_until = round(percent, 1), now + lasts
    order.throttle_by, order.throttle_reason = person.who.name, person.reason
    order.error = order.error_at = None
    log.info("guest.throttle_ordered", machine=str(machine_id), percent=percent, by=person.who.name)
    return found


async def stop(session: Session, machine_id: UUID, person: Person, now: datetime) -> Ordered:
    """Let a guest end its work at once and shut its machine down. Raises 404, 409 where no agent would hear of it."""
    found = await _find(session, machine_id, person.who)
    order = found[2]
    order.stop_until, order.stopped_at = now + STOP_FETCHED_WITHIN, None
    order.stop_by, order.stop_reason = person.who.name, person.reason
    log.warning("guest.stop_ordered", machine=str(machine_id), by=person.who.name, reason=person.reason)
    return found


async def cap(session: Session, event: GuestsThrottled) -> None:
    """What workload allows guests whose cloud has no limits; an older word than the known one changes nothing.

    It is said only when it changes: what is said of a machine that is not known yet waits until it is.
    """
    await session.execute(delete(EarlyCap).where(EarlyCap.at < event.at - EARLY_FOR))
    there = await _known(session, event.percent)
    strange = sorted(event.percent.keys() - there)
    for machine_id in strange:
        await _take_turns(session, machine_id)
    there |= await _known(session, strange)
    for machine_id in sorted(event.percent):
        percent = round(min(FREE_PERCENT, max(0.0, event.percent[machine_id])), 1)
        if machine_id in there:
            await _keep_cap(session, machine_id, percent, event.at)
        else:
            row = insert(EarlyCap).values(machine_id=machine_id, percent=percent, at=event.at)
            newer = {"percent": percent, "at": event.at}
            is_newer = EarlyCap.at <= event.at
            await session.execute(
                row.on_conflict_do_update(index_elements=["machine_id"], set_=newer, where=is_newer)
            )


async def take_early_cap(session: Session, machine_id: UUID) -> None:
    """The machine is known now: what its guest may use holds."""
    await _take_turns(session, machine_id)
    mine = delete(EarlyCap).where(EarlyCap.machine_id == machine_id).returning(EarlyCap.percent, EarlyCap.at)
    early = (await session.execute(mine)).first()
    if early is not None:
        await _keep_cap(session, machine_id, early.percent, early.at)


async def _known(session: Session, machine_ids: Collection[UUID]) -> set[UUID]:
    """Which of these machines have been heard of."""
    if not machine_ids:
        return set()
    return set((await session.scalars(select(Machine.id).where(Machine.id.in_(machine_ids)))).all())


async def _take_turns(session: Session, machine_id: UUID) -> None:
    """Whoever learns of a machine and whoever caps it wait for each other: neither may miss what is not committed yet.

    A cap is said when it changes and not again; one that was left would let a guest have all of its processors.
    """
    name = func.hashtextextended(f"cap/{machine_id}", 0)
    await session.execute(select(func.pg_advisory_xact_lock(name)))


async def _keep_cap(session: Session, machine_id: UUID, percent: float, at: datetime) -> None:
    said = {"cap_percent": percent, "cap_at": at}
    row = insert(GuestOrder).values(machine_id=machine_id, tries=0, **said)
    is_newer = GuestOrder.cap_at.is_(None) | (GuestOrder.cap_at <= at)
    await session.execute(row.on_conflict_do_update(index_elements=["machine_id"], set_=said, where=is_newer))


async def orders_for(
    session: Session, guest: Guest, machine: Machine, outcomes: Mapping[str, Mapping[str, Any]], now: datetime
) -> list[dict[str, Any]]:
    """Note what became of orders, and what the guest is still to do. The guest's row is locked."""
    order = await session.get(GuestOrder, guest.machine_id, with_for_update=True)
    if order is None:
        return []
    _note_throttled(order, outcomes, now)
    _note_stopped(session, order, guest, machine, outcomes, now)
    commands: list[dict[str, Any]] = []
    if order.stop_until is not None and order.stopped_at is None and now < order.stop_until:
        commands.append({"id": _stop_id(order), "do": "stop"})
    wanted = _allowed(order, now)
    rests = order.error_at is not None and now - order.error_at < AGAIN_AFTER
    if wanted != (FREE_PERCENT if order.applied_percent is None else order.applied_percent) and not rests:
        commands.append({"id": _throttle_id(order, wanted), "do": "throttle", "percent": wanted})
    return commands


def _allowed(order: GuestOrder, now: datetime) -> float:
    return allowed_percent(order.throttle_percent, order.throttle_until, order.cap_percent, now)


def _throttle_id(order: GuestOrder, percent: float) -> str:
    return f"throttle-{percent:g}-{order.tries}"


def _stop_id(order: GuestOrder) -> str:
    assert order.stop_until is not None
    return f"stop-{order.stop_until.timestamp():.0f}"


def _note_throttled(order: GuestOrder, outcomes: Mapping[str, Mapping[str, Any]], now: datetime) -> None:
    """What the agent did last holds there, also where something else is wanted by now."""
    for name, outcome in outcomes.items():
        done = _THROTTLED.fullmatch(name)
        if done is None or int(done[2]) != order.tries:
            continue
        order.tries = (order.tries + 1) % 1000
        if "error" in outcome:
            order.error, order.error_at = _printable(outcome["error"]), now
        else:
            order.applied_percent, order.applied_at = float(done[1]), now
            order.error = order.error_at = None


def _note_stopped(
    session: Session,
    order: GuestOrder,
    guest: Guest,
    machine: Machine,
    outcomes: Mapping[str, Mapping[str, Any]],
    now: datetime,
) -> None:
    if order.stop_until is None or order.stopped_at is not None or _stop_id(order) not in outcomes:
        return
    order.stopped_at = now
    why = f"its guest was stopped by {order.stop_by}: {order.stop_reason}"
    changed = GuestHealthChanged(
        id=new_id(), at=now, machine_id=machine.id, organisation_id=machine.organisation_id,
        resource_id=machine.resource_id, health=Health.STOPPED, before=guest.said, why=why, since=now,
    )  # fmt: skip
    session.emit(changed)
    guest.said, guest.said_at, guest.said_why = Health.STOPPED.value, now, why[:300]


async def _find(session: Session, machine_id: UUID, who: Principal) -> Ordered:
    query = select(Guest, Machine).join(Machine, Machine.id == Guest.machine_id)
    row = (
        await session.execute(query.where(Guest.machine_id == machine_id).with_for_update(of=Guest))
    ).first()
    if row is None or (who.role is not Role.ADMIN and row.Machine.organisation_id != who.organisation_id):
        raise not_found("guest", "List them at /v1/guests.")
    if row.Machine.stage == Stage.DESTROYED or row.Guest.secret_sha256 is None:
        raise conflict(
            "This machine has no agent that would hear of it.",
            "Wait until it has enrolled; workload can drain any machine.",
        )
    made = insert(GuestOrder).values(machine_id=machine_id, tries=0).on_conflict_do_nothing()
    await session.execute(made)
    order = await session.get_one(GuestOrder, machine_id, with_for_update=True)
    return row.Guest, row.Machine, order


def _printable(text: object) -> str:
    return "".join(character for character in str(text)[:200] if character.isprintable())
