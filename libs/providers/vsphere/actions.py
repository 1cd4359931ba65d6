"""What is done to existing machines: power, deletion. Each is found by name first, and only if it is ours."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from pyVmomi import vim, vmodl

from libs.providers.base import Cause, Power, ProviderError, Rejected
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.copying import delete_copies, remove_home
from libs.providers.vsphere.fleet import Labels, Machine, find_machine
from libs.providers.vsphere.inventory import read_objects
from libs.providers.vsphere.marks import is_name
from libs.providers.vsphere.session import Session
from libs.providers.vsphere.settings import VSphereSettings

POWER_WAIT_S = 60.0
DESTROY_WAIT_S = 60.0
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Yard:
    """What acting on machines needs from the open session."""

    session: Session
    settings: VSphereSettings
    installation_id: UUID
    labels: Labels


def find_own(api: Api, yard: Yard, name: str) -> Machine | None:
    """Our machine of this name. Raises Rejected(CONFLICT) when another installation made it."""
    machine = find_machine(api, yard.settings, yard.labels, name)
    if machine is not None and machine.label.mark.installation_id != yard.installation_id:
        raise Rejected(Cause.CONFLICT, f"{name} belongs to installation {machine.label.mark.installation_id}")
    return machine


async def set_power(yard: Yard, name: str, power: Power) -> None:
    """Bring a machine to a power state. SHUTDOWN returns once the guest was asked; without its tools it is cut off."""
    await yard.session.tasks.settle(name, f"powering {name} {power.value}")
    machine = await yard.session.call(lambda api: find_own(api, yard, name), f"finding {name}")
    if machine is None:
        raise Rejected(Cause.NOT_FOUND, f"no machine {name} of ours")
    if not machine.label.configured and power is Power.ON:
        raise Rejected(Cause.CONFLICT, f"{name} is not configured yet; create it again first")
    if machine.power is (Power.OFF if power is Power.SHUTDOWN else power):
        return
    doing = f"powering {name} {power.value}"
    if power is Power.SHUTDOWN and machine.power is Power.ON:
        if await yard.session.call(lambda api: _ask_guest(machine.ref), doing):
            return
        log.info("vsphere.guest_not_asked", machine=name, reason="its tools are not running")
    await _switch(yard, machine, Power.OFF if power is Power.SHUTDOWN else power, doing)


def _ask_guest(vm: Any) -> bool:
    """Ask the guest to shut down; False where it cannot be asked."""
    try:
        vm.ShutdownGuest()
    except (vim.fault.ToolsUnavailable, vmodl.fault.NotSupported):
        return False
    except vim.fault.InvalidPowerState:
        return True
    return True


async def _switch(yard: Yard, machine: Machine, power: Power, doing: str) -> None:
    start = {
        Power.ON: machine.ref.PowerOnVM_Task,
        Power.OFF: machine.ref.PowerOffVM_Task,
        Power.SUSPENDED: machine.ref.SuspendVM_Task,
    }[power]
    try:
        await yard.session.do(lambda api: start(), doing, POWER_WAIT_S, machine.name)
    except ProviderError as refusal:
        # Somebody else may have been quicker: what counts is the state that it is in now.
        if refusal.cause is Cause.CONFLICT and await _power_of(yard, machine, doing) is power:
            return
        raise


async def _power_of(yard: Yard, machine: Machine, doing: str) -> Power | None:
    found = await yard.session.call(lambda api: find_own(api, yard, machine.name), doing)
    return found.power if found is not None else None


async def delete_machine(yard: Yard, name: str) -> None:
    """Destroy a machine with its disks. Absent, or not ours, is success and touches nothing."""
    doing = f"deleting {name}"
    await yard.session.tasks.settle(name, doing)
    machine = await yard.session.call(lambda api: find_own(api, yard, name), doing)
    alone = await yard.session.call(lambda api: api.on_host, doing)
    if machine is not None:
        await _destroy(yard, machine, alone, doing)
        log.info("vsphere.machine_deleted", machine=name)
    if alone and is_name(name):
        await remove_home(yard.session, yard.settings, name, doing)


async def _destroy(yard: Yard, machine: Machine, alone: bool, doing: str) -> None:
    try:
        if machine.power is not Power.OFF:
            await _switch(yard, machine, Power.OFF, doing)
        if alone:
            await delete_copies(yard.session, yard.settings, machine, doing)
        await yard.session.do(lambda api: machine.ref.Destroy_Task(), doing, DESTROY_WAIT_S, machine.name)
    except Rejected as refusal:
        if refusal.cause is not Cause.NOT_FOUND or await _is_there(yard, machine, doing):
            raise


async def _is_there(yard: Yard, machine: Machine, doing: str) -> bool:
    """Whether the object itself still exists: NOT_FOUND may be about its task or its disk."""
    paths = {vim.VirtualMachine: ("name",)}
    return bool(
        await yard.session.call(lambda api: read_objects(api, "machines", [machine.ref], paths), doing)
    )
