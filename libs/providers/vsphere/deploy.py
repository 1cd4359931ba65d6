"""Making a machine: found by name, else cloned; then moved to its host, configured and marked. Every step repeats."""

import math
from typing import Any

import structlog
from pyVmomi import vim

from libs.providers.base import Cause, MachineSpec, Power, ProviderError, Rejected, Unavailable
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.copying import copy_disks, make_shell
from libs.providers.vsphere.faults import translate
from libs.providers.vsphere.fleet import Machine
from libs.providers.vsphere.hardware import (
    clone_spec,
    config_spec,
    device_changes,
    find_network,
    make_shares,
    read_devices,
)
from libs.providers.vsphere.inventory import Cluster, find_cluster
from libs.providers.vsphere.marks import name_of
from libs.providers.vsphere.overrides import keep_in_place, show_attribute
from libs.providers.vsphere.ovf import environment_spec, read_properties
from libs.providers.vsphere.placing import (
    Workshop,
    find_host,
    find_ours,
    find_pool,
    find_template,
    make_place,
    network_of,
    refuse_look_alike,
)

CLONE_CALL_S = 60.0
CLONE_WAIT_S = 15.0
USER_DATA_LIMIT = 16 * 1024
log = structlog.get_logger()


def check_spec(spec: MachineSpec) -> None:
    """Raises Rejected(INVALID) for what no vSphere can take, or what would be unlimited."""
    if spec.name != name_of(spec.mark):
        raise Rejected(Cause.INVALID, f"a machine's name must be {name_of(spec.mark)!r}")
    if not math.isfinite(spec.limit_mhz) or spec.limit_mhz < 1:
        raise Rejected(Cause.INVALID, "a machine needs a CPU limit of at least 1 MHz")
    if spec.vcpus < 1 or spec.memory_mib < 4 or spec.memory_mib % 4:
        raise Rejected(Cause.INVALID, "a machine has at least one vCPU, and memory in steps of 4 MiB")
    if len(spec.user_data.encode()) > USER_DATA_LIMIT:
        raise Rejected(Cause.INVALID, f"user data is larger than {USER_DATA_LIMIT} bytes")


async def create_machine(shop: Workshop, spec: MachineSpec) -> None:
    """Make the machine, or go on where an earlier call stopped; returns early while the clone is still running."""
    check_spec(spec)
    doing = f"creating {spec.name}"
    # A machine that is still being cloned may already be listed: what is known of the clone comes first.
    if shop.clones.find(spec.name) is not None and not await _clone(shop, spec, doing):
        return
    await shop.session.tasks.settle(spec.name, doing)
    found = await shop.session.call(lambda api: find_ours(api, shop, spec), doing)
    alone = await shop.session.call(lambda api: api.on_host, doing)
    if found is None:
        if not await (make_shell(shop, spec, doing) if alone else _clone(shop, spec, doing)):
            return
        found = await shop.session.call(lambda api: find_ours(api, shop, spec), doing)
    if found is None:
        raise Unavailable(Cause.CONFLICT, f"{doing}: the clone has ended and is not in our folder yet")
    if found.label.configured:
        return
    if alone and not await copy_disks(shop, spec, found, doing):
        return
    await _configure(shop, spec, found, doing)


async def _clone(shop: Workshop, spec: MachineSpec, doing: str) -> bool:
    """Clone, and wait a little. False while it still runs: accepted, the next call goes on."""
    try:
        task = shop.clones.find(spec.name)
        if task is None:
            task = await shop.session.call(lambda api: _start_clone(api, shop, spec), doing, CLONE_CALL_S)
            if task is None:
                return False
            log.info("vsphere.clone_started", machine=spec.name, cluster=spec.cluster, template=spec.template)
        if not await _has_ended(shop, spec, task, doing):
            return False
    except ProviderError as refusal:
        if refusal.cause is Cause.CONFLICT and "DuplicateName" in refusal.detail:
            return await _is_being_made(shop, spec, doing)
        raise
    return True


async def _has_ended(shop: Workshop, spec: MachineSpec, task: Any, doing: str) -> bool:
    """Whether the clone is over, well or unknown. A clone is not forgotten before its end is seen."""
    try:
        end = await shop.session.tasks.end_of(task, doing, CLONE_WAIT_S)
    except Unavailable as refusal:
        if refusal.cause is not Cause.TIMEOUT:
            raise
        return False
    shop.clones.forget(spec.name)
    if end.fault is not None:
        raise translate(end.fault, doing)
    return True


async def _is_being_made(shop: Workshop, spec: MachineSpec, doing: str) -> bool:
    """The name is taken: by our clone of an earlier call (False while it runs), else it is somebody's."""
    found = await shop.session.call(lambda api: find_ours(api, shop, spec), doing)
    if found is not None:
        return True
    cluster = await shop.session.call(lambda api: find_cluster(api, shop.settings, spec.cluster), doing)
    await shop.session.call(lambda api: refuse_look_alike(api, shop, spec, cluster), doing)
    return False


def _start_clone(api: Api, shop: Workshop, spec: MachineSpec) -> Any | None:
    """Start the clone; None when one of this name is being made already."""
    cluster = find_cluster(api, shop.settings, spec.cluster)
    template = find_template(api, shop, spec)
    host = find_host(cluster, spec.host)
    find_network(api, cluster, network_of(shop, spec))
    if refuse_look_alike(api, shop, spec, cluster):
        return None
    place = make_place(api, shop, spec, cluster, template, host)
    task = template.ref.CloneVM_Task(place.folder, spec.name, clone_spec(spec, place))
    shop.clones.note(spec, task)
    return task


async def _configure(shop: Workshop, spec: MachineSpec, machine: Machine, doing: str) -> None:
    """Bring a fresh clone to its host and configure it; the mark of completion is written by the same change."""
    if machine.power is not Power.OFF:
        raise Rejected(Cause.CONFLICT, f"{spec.name} was powered on before it was configured")
    cluster = await shop.session.call(lambda api: find_cluster(api, shop.settings, spec.cluster), doing)
    if spec.host is not None and machine.host_id != spec.host:
        await shop.session.do(
            lambda api: _move(api, shop, spec, cluster, machine), doing, CLONE_WAIT_S, spec.name
        )
    await keep_in_place(shop.session, cluster, machine.ref)
    await shop.session.do(lambda api: _reconfigure(api, shop, spec, cluster, machine), doing, about=spec.name)
    await show_attribute(shop.session, machine.ref, spec.mark)
    log.info("vsphere.machine_configured", machine=spec.name, cluster=spec.cluster, host=spec.host)


def _move(api: Api, shop: Workshop, spec: MachineSpec, cluster: Cluster, machine: Machine) -> Any:
    pool = find_pool(api, shop, spec, cluster)
    return machine.ref.RelocateVM_Task(vim.vm.RelocateSpec(host=find_host(cluster, spec.host), pool=pool))


def _reconfigure(api: Api, shop: Workshop, spec: MachineSpec, cluster: Cluster, machine: Machine) -> Any:
    network = find_network(api, cluster, network_of(shop, spec))
    changes = device_changes(read_devices(api, machine.ref), spec, network, shop.settings.disk_iops)
    config = config_spec(spec, changes, make_shares(least=not cluster.pools_possible))
    config.vAppConfig = environment_spec(read_properties(api, machine.ref), spec)
    return machine.ref.ReconfigVM_Task(config)
