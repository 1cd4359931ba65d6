"""Whoever lends in a replay: the engine here, others in the benchmark."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Protocol

import numpy as np

from libs.common.contracts.usage import Announced, Coming, HostState, Quality, Sample
from libs.harvest.backtest.announced import AHEAD_S, Rise
from libs.harvest.backtest.trace import Floats, Ints, Load
from libs.harvest.crowded import choose_resting
from libs.harvest.decide import decide
from libs.harvest.fleet import floor_mhz
from libs.harvest.life import age
from libs.harvest.quota import alone
from libs.harvest.types import Decision, Facts, MachineFact, Policy, State

_STATES = (HostState.CONNECTED, HostState.STANDBY)
_WHOLE = 1e-6
_OVER_S = 900.0
"""So long after it began nothing is told of a rise any more."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What is to be true on the hosts from now on."""

    ceilings: Floats
    """Share of each host that may be lent; what only keeps machines alive is none."""
    running: Ints
    """Workers that should be powered on, by host."""
    resident: Ints
    """Workers that should exist, by host."""
    held: Floats | None = None
    """Share of each host by which workers are only kept alive: where its ceiling is 0. None: nowhere."""

    def kept_alive(self, ceilings: Floats) -> Floats:
        """`held` where these ceilings leave nothing."""
        return np.where(ceilings > 0.0, 0.0, 0.0 if self.held is None else self.held)


@dataclass(frozen=True, slots=True)
class Crew:
    """The workers of a replay: `most` of this many vCPUs on each host."""

    vcpus: int
    most: int
    memory_mib: int = 4096


class Lender(Protocol):
    """Hears the owners' load and says what may be lent."""

    crew: Crew

    def hear(self, at_s: float, interval_s: float, owner: Floats, *, early: bool) -> Orders:
        """Orders after an interval that ended at `at_s`. `early`: a fresh level amid the interval; only cuts count."""
        ...


class Engine:
    """`decide` with the machines it asks for, which come and go as decided, at once."""

    def __init__(self, policy: Policy, load: Load, *, resident: bool, rises: Sequence[Rise] = ()) -> None:
        """`resident`: every host has its machines from the start, and keeps them. `rises` are announced, by time."""
        self.policy, self._load = policy, load
        self.crew = Crew(policy.machine.vcpus, policy.machines_per_host, policy.machine.memory_mib)
        self.state = State()
        self.decision: Decision | None = None
        self._capacity = tuple(float(cores * load.core_mhz) for cores in load.cores)
        self._mhz = np.array(self._capacity)
        self._names = tuple(f"host-{number:05}" for number in range(load.hosts))
        self._machines: tuple[MachineFact, ...] = self._settle() if resident else ()
        self._resident = resident
        self._untold = deque(rises)
        self._coming: tuple[Announced, ...] = ()
        self._made = 0
        self._born: dict[str, float] = {}
        self._granted = alone(policy.quota, policy.machine)
        self._always = load.absent is None and not load.memory_binds
        self._template = self._blank()
        self._floor = self._find_floor()

    def hear(self, at_s: float, interval_s: float, owner: Floats, *, early: bool) -> Orders:
        """Judge one sample and do at once what the decision says."""
        at = self._load.begins + timedelta(seconds=at_s)
        used = tuple((owner * self._mhz).tolist())
        quality = Quality.BACKFILLED if early else Quality.MEASURED
        template = self._template if self._always else self._seen(at_s, early=early)
        sample = replace(template, at=at, interval_s=interval_s, cpu_used_mhz=used, quality=quality)
        machines = age(self.policy, self._machines, self._born, at_s)
        facts = Facts(at, machines, self._granted, interval_s=interval_s, coming=self._hear_of(at_s))
        self.state, self.decision = decide(self.policy, self.state, sample, facts)
        if not self._resident and not early:
            self._obey(self.decision)
        return self._orders(self.decision)

    def _orders(self, decision: Decision) -> Orders:
        budgets = np.array([budget.budget_mhz for budget in decision.budgets])
        lends = budgets > self._floor
        shares = budgets / self._mhz
        held = np.where(lends | (self._running == 0), 0.0, shares)
        return Orders(np.where(lends, shares, 0.0), self._running, self._count, held)

    def _hear_of(self, at_s: float) -> tuple[Announced, ...]:
        """What was announced by then and may not be over yet."""
        if not self._untold and not self._coming:
            return ()
        begins = self._load.begins
        while self._untold and self._untold[0].begins_s - AHEAD_S <= at_s:
            rise = self._untold.popleft()
            when = begins + timedelta(seconds=rise.begins_s)
            told = Announced(Coming.POWER_ON, when, host=self._names[rise.host], share=rise.share)
            self._coming = (*self._coming, told)
        oldest = begins + timedelta(seconds=at_s - _OVER_S)
        if self._coming and self._coming[0].begins_at < oldest:
            self._coming = tuple(one for one in self._coming if one.begins_at >= oldest)
        return self._coming

    def _seen(self, at_s: float, *, early: bool) -> Sample:
        """The sample with what is known of the hosts besides their CPU at that time: who was there, and memory."""
        load = self._load
        number = int(at_s / load.step_s + _WHOLE) - (0 if early else 1)
        step = number if load.numbers is None else int(np.searchsorted(load.numbers, number))
        found = self._template
        away = load.away(step)
        if away is not None and away.any():
            found = replace(found, states=tuple(_STATES[int(one)] for one in away))
        if load.memory_binds and load.memory is not None:
            mib = (load.memory_mib,) * load.hosts
            used = tuple((load.memory[:, step] * load.memory_mib).tolist())
            found = replace(found, memory_capacity_mib=mib, memory_used_mib=used)
        return found

    def _obey(self, decision: Decision) -> None:
        excess = max(0, len(self._machines) - decision.wanted)
        gone = set(decision.victims[:excess])
        kept = [machine for machine in self._machines if machine.machine not in gone]
        missing = max(0, decision.wanted - len(kept))
        for host in decision.placements[:missing]:
            self._made += 1
            kept.append(self._make(host))
        resting = choose_resting(decision, {machine.machine for machine in kept})
        states = tuple(
            machine
            if (machine.state == "suspended") == (machine.machine in resting)
            else replace(machine, state="suspended" if machine.machine in resting else "running")
            for machine in kept
        )
        if states != self._machines:
            self._machines = states
            self._floor = self._find_floor()

    def _settle(self) -> tuple[MachineFact, ...]:
        self._made = 0
        machines = []
        for name in self._names:
            for _ in range(self.policy.machines_per_host):
                self._made += 1
                machines.append(self._make(name))
        return tuple(machines)

    def _make(self, host: str) -> MachineFact:
        return MachineFact(f"m{self._made:06}", host, "running", self.policy.machine.vcpus, 0.0)

    def _find_floor(self) -> Floats:
        """The floor of each host; counts its machines on the way."""
        places = {name: number for number, name in enumerate(self._names)}
        fleet: list[list[MachineFact]] = [[] for _ in self._names]
        for machine in self._machines:
            fleet[places[machine.host or ""]].append(machine)
        self._count = np.array([len(machines) for machines in fleet])
        self._running = np.array([sum(one.state == "running" for one in machines) for machines in fleet])
        return np.array([floor_mhz(self.policy, machines) for machines in fleet])

    def _blank(self) -> Sample:
        hosts = len(self._names)
        zeros = (0.0,) * hosts
        return Sample(
            cluster="backtest",
            name="backtest",
            at=self._load.begins,
            interval_s=1.0,
            hosts=self._names,
            host_names=self._names,
            states=(HostState.CONNECTED,) * hosts,
            cpu_capacity_mhz=self._capacity,
            cpu_used_mhz=zeros,
            cpu_ours_mhz=zeros,
            cpu_limit_mhz=zeros,
            memory_capacity_mib=zeros,
            memory_used_mib=zeros,
            memory_ours_mib=zeros,
            contention_percent=(None,) * hosts,
            machines=(0,) * hosts,
        )


class SplitEvenly:
    """A lender whose ceilings become one for the cluster, which the hypervisor splits evenly."""

    def __init__(self, lender: Lender, cores: Floats) -> None:
        self.lender, self.crew, self._cores = lender, lender.crew, cores

    def hear(self, at_s: float, interval_s: float, owner: Floats, *, early: bool) -> Orders:
        """The lender's orders with its ceilings levelled."""
        orders = self.lender.hear(at_s, interval_s, owner, early=early)
        level = float((orders.ceilings * self._cores).sum() / self._cores.sum())
        return replace(orders, ceilings=np.full(owner.size, level))
