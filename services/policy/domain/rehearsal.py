"""A dry run: the engine over a series of samples, its decisions in words."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from libs.common.contracts.usage import Sample
from libs.harvest.crowded import choose_resting
from libs.harvest.decide import decide
from libs.harvest.life import age
from libs.harvest.quota import alone
from libs.harvest.types import Decision, Facts, MachineFact, Policy, State
from libs.harvest.words import explain

MOST_SAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Given:
    """What holds during the whole run. `machines` None: they come and go as decided, at once; `granted_machines` None:
    as many as the policy's quota leaves to one cluster that has it for itself."""

    machines: tuple[MachineFact, ...] | None = None
    granted_machines: int | None = None
    paused: str | None = None
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One decision of the run."""

    cluster: str
    at: datetime
    verdict: str
    rung: str
    wanted: int
    running: int
    cap_mhz: float
    budgets_mhz: dict[str, float]
    code: str
    reason: str


def rehearse(policy: Policy, samples: Sequence[Sample], given: Given) -> list[Step]:
    """Judge the samples in order of their times, each cluster with a state of its own."""
    states: dict[str, State] = {}
    machines: dict[str, tuple[MachineFact, ...]] = {}
    steps: list[Step] = []
    born: dict[str, float] = {}
    granted = given.granted_machines
    if granted is None:
        granted = alone(policy.quota, policy.machine)
    for sample in sorted((_aware(sample) for sample in samples), key=lambda sample: sample.at):
        own = given.machines
        if own is None:
            own = age(policy, machines.get(sample.cluster, ()), born, sample.at.timestamp())
        facts = Facts(sample.at, own, granted, given.paused, given.draining)
        state = states.get(sample.cluster, State())
        states[sample.cluster], decision = decide(policy, state, sample, facts)
        machines[sample.cluster] = obey(policy, own, decision, len(steps))
        steps.append(_step(policy, sample, decision))
    return steps


def obey(
    policy: Policy, machines: tuple[MachineFact, ...], decision: Decision, number: int
) -> tuple[MachineFact, ...]:
    """The machines as they would be had the decision been carried out at once."""
    excess = max(0, len(machines) - decision.wanted)
    given_up = set(decision.victims[:excess])
    kept = [machine for machine in machines if machine.machine not in given_up]
    missing = max(0, decision.wanted - len(kept))
    kept += [
        MachineFact(f"dry-{number}-{place}", host, "running", policy.machine.vcpus, 0.0)
        for place, host in enumerate(decision.placements[:missing])
    ]
    resting = choose_resting(decision, {machine.machine for machine in kept})
    return tuple(
        replace(machine, state="suspended" if machine.machine in resting else "running") for machine in kept
    )


def _step(policy: Policy, sample: Sample, decision: Decision) -> Step:
    names = dict(zip(sample.hosts, sample.host_names, strict=False))
    return Step(
        cluster=sample.cluster,
        at=decision.at,
        verdict=decision.verdict.value,
        rung=decision.rung.name.lower(),
        wanted=decision.wanted,
        running=decision.running,
        cap_mhz=decision.cap_mhz,
        budgets_mhz={budget.host: budget.budget_mhz for budget in decision.budgets},
        code=decision.reason.code.value,
        reason=explain(decision, policy, names),
    )


def _aware(sample: Sample) -> Sample:
    return sample if sample.at.tzinfo else replace(sample, at=sample.at.replace(tzinfo=UTC))
