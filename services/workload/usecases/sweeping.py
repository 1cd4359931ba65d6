"""Sweeping: machines with our mark that nobody expects. Timid with strangers, plain with what was given up before."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import delete, or_, select
from sqlalchemy.dialects.postgresql import insert

from libs.common.contracts.action import SweepStopped
from libs.common.db import Session
from libs.providers.values import MachineSeen
from services.workload.domain.states import MachineState
from services.workload.domain.sweep import is_too_many
from services.workload.models import Machine, Orphan, Resource
from services.workload.usecases.recording import record

log = structlog.get_logger(__name__)

ORPHAN_GRACE = timedelta(minutes=10)
RESTORED = "restored from a backup"
"""What `tides restore` leaves in `Resource.sweep_stopped`, and how the reason begins until no stranger waits."""


@dataclass(frozen=True, slots=True)
class Stray:
    """A machine with our mark that no live row knows, and the name of its cluster."""

    name: str
    cluster: str
    seen: MachineSeen


async def sweep(
    session: Session, resource: Resource, strays: Sequence[Stray], known: int, now: datetime
) -> list[tuple[Stray, str]]:
    """Which strays are to be destroyed, and why.

    Those whose row says that they are gone are no strangers: they go at once, and no person is asked. Of true
    strangers a few go after a grace; many mean that the database is the stranger. What was written off with an
    abandoned resource is a stranger, wherever it is met: nothing is known of it any more.
    """
    if not strays:
        await _judge_strangers(session, resource, {}, known, now)
        return []
    known_rows = select(Machine).where(Machine.name.in_([stray.name for stray in strays]))
    rows = {row.name: row for row in (await session.execute(known_rows)).scalars()}
    back = [
        (stray, f"it is back after it was given up: {rows[stray.name].reason}")
        for stray in strays
        if stray.name in rows and _is_past(rows[stray.name], resource)
    ]
    strangers = {
        stray.name: stray
        for stray in strays
        if stray.name not in rows or rows[stray.name].state is MachineState.ABANDONED
    }
    why = await _judge_strangers(session, resource, strangers, known, now)
    return back + [(strangers[name], reason) for name, reason in why.items()]


def must_wait(resource: Resource, waiting: int, known: int) -> bool:
    """Whether strangers that nobody has allowed wait for a person: where they are too many, after a restore each."""
    is_restored = waiting > 0 and (resource.sweep_stopped or "").startswith(RESTORED)
    return is_restored or is_too_many(waiting, known)


def _is_past(row: Machine, resource: Resource) -> bool:
    """Whether the machine is gone by its row. One that lives on another resource, seen twice, is not ours to judge."""
    return row.resource_id == resource.id and row.state is MachineState.DESTROYED


async def _judge_strangers(
    session: Session, resource: Resource, strangers: Mapping[str, Stray], known: int, now: datetime
) -> dict[str, str]:
    """Why each of those that may go now may go."""
    left = delete(Orphan).where(Orphan.resource_id == resource.id, Orphan.name.not_in(list(strangers)))
    await session.execute(left)
    if not strangers:
        resource.sweep_stopped = None
        return {}
    await _note_seen(session, resource, strangers.values(), now)
    found = (await session.execute(select(Orphan).where(Orphan.resource_id == resource.id))).scalars().all()
    waiting = [orphan for orphan in found if not orphan.allowed]
    if must_wait(resource, len(waiting), known):
        _stop_sweeping(session, resource, len(waiting), known, now)
    else:
        resource.sweep_stopped = None
    why = {
        orphan.name: f"a stranger with our mark, allowed to go by {orphan.allowed_by or 'a person'}"
        for orphan in found
        if orphan.allowed
    }
    if resource.sweep_stopped is None:
        why |= {o.name: _grace_over(o) for o in waiting if now >= o.seen_at + ORPHAN_GRACE}
    return why


async def _note_seen(session: Session, resource: Resource, strangers: Iterable[Stray], now: datetime) -> None:
    """A row for each stranger, with where it is now; written again only where that is another place."""
    rows = [
        {
            "name": stray.name, "resource_id": resource.id, "seen_at": now, "allowed": False,
            "cluster": stray.cluster, "host": stray.seen.host, "power": stray.seen.power.value,
            "installation_id": stray.seen.mark.installation_id, "machine_id": stray.seen.mark.machine_id,
        }
        for stray in strangers
    ]  # fmt: skip
    values = insert(Orphan).values(rows)
    where = {
        name: values.excluded[name] for name in ("cluster", "host", "power", "installation_id", "machine_id")
    }
    moved = or_(*(getattr(Orphan, name).is_distinct_from(value) for name, value in where.items()))
    here = Orphan.resource_id == resource.id
    await session.execute(
        values.on_conflict_do_update(index_elements=["name"], set_=where, where=here & moved)
    )


def _grace_over(orphan: Orphan) -> str:
    return f"a stranger: it bears our mark and no row knows it, seen since {orphan.seen_at:%Y-%m-%d %H:%M:%S} UTC"


def _stop_sweeping(session: Session, resource: Resource, orphans: int, known: int, now: datetime) -> None:
    before = resource.sweep_stopped
    reason = f"{orphans} machines with our mark are in no row of this database, which knows {known}"
    if before is not None and before.startswith(RESTORED):
        reason = f"{RESTORED}: {reason}; they may be younger than it"
    is_known, resource.sweep_stopped = before not in (None, RESTORED), reason
    if is_known:
        return
    log.error("sweep.stopped", resource=resource.name, orphans=orphans, known=known, reason=reason)
    stopped = SweepStopped(at=now, resource_id=resource.id, orphans=orphans, machines=known, reason=reason)
    record(session, stopped)
