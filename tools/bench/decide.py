"""How long `decide` takes for one cluster of 16 hosts, each with a machine as wide as itself: microseconds of one core.

Every sample of a made-up stretch is judged several times over and its quickest time counts, since whatever else the
machine does only adds to it.
"""

import argparse
import random
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from libs.common.contracts.usage import HostState, Sample
from libs.harvest.decide import decide
from libs.harvest.document import PRESETS, parse
from libs.harvest.types import Facts, MachineFact, Policy, State

CORES, MHZ, MIB, INTERVAL_S = 16, 41_600.0, 262_144.0, 20.0
BEGINS = datetime(2026, 3, 2, tzinfo=UTC)


def main() -> None:
    """Measure and print one line."""
    parser = argparse.ArgumentParser(prog="./dev bench decide", description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=16)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--preset", choices=list(PRESETS), default="balanced")
    given = parser.parse_args()
    machine = {"template": "-", "vcpus": CORES, "memory_mib": 32_768, "disk_gib": 10.0}
    policy = parse({**PRESETS[given.preset], "machine": machine})
    story = list(make_story(given.hosts, given.samples))
    rounds = [measure(policy, story) for _ in range(given.rounds)]
    best = sorted(min(times) for times in zip(*rounds, strict=True))
    median, last = best[len(best) // 2], best[len(best) * 95 // 100]
    print(
        f"decide, {given.hosts} hosts, {given.preset}: median {median:.0f} us, 95 % within {last:.0f} us (target 250)"
    )


def make_story(hosts: int, samples: int) -> Iterator[tuple[Sample, Facts]]:
    """Owners with levels that last some half an hour, and noise around them."""
    chance = random.Random(7)
    names = tuple(f"host-{number:04}" for number in range(hosts))
    machines = tuple(MachineFact(f"m{name}", name, "running", CORES, 3600.0) for name in names)
    levels = [chance.uniform(0.05, 0.6) for _ in names]
    for number in range(1, samples + 1):
        at = BEGINS + timedelta(seconds=INTERVAL_S * number)
        levels = [chance.uniform(0.05, 0.7) if chance.random() < 0.01 else level for level in levels]
        used = tuple(MHZ * min(1.0, max(0.0, level + chance.gauss(0.0, 0.02))) for level in levels)
        yield make_sample(names, at, used), Facts(at, machines, interval_s=INTERVAL_S)


def make_sample(names: tuple[str, ...], at: datetime, used: tuple[float, ...]) -> Sample:
    """What a monitor says of the hosts."""
    hosts = len(names)
    zeros = (0.0,) * hosts
    return Sample(
        cluster="bench", name="bench", at=at, interval_s=INTERVAL_S, hosts=names, host_names=names,
        states=(HostState.CONNECTED,) * hosts, cpu_capacity_mhz=(MHZ,) * hosts, cpu_used_mhz=used, cpu_ours_mhz=zeros,
        cpu_limit_mhz=zeros, memory_capacity_mib=(MIB,) * hosts, memory_used_mib=(0.4 * MIB,) * hosts,
        memory_ours_mib=zeros, contention_percent=(None,) * hosts, machines=(1,) * hosts,
    )  # fmt: skip


def measure(policy: Policy, story: Sequence[tuple[Sample, Facts]]) -> list[float]:
    """Microseconds of each decision."""
    state, times = State(), []
    for sample, facts in story:
        began = time.perf_counter_ns()
        state, _ = decide(policy, state, sample, facts)
        times.append((time.perf_counter_ns() - began) / 1000.0)
    return times


if __name__ == "__main__":
    main()
