"""The least life of a machine: a count that merely shrinks waits for it, the owner never does."""

from collections.abc import Collection
from dataclasses import replace

from libs.harvest.fleet import Fleet, is_kept
from libs.harvest.types import MachineFact, Policy


def is_young(policy: Policy, machine: MachineFact) -> bool:
    """Whether it has not lived for as long as the policy grants it; an age that is no number is old."""
    return is_kept(machine) and machine.age_s < policy.minimum_life_s


def find_young(policy: Policy, fleet: Fleet) -> frozenset[str]:
    """Machines that a mere shrink must not take."""
    if policy.minimum_life_s <= 0:
        return frozenset()
    return frozenset(
        machine.machine for machines in fleet.values() for machine in machines if is_young(policy, machine)
    )


def age(
    policy: Policy, machines: tuple[MachineFact, ...], born: dict[str, float], now_s: float
) -> tuple[MachineFact, ...]:
    """Machines of a run without a cloud at their age, where it matters; `born` learns of those that are new."""
    if policy.minimum_life_s <= 0:
        return machines
    return tuple(
        replace(machine, age_s=now_s - born.setdefault(machine.machine, now_s)) for machine in machines
    )


def spare_young(wanted: int, young: Collection[str], unable: Collection[str]) -> int:
    """The wanted count with room for every young machine, but for those that the owner leaves nothing."""
    return max(wanted, len(set(young) - set(unable))) if young else wanted
