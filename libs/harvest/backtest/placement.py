"""Virtual machines onto hosts: once, in an order that a seed gives, best fit on vCPU. Nobody moves them later."""

import numpy as np

from libs.harvest.backtest.trace import (
    CORE_MHZ,
    HOST_CORES,
    HOST_MEMORY_MIB,
    BadTrace,
    Ints,
    Load,
    MachinesTrace,
    hold,
)


def place(vcpus: Ints, overcommit: float, seed: int) -> Ints:
    """The host of each machine; as many hosts as are needed, each with cores x `overcommit` vCPUs."""
    room = HOST_CORES * overcommit
    if vcpus.size == 0 or vcpus.max() > room:
        raise BadTrace(f"no host has room for {int(vcpus.max(initial=0))} vCPUs at overcommit {overcommit:g}")
    free: list[float] = []
    hosts = np.zeros(vcpus.size, dtype=np.int64)
    for machine in np.random.default_rng(seed).permutation(vcpus.size):
        wanted = float(vcpus[machine])
        fitting = [(left, host) for host, left in enumerate(free) if left >= wanted]
        if not fitting:
            free.append(room)
            fitting = [(room, len(free) - 1)]
        host = min(fitting)[1]
        free[host] -= wanted
        hosts[machine] = host
    return hosts


def to_load(trace: MachinesTrace, overcommit: float, seed: int) -> Load:
    """The owner load of the hosts on which the machines are placed."""
    hosts = place(trace.vcpus, overcommit, seed)
    count = int(hosts.max()) + 1
    cpu = _add_up(hold(trace.cpu_mhz, trace.step_s, 0.0), hosts, count) / (HOST_CORES * CORE_MHZ)
    memory = None
    if trace.memory_mib is not None:
        memory = _add_up(hold(trace.memory_mib, trace.step_s, 0.0), hosts, count) / HOST_MEMORY_MIB
    cores = np.full(count, float(HOST_CORES))
    return Load(np.minimum(1.0, cpu), trace.step_s, cores, memory=memory, begins=trace.begins)


def _add_up(values: np.ndarray, hosts: Ints, count: int) -> np.ndarray:
    total = np.zeros((count, values.shape[1]))
    np.add.at(total, hosts, values)
    return total
