"""Policies, samples and stories for the engine's tests: plain builders with one knob per column."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from libs.common.contracts.usage import HostState, Sample
from libs.harvest.crowded import choose_resting
from libs.harvest.decide import decide
from libs.harvest.types import (
    Decision,
    Facts,
    Ladder,
    MachineFact,
    MachineSize,
    Missing,
    Observation,
    Policy,
    State,
    Thresholds,
)

START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
"""A Monday at noon."""
CAPACITY_MHZ = 40_000.0
MEMORY_MIB = 262_144.0
INTERVAL_S = 20.0

POLICY = Policy(
    name="test",
    cpu=Thresholds(idle=0.5, stop_new=0.65, reclaim=0.8),
    memory=None,
    machine=MachineSize(template="worker", vcpus=4, memory_mib=8192, disk_gib=20.0),
    ladder=Ladder(
        stop_new_after_s=60.0, suspend_after_s=120.0, drain_after_s=300.0, drain_grace_s=180.0, suspend=True
    ),
    margin=0.02,
    sigma=3.0,
    idle_dwell_s=60.0,
    busy_dwell_s=40.0,
    cooldown_s=120.0,
    useful_share=0.08,
    dead_band=0.1,
    rise_s=300.0,
)
FLOOR_MHZ = POLICY.floor_mhz_per_vcpu * POLICY.machine.vcpus


def sample(
    owner: Sequence[float], *, at: datetime = START, ours: Sequence[float] | None = None, **columns: Any
) -> Sample:
    """A sample of hosts a, b, c ... with these fractions of owner load (and of ours, none by default)."""
    hosts = tuple("abcdefgh"[: len(owner)])
    lent = tuple(ours or (0.0,) * len(owner))
    values: dict[str, Any] = {
        "cluster": "domain-c1",
        "name": "Cluster",
        "at": at,
        "interval_s": INTERVAL_S,
        "hosts": hosts,
        "host_names": tuple(f"esx-{host}" for host in hosts),
        "states": (HostState.CONNECTED,) * len(hosts),
        "cpu_capacity_mhz": (CAPACITY_MHZ,) * len(hosts),
        "cpu_used_mhz": tuple((a + b) * CAPACITY_MHZ for a, b in zip(owner, lent, strict=True)),
        "cpu_ours_mhz": tuple(b * CAPACITY_MHZ for b in lent),
        "cpu_limit_mhz": (0.0,) * len(hosts),
        "memory_capacity_mib": (MEMORY_MIB,) * len(hosts),
        "memory_used_mib": (MEMORY_MIB * 0.3,) * len(hosts),
        "memory_ours_mib": (0.0,) * len(hosts),
        "contention_percent": (None,) * len(hosts),
        "machines": (0,) * len(hosts),
    }
    return Sample(**{**values, **columns})


def machine(name: str, host: str | None, state: str = "running", **changes: Any) -> MachineFact:
    return MachineFact(
        **{"machine": name, "host": host, "state": state, "vcpus": 4, "age_s": 600.0, **changes}
    )


@dataclass
class Story:
    """A cluster's history, told step by step; time moves by one interval per sample."""

    policy: Policy = POLICY
    state: State = field(default_factory=State)
    at: datetime = START
    machines: tuple[MachineFact, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    told: list[tuple[Observation, Facts]] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)

    def hear(
        self, owner: Sequence[float], *, ours: Sequence[float] | None = None, **columns: Any
    ) -> Decision:
        """One more sample, an interval later."""
        self.at += timedelta(seconds=INTERVAL_S)
        return self.observe(sample(owner, at=self.at, ours=ours, **columns))

    def hear_for(self, seconds: float, owner: Sequence[float], **columns: Any) -> Decision:
        """Samples for this long."""
        for _ in range(int(seconds / INTERVAL_S)):
            decision = self.hear(owner, **columns)
        return decision

    def miss(self, seconds: float) -> Decision:
        """Silence for this long, then a beat."""
        self.at += timedelta(seconds=seconds)
        return self.observe(Missing(self.at))

    def observe(self, observation: Observation) -> Decision:
        facts = Facts(now=self.at, machines=self.machines, **self.facts)
        self.state, decision = decide(self.policy, self.state, observation, facts)
        self.told.append((observation, facts))
        self.decisions.append(decision)
        return decision

    def obey(self) -> None:
        """Do what the last decision says to the machines, at once: deploy, resume, suspend, destroy."""
        decision = self.decisions[-1]
        keep = [
            each for each in self.machines if each.machine not in decision.victims[: self.surplus(decision)]
        ]
        resting = choose_resting(decision, {each.machine for each in keep})
        machines = [
            replace(each, state="suspended" if each.machine in resting else "running") for each in keep
        ]
        machines += [machine(f"m{len(self.told)}-{n}", host) for n, host in enumerate(decision.placements)]
        self.machines = tuple(machines)

    def surplus(self, decision: Decision) -> int:
        return max(0, len(self.machines) - decision.wanted)


def budgets(decision: Decision) -> dict[str, float]:
    return {budget.host: budget.budget_mhz for budget in decision.budgets}
