"""Load that the cloud shows before it is there: what is begun with owners' machines, and what is scheduled.

Read is only what vCenter itself says (which kind of task, about what, how it stands): names and texts are a tenant's to
choose. How much is read is bounded, and a round never fails because of it.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import structlog
from pyVmomi import vim

from libs.common.contracts.usage import Announced, Coming
from libs.providers.values import Cause
from libs.providers.vsphere.faults import Refused
from libs.providers.vsphere.inventory import Cluster, Host
from libs.providers.vsphere.scheduled import Planned, kind_of, read_schedule
from libs.providers.vsphere.seldom import Seldom
from libs.providers.vsphere.session import Session
from libs.providers.vsphere.soap import PAGE, Found, Garbled, Line, Ref, Step, parse_time, write_start

LOOK_WITHIN_S = 5.0
MOST_MACHINES = 100
"""Whose particulars are read in a round: what is new first, then what was not looked at for longest."""
MOST_TOLD = 100
"""Announcements of one cluster."""
KEEP = timedelta(minutes=10)
"""How long one that has begun is told: longer than anybody keeps room for it."""
REST = timedelta(minutes=5)
"""Before another try after a refusal."""
AHEAD = timedelta(minutes=15)
"""What is scheduled for later is told later."""
_STATE, _ENDED, _WHAT, _ENTITY = "info.state", "info.completeTime", "info.descriptionId", "info.entity"
_TASKS = {"Task": {_WHAT: str, _STATE: str, _ENTITY: Ref, _ENDED: str}}
_HOST, _POWER = "runtime.host", "runtime.powerState"
_VCPUS, _DEMAND = "summary.config.numCpu", "summary.quickStats.overallCpuDemand"
_MACHINES = {"VirtualMachine": {_HOST: Ref, _POWER: str, _VCPUS: int, _DEMAND: int}}
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Act:
    """A task of the cloud's that brings load, as it stands."""

    task: str
    kind: Coming
    machine: Ref
    state: str
    ended_at: datetime | None
    """None: it waits or runs, or does not say."""

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.state in ("success", "error")


class ComingWatch:
    """Follows what is begun and what is scheduled. What had ended before the first look shows in the samples."""

    def __init__(self, session: Session) -> None:
        self._known: set[str] | None = None
        """Tasks whose end has been seen; None before the first look."""
        self._rounds = 0
        self._looked: dict[str, int] = {}
        """In which round a task that runs was last looked at."""
        self._floods: set[str] = set()
        """Warnings that hold: of these there is more than is read."""
        self._told: dict[tuple[str, Coming], Announced] = {}
        """By machine and kind: who starts again and again is told once."""
        self._plan: Seldom[Sequence[Planned]] = Seldom(session, "what is scheduled", ())
        self._rests_until: datetime | None = None

    async def look(
        self, line: Line, clusters: Sequence[Cluster], ours: Collection[str], now: datetime
    ) -> dict[str, tuple[Announced, ...]]:
        """By cluster id what is about to come there, soonest first; `ours` are no owner's.

        Raises Refused where the session has ended, and nothing else that is its own.
        """
        hosts = {host.id: host for cluster in clusters for host in cluster.hosts}
        told: list[Announced] = []
        if self._rests_until is None or now >= self._rests_until:
            plan = _choose_planned(await self._read_plan(now), ours, now)
            try:
                async with asyncio.timeout(LOOK_WITHIN_S):
                    told = await self._look(line, hosts, ours, plan, now)
            except Refused as refusal:
                if isinstance(refusal.fault, vim.fault.NotAuthenticated):
                    raise
                self._rest(now, type(refusal.fault).__name__)
            except (Garbled, TimeoutError) as error:
                self._rest(now, type(error).__name__)
        self._told = {key: each for key, each in self._told.items() if now - each.begins_at <= KEEP}
        return _by_cluster([*self._told.values(), *told], clusters, now)

    def _rest(self, now: datetime, reason: str) -> None:
        self._rests_until = now + REST
        log.warning("vsphere.nothing_announced", reason=reason, again_s=REST.total_seconds())

    async def _read_plan(self, now: datetime) -> Sequence[Planned]:
        """In a time of its own: a schedule that is too long to be read hides nothing that has begun."""
        try:
            async with asyncio.timeout(LOOK_WITHIN_S):
                return await self._plan.look(read_schedule, now)
        except TimeoutError:
            log.warning("vsphere.unread", what="what is scheduled", cause=Cause.TIMEOUT)
            return self._plan.known

    async def _look(
        self,
        line: Line,
        hosts: Mapping[str, Host],
        ours: Collection[str],
        plan: Sequence[Planned],
        now: datetime,
    ) -> list[Announced]:
        """Take up what has begun; returns what is scheduled."""
        acts, is_whole = await read_acts(line)
        self._warn("vsphere.recent_tasks_too_many", PAGE, 0 if is_whole else None)
        news = self._choose(acts, ours)
        about = [act.machine for act in news] + [each.about for each in plan]
        refs = list(dict.fromkeys(ref for ref in about if ref.kind == "VirtualMachine"))
        self._warn("vsphere.planned_too_many", 2 * MOST_MACHINES, max(0, len(refs) - 2 * MOST_MACHINES))
        machines = await _read_machines(line, refs[: 2 * MOST_MACHINES])
        moving = any(act.kind is Coming.MIGRATION and not act.has_ended for act in news)
        moves = await _read_moves(line, now - KEEP) if moving else {}
        for act in sorted(reversed(news), key=lambda act: act.state != "error"):
            self._take(act, machines.get(act.machine.id), hosts, moves, now)
        return [found for each in plan if (found := _tell_planned(each, machines, hosts)) is not None]

    def _choose(self, acts: Sequence[Act], ours: Collection[str]) -> list[Act]:
        """Those that are new or still run, as many as are looked at in a round; an end is looked at once.

        What ended while its machine was ours is known: one that becomes a template is none of ours any more.
        """
        ended = {act.task for act in acts if act.has_ended}
        known = ended if self._known is None else self._known & ended
        known |= {act.task for act in acts if act.task in ended and act.machine.id in ours}
        # The list begins with the oldest: what runs for long must not hide what has just begun.
        open_ = [act for act in reversed(acts) if act.task not in known and act.machine.id not in ours]
        news = sorted(open_, key=lambda act: self._looked.get(act.task, 0))[:MOST_MACHINES]
        self._warn("vsphere.tasks_too_many", MOST_MACHINES, len(open_) - len(news))
        self._rounds += 1
        present = {act.task for act in open_}
        self._looked = {task: at for task, at in self._looked.items() if task in present}
        self._looked |= {act.task: self._rounds for act in news}
        self._known = known | {act.task for act in news if act.has_ended}
        return news

    def _warn(self, event: str, most: int, left_out: int | None) -> None:
        """Once, when there begins to be more than is looked at in a round; None: nobody knows how much more."""
        if left_out == 0:
            self._floods.discard(event)
        elif event not in self._floods:
            self._floods.add(event)
            log.warning(event, looked_at=most, left_out=left_out)

    def _take(
        self,
        act: Act,
        machine: Found | None,
        hosts: Mapping[str, Host],
        moves: Mapping[str, str],
        now: datetime,
    ) -> None:
        key = (act.machine.id, act.kind)
        if act.state == "error":
            self._told.pop(key, None)  # nothing comes of it
            return
        found = None if machine is None else _tell(act, machine, hosts, moves.get(act.machine.id), now)
        if found is not None:
            self._told[key] = found


async def _read_moves(line: Line, since: datetime) -> Mapping[str, str]:
    moves = await line.read_moves(since)
    if not moves.is_whole:
        log.warning("vsphere.moves_too_many", read=moves.taken)
    return moves.to


async def read_acts(line: Line) -> tuple[list[Act], bool]:
    """Tasks that bring load of those that vCenter shows as recent, and whether a page held all of these.

    Raises what a Line raises.
    """
    if line.access.tasks is None:
        return [], True
    start = write_start(line.access.tasks, [Step("TaskManager", "recentTask")])
    found = await line.retrieve("coming", [start], _TASKS, pages=1)
    acts = (_read_act(each) for each in found)
    return [act for act in acts if act is not None], len(found) < PAGE


def _read_act(found: Found) -> Act | None:
    entity = found.values.get(_ENTITY)
    kind = kind_of(str(found.values.get(_WHAT, "")))
    if kind is None or not isinstance(entity, Ref) or entity.kind != "VirtualMachine":
        return None
    ended = found.values.get(_ENDED)
    ended_s = parse_time(ended) if isinstance(ended, str) else None
    ended_at = None if ended_s is None else datetime.fromtimestamp(ended_s, UTC)
    return Act(found.ref.id, kind, entity, str(found.values.get(_STATE)), ended_at)


async def _read_machines(line: Line, refs: Iterable[Ref]) -> dict[str, Found]:
    found = await line.retrieve("coming", [write_start(ref) for ref in refs], _MACHINES)
    return {each.ref.id: each for each in found}


def _tell(
    act: Act, machine: Found, hosts: Mapping[str, Host], to: str | None, now: datetime
) -> Announced | None:
    """What an act announces; None for what brings no load to a host of ours, or where it goes is not known yet."""
    is_on = machine.values.get(_POWER) == "poweredOn"
    at = machine.values.get(_HOST)
    host = hosts.get(to) if to is not None else None
    if host is None and isinstance(at, Ref) and (act.kind is not Coming.MIGRATION or act.has_ended):
        host = hosts.get(at.id)
    if host is None or not (is_on or act.kind is Coming.POWER_ON):
        return None
    begins_at = min(act.ended_at or now, now) if act.has_ended else now
    return Announced(act.kind, begins_at, host=host.id, share=_share(act.kind, machine, host))


def _tell_planned(
    plan: Planned, machines: Mapping[str, Found], hosts: Mapping[str, Host]
) -> Announced | None:
    if plan.about.kind == "HostSystem":
        return Announced(plan.kind, plan.at, host=plan.about.id) if plan.about.id in hosts else None
    machine = machines.get(plan.about.id)
    at = machine.values.get(_HOST) if machine is not None else None
    # Where a machine will be moved to is not told, and load that goes away is no announcement.
    if machine is None or not isinstance(at, Ref) or at.id not in hosts or plan.kind is Coming.MIGRATION:
        return None
    if (machine.values.get(_POWER) == "poweredOn") is (plan.kind is Coming.POWER_ON):
        return None  # it runs already, or there is nothing that runs
    return Announced(plan.kind, plan.at, host=at.id, share=_share(plan.kind, machine, hosts[at.id]))


def _share(kind: Coming, machine: Found, host: Host) -> float | None:
    """Of its host at most what the machine's processors make, of an arrival what it asks for where it is."""
    vcpus, demand_mhz = machine.values.get(_VCPUS), machine.values.get(_DEMAND)
    if kind is Coming.SNAPSHOT or host.cpu_mhz <= 0:
        return None
    if kind is Coming.MIGRATION and isinstance(demand_mhz, int) and demand_mhz > 0:
        return min(1.0, demand_mhz / host.cpu_mhz)
    return min(1.0, vcpus / host.cores) if isinstance(vcpus, int) and vcpus > 0 else None


def _choose_planned(plan: Sequence[Planned], ours: Collection[str], now: datetime) -> list[Planned]:
    """What is due about now, of each thing the nearest of a kind: who plans much of one machine is told once."""
    nearest: dict[tuple[str, Coming], Planned] = {}
    for each in sorted(plan, key=lambda each: abs(each.at - now)):
        if now - KEEP <= each.at <= now + AHEAD and each.about.id not in ours:
            nearest.setdefault((each.about.id, each.kind), each)
    return list(nearest.values())


def _by_cluster(
    told: Sequence[Announced], clusters: Sequence[Cluster], now: datetime
) -> dict[str, tuple[Announced, ...]]:
    """Of too many those that are nearest: what is planned for later drives out nothing that has begun."""
    nearest = sorted(told, key=lambda each: abs(each.begins_at - now))
    found = {}
    for cluster in clusters:
        hosts = {host.id for host in cluster.hosts}
        mine = [each for each in nearest if each.host in hosts]
        if len(mine) > MOST_TOLD:
            log.warning("vsphere.announced_too_much", cluster=cluster.id, left_out=len(mine) - MOST_TOLD)
        chosen = sorted(mine[:MOST_TOLD], key=lambda each: (each.begins_at, each.host or "", each.kind))
        found[cluster.id] = tuple(chosen)
    return found


def on_clock_of(
    told: Iterable[Announced], at: datetime, now: datetime, interval_s: float
) -> tuple[Announced, ...]:
    """The same on the clock of a sample that ended `at`: hosts keep their own time, which vCenter's may differ from."""
    behind = now - at
    usual = timedelta() <= behind <= timedelta(seconds=3 * interval_s)
    if usual:
        return tuple(told)
    return tuple(_moved(each, -behind) for each in told)


def _moved(told: Announced, by: timedelta) -> Announced:
    ends_at = None if told.ends_at is None else told.ends_at + by
    return replace(told, begins_at=told.begins_at + by, ends_at=ends_at)
