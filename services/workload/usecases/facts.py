"""What the engine is told besides the sample: the machines there are, and what people and modes ask for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from pydantic import TypeAdapter

from libs.common.contracts import lenient
from libs.common.contracts.resource import Mode
from libs.common.contracts.usage import Announced, Sample
from libs.harvest.types import Facts, MachineFact, Observation
from services.workload.domain.states import COUNTED, ENGINE_STATE, MachineState
from services.workload.domain.words import ONLY_OBSERVES, PROBE_OVER, by_hand, released
from services.workload.models import Cluster, Machine, Resource
from services.workload.usecases.following import is_limited, is_probe

_ANNOUNCED = TypeAdapter(tuple[Announced, ...])


@dataclass(frozen=True, slots=True)
class Clocks:
    """A moment of two clocks: rows keep ours, the engine goes by the cloud's."""

    now: datetime
    there: datetime


@dataclass(frozen=True, slots=True)
class Granted:
    """What is granted to a cluster of what is shared: machines in all, and the priority of each that is there."""

    machines: int | None
    priorities: Mapping[UUID, int]


def facts_of(
    resource: Resource,
    cluster: Cluster,
    machines: Sequence[Machine],
    granted: Granted,
    clocks: Clocks,
    observation: Observation,
) -> Facts:
    """The facts of one cluster."""
    return Facts(
        now=clocks.there,
        machines=tuple(
            _fact(machine, clocks.now, granted.priorities.get(machine.id, 0))
            for machine in machines
            if _is_there(machine)
        ),
        granted_machines=granted.machines,
        paused=_why_paused(resource, cluster),
        draining=why_draining(resource, cluster, machines) is not None,
        interval_s=cluster.interval_s,
        coming=_coming(cluster, observation),
    )


def _coming(cluster: Cluster, observation: Observation) -> tuple[Announced, ...]:
    """What the newest sample says is about to come; it holds through silence, and the engine knows when it is over."""
    if isinstance(observation, Sample):
        return observation.coming
    told = (cluster.sample or {}).get("coming")
    return lenient.validate(_ANNOUNCED.validate_python, told)[0] if told else ()


def _is_there(machine: Machine) -> bool:
    """Whether a decision counts it: also one that runs on because its deletion is refused, as one that drains."""
    return machine.state in COUNTED or (machine.state is MachineState.DESTROYING and is_limited(machine))


def why_draining(resource: Resource, cluster: Cluster, machines: Sequence[Machine]) -> str | None:
    """Why everything of ours is to leave the cluster, if it is; who only observes again gives back what it has."""
    if resource.mode == Mode.DRAINING:
        return released(force=resource.force)
    if cluster.draining:
        return by_hand("drained", cluster.drained_by, cluster.drained_reason)
    if resource.mode != Mode.OBSERVE or all(is_probe(resource, machine) for machine in machines):
        return None
    return PROBE_OVER if all(machine.probe_id is not None for machine in machines) else ONLY_OBSERVES


def _why_paused(resource: Resource, cluster: Cluster) -> str | None:
    if cluster.paused_reason is not None:
        return f"{cluster.paused_reason} (by {cluster.paused_by})"
    # A mode of a newer process is paused here, too.
    return "the resource is paused" if lenient.word_of(Mode, resource.mode) is Mode.PAUSED else None


def _fact(machine: Machine, now: datetime, priority: int) -> MachineFact:
    since = machine.running_since
    # What drains because of a decision is still the decision's: it may run on when the owner calms down.
    drains = machine.state is MachineState.DRAINING and not machine.wanted_by_hand
    return MachineFact(
        machine=str(machine.id),
        host=machine.host,
        state=ENGINE_STATE[MachineState.RUNNING if drains else machine.state],
        vcpus=machine.vcpus,
        age_s=max(0.0, (now - machine.created_at).total_seconds()),
        progress_s=0.0 if since is None else max(0.0, (now - since).total_seconds()),
        memory_mib=machine.memory_mib,
        disk_gib=machine.disk_gib,
        priority=priority,
    )
