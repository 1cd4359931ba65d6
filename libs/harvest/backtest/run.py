"""A policy on a trace, from options to figures."""

from dataclasses import dataclass, replace
from enum import StrEnum

from libs.harvest.backtest.coarse import Coarse
from libs.harvest.backtest.fine import Fine
from libs.harvest.backtest.lender import Engine, Lender, SplitEvenly
from libs.harvest.backtest.placement import to_load
from libs.harvest.backtest.ticks import MEAN_S, make_ticks
from libs.harvest.backtest.trace import BadTrace, Load, MachinesTrace, resample
from libs.harvest.types import Policy


class Model(StrEnum):
    """How closely time is followed."""

    COARSE = "coarse"
    FINE = "fine"


class Actuator(StrEnum):
    """What a limit stands on."""

    HOST = "host"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class Options:
    """How a trace is replayed."""

    model: Model = Model.COARSE
    actuator: Actuator = Actuator.HOST
    overcommit: float = 2.0
    """vCPUs per core of the hosts on which a trace of machines is placed."""
    guard_s: float = 30.0
    """0: none. Only the coarse replay has one; the fine one sees every tick anyway."""
    seed: int = 7
    days: tuple[float, float] | None = None


Replay = Coarse | Fine


def read_load(trace: MachinesTrace | Load, options: Options) -> Load:
    """The owners of hosts as the options want them. Raises BadTrace."""
    load = to_load(trace, options.overcommit, options.seed) if isinstance(trace, MachinesTrace) else trace
    load = load if options.days is None else load.between(*options.days)
    if options.model is Model.FINE:
        load = make_ticks(load, options.seed)
    elif load.step_s < MEAN_S:
        load = resample(load, MEAN_S)
    if load.owner.shape[1] < 2:
        raise BadTrace("the trace is shorter than two intervals")
    return load


def prepare(policy: Policy, load: Load, options: Options) -> Replay:
    """The replay of the engine under a policy, not yet run."""
    return replay_of(Engine(policy, load, resident=options.model is Model.FINE), load, options)


def replay_of(lender: Lender, load: Load, options: Options) -> Replay:
    """The replay of any lender, not yet run."""
    if options.actuator is Actuator.CLUSTER:
        lender = SplitEvenly(lender, load.cores)
    if options.model is Model.FINE:
        return Fine(load, lender)
    return Coarse(load, lender, min(options.guard_s, load.step_s))


def widen(policy: Policy, load: Load) -> Policy:
    """A preset with machines of its own: one as wide as a host on each, and no cap below that."""
    cores = int(load.cores.max())
    machine = replace(policy.machine, vcpus=cores, memory_mib=2048 * cores)
    most = max(policy.max_machines, load.hosts)
    return replace(policy, machine=machine, machines_per_host=1, max_machines=most)
