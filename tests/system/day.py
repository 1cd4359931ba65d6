"""A day of an office's load driven into a vCenter, and how far from it what Tides takes for the owner's load is."""

import math
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass

from libs.providers.base import Power
from tests.contract.providers.target import bring, deploy
from tests.contract.providers.vsphere_target import HOST_MHZ, VSphereTarget
from tests.system.lab import TICK_S, Lab

TICKS_A_DAY = 86_400 // TICK_S
LIMIT_EVERY = 15
"""Ticks between two changes of our limits: ours come and go in the total."""


@dataclass(frozen=True)
class Deviation:
    """One host at one tick, as shares of the host."""

    driven: float
    found: float
    ours: float

    @property
    def error(self) -> float:
        """What the owner's load is off by."""
        return abs(self.found - self.driven)


async def drive(target: VSphereTarget, lab: Lab, ticks: int, seed: int = 7) -> AsyncIterator[list[Deviation]]:
    """A day in so many ticks, with a machine of ours on each host whose limit changes; each tick's deviations."""
    chance = random.Random(seed)
    specs = [target.make_spec(host=host) for host in lab.hosts]
    for spec in specs:
        await deploy(target, spec)
        await bring(target, spec.name, Power.ON)
    for tick in range(ticks):
        for host in lab.hosts:
            lab.owner[host] = _office(tick / ticks, chance)
        if tick % LIMIT_EVERY == 0:
            limits = {spec.name: float(chance.randint(200, int(0.4 * HOST_MHZ))) for spec in specs}
            await target.provider.set_limits(target.cluster, sum(limits.values()), limits)
        await lab.tick()
        sample = next(one for one in await target.provider.sample(None) if one.cluster == target.cluster)
        columns = zip(
            sample.hosts, sample.cpu_capacity_mhz, sample.cpu_used_mhz, sample.cpu_ours_mhz, strict=True
        )
        yield [
            Deviation(lab.owner[host], (used - ours) / capacity, ours / capacity)
            for host, capacity, used, ours in columns
        ]


def _office(part: float, chance: random.Random) -> float:
    """The owner's share of a host at this part of the day: quiet at night, full before noon and after it, and noisy."""
    hours = 24.0 * part
    day = math.exp(-(((hours - 10.5) / 2.5) ** 2)) + 0.8 * math.exp(-(((hours - 15.0) / 2.5) ** 2))
    return min(0.95, max(0.01, 0.08 + 0.6 * day + chance.gauss(0.0, 0.03)))
