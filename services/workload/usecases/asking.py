"""Whether an act that a look found due is still to be asked of the cloud: much may have changed since."""

from libs.common.contracts.resource import Mode
from libs.common.contracts.supply import TemplateState
from libs.common.db import Session
from libs.harvest.types import Rung
from services.workload.domain.states import ENDED, MachineState, Wanted
from services.workload.domain.steps import Act
from services.workload.models import Cluster, Derivation, Machine, Resource, Template
from services.workload.usecases.following import is_probe
from services.workload.usecases.images import MODES, is_tainted
from services.workload.usecases.looking import Due


async def is_still_due(session: Session, resource: Resource, due: Due) -> bool:
    """Whether an act is still wanted: a mode, a decision or a person may have changed that since the look."""
    if due.machine_id is None:
        return True
    machine = await session.get_one(Machine, due.machine_id)
    match due.act:
        case Act.KEEP:
            is_wanted = machine.state not in ENDED and machine.wanted is Wanted.RUNNING
            return is_wanted and resource.mode in MODES and not is_tainted(machine)
        case Act.DELETE:
            return machine.state is MachineState.DESTROYING
        case Act.POWER_ON:
            return machine.wanted is Wanted.RUNNING and await _may_start(session, resource, machine)
        case Act.SUSPEND:
            return machine.wanted is Wanted.SUSPENDED
        case Act.CREATE:
            return machine.wanted is not Wanted.GONE and await _may_be_made(session, resource, machine)


async def _may_start(session: Session, resource: Resource, machine: Machine) -> bool:
    """Whether a builder may be powered on: not where what is lent is suspended; decisions say so of all others."""
    if machine.derivation_id is None:
        return True
    cluster = await session.get_one(Cluster, machine.cluster_id)
    return resource.mode in MODES and (cluster.decision or {}).get("rung", Rung.DRAIN) < Rung.SUSPEND


async def _may_be_made(session: Session, resource: Resource, machine: Machine) -> bool:
    """Whether lending allows another clone now; one that the cloud has begun may be finished on a harder rung."""
    template = await session.get(Template, machine.template_version_id)
    if machine.derivation_id is not None:
        derivation = await session.get(Derivation, machine.derivation_id)
        if derivation is None or derivation.over:
            return False
    is_apart = is_probe(resource, machine) or machine.derivation_id is not None
    may_be = resource.mode == Mode.LEND or (resource.mode == Mode.OBSERVE and is_apart)
    if not may_be or template is None or template.state != TemplateState.APPROVED:
        return False
    cluster = await session.get_one(Cluster, machine.cluster_id)
    return machine.power is not None or (cluster.decision or {}).get("rung", Rung.DRAIN) < Rung.NO_NEW
