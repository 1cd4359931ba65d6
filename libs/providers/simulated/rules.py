"""What the cloud does when asked, and what it refuses, as a real vCenter would: functions that alter a state.

A refusal leaves the state as it was: everything is checked before anything is changed.
"""

import math
import re
from collections.abc import Mapping
from uuid import UUID

from libs.common.contracts.usage import HostState
from libs.providers.base import (
    Capability,
    Cause,
    Full,
    MachineSpec,
    Power,
    ProviderError,
    Rejected,
    Unavailable,
)
from libs.providers.simulated.owner import chance, key_of
from libs.providers.simulated.physics import (
    datastore_free_gib,
    is_on,
    is_starting,
    owner_mhz,
    owner_mib,
    state_of,
)
from libs.providers.simulated.state import (
    CloudState,
    ClusterRecord,
    HostRecord,
    MachineRecord,
    record,
    value_at,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_USER_DATA_BYTES = 16 * 1024
_SHUTDOWN_S = 30.0
_BUILDS = "/usr/local/sbin/tides-build"
"""In the user-data of a guest that makes itself an image and turns off."""
_BUILD_S = 40.0
_TEMPLATES_FROM = 20_000


def create(state: CloudState, spec: MachineSpec, now_s: float) -> None:
    """Begin a clone, or finish the configuration of one that stopped half-way; nothing when the machine
    exists."""
    cluster = _cluster(state, spec.cluster)
    _check_spec(state, spec, cluster)
    if spec.name in state.foreign:
        raise Rejected(Cause.CONFLICT, f"{spec.name} exists and is not ours")
    machine = state.find_machine(spec.name)
    if machine is None:
        _clone(state, spec, cluster, now_s)
    elif (machine.installation_id, machine.machine_id) != (spec.mark.installation_id, spec.mark.machine_id):
        raise Rejected(Cause.CONFLICT, f"{spec.name} bears another mark")
    elif machine.half and now_s >= machine.cloned_at_s:
        machine.half = False
        record(machine.limit, now_s, float(math.floor(spec.limit_mhz)))


def delete(state: CloudState, name: str, installation_id: UUID, now_s: float) -> None:
    """Power off and destroy; absent is success. Refused while the machine's host is not to be reached."""
    machine = _find_own(state, name, installation_id)
    if machine is not None:
        if state.faults.delete_forbidden:
            raise Rejected(Cause.PERMISSION, f"this account may not delete {name}")
        _check_reachable(state, machine, now_s)
        destroy(machine, now_s)
    elif name.startswith("tides-"):  # others' are never called so
        state.templates.pop(name, None)


def keep_as_template(state: CloudState, name: str, installation_id: UUID, now_s: float) -> None:
    """A machine that is off becomes a template of its name; one that is a template already is left."""
    machine = _find_own(state, name, installation_id)
    if machine is None:
        if name in state.templates:
            return
        raise Rejected(Cause.NOT_FOUND, f"no machine {name}")
    if value_at(machine.power, now_s) != "off":
        raise Rejected(Cause.CONFLICT, f"{name} is not off")
    machine.deleted_at_s = now_s
    state.templates[name] = f"vm-{_TEMPLATES_FROM + machine.ordinal}"


def destroy(machine: MachineRecord, now_s: float) -> None:
    """End a machine, by whoever asked."""
    record(machine.power, now_s, "off")
    machine.deleted_at_s = now_s


def set_power(state: CloudState, name: str, power: Power, installation_id: UUID, now_s: float) -> None:
    """Bring a machine to a power state. Refused while its host is not to be reached, unless it is in it."""
    machine = _find_own(state, name, installation_id)
    if machine is None:
        raise Rejected(Cause.NOT_FOUND, f"no machine {name}")
    if not _is_already(machine, power, now_s):
        _check_reachable(state, machine, now_s)
    if power is Power.ON:
        _power_on(state, machine, now_s)
    elif power is Power.OFF:
        record(machine.power, now_s, "off")
    elif power is Power.SHUTDOWN:
        _shut_down(state, machine, now_s)
    else:
        _suspend(state, machine, now_s)


def set_limits(
    state: CloudState,
    cluster: str,
    cap_mhz: float,
    limits: Mapping[str, float],
    installation_id: UUID,
    now_s: float,
) -> int | ProviderError:
    """Set the pool's cap and limits in whole MHz, rounded down; machines that are absent or unconfigured are
    passed over. Returns how many objects changed, or the refusal about one machine after all others were set."""
    pool = _cluster(state, cluster)
    for value in (cap_mhz, *limits.values()):
        _check_limit(value)
    found = [(_find_own(state, name, installation_id), mhz) for name, mhz in limits.items()]
    changed = int(record(pool.cap, now_s, float(math.floor(cap_mhz))))
    refusals: list[ProviderError] = []
    for machine, mhz in found:
        if machine is None or not machine.is_configured(now_s):
            continue
        if machine.cluster != cluster:
            refusals.append(Rejected(Cause.NOT_FOUND, f"no machine of ours in {cluster}: {machine.name}"))
        elif machine.limit[-1][1] != math.floor(mhz) and _is_out_of_reach(state, machine, now_s):
            refusals.append(_out_of_reach(machine))
        else:
            changed += record(machine.limit, now_s, float(math.floor(mhz)))
    return refusals[0] if refusals else changed


def release(state: CloudState, cluster: str, now_s: float) -> None:
    """Remove the pool; refused while a machine is in it."""
    pool = state.find_cluster(cluster)
    if pool is None:
        return
    if any(machine.cluster == cluster and machine.deleted_at_s is None for machine in state.machines):
        raise Rejected(Cause.CONFLICT, f"machines of ours are in {cluster}")
    record(pool.cap, now_s, None)


def _check_spec(state: CloudState, spec: MachineSpec, cluster: ClusterRecord) -> None:
    if not _NAME.fullmatch(spec.name):
        raise Rejected(
            Cause.INVALID, "a machine's name is 1 to 80 letters, digits, dots, dashes and underscores"
        )
    if spec.template not in state.templates and spec.template not in state.templates.values():
        raise Rejected(Cause.NOT_FOUND, f"no template {spec.template}")
    if not 1 <= spec.vcpus <= cluster.cores:
        raise Rejected(Cause.INVALID, f"{spec.vcpus} vCPUs do not fit a host of {cluster.cores} cores")
    if spec.memory_mib <= 0 or not 0 < spec.disk_gib < math.inf:
        raise Rejected(Cause.INVALID, "memory and disk must be positive")
    if len(spec.user_data.encode()) > _USER_DATA_BYTES:
        raise Rejected(Cause.INVALID, "user data exceeds 16 KiB")
    _check_limit(spec.limit_mhz)


def _check_limit(mhz: object) -> None:
    """Unlimited does not exist: neither None, nor -1, nor infinity."""
    if not isinstance(mhz, int | float) or not 0 <= mhz < math.inf:
        raise Rejected(Cause.INVALID, "a limit is a number of MHz from 0")


def _clone(state: CloudState, spec: MachineSpec, cluster: ClusterRecord, now_s: float) -> None:
    if state.faults.create_full:
        raise Full(Cause.CAPACITY, f"no room in {cluster.name}")
    host = _place(state, spec, cluster, now_s)
    needed_gib = spec.disk_gib + spec.memory_mib / 1024.0
    if needed_gib > datastore_free_gib(state, cluster, now_s):
        raise Full(Cause.CAPACITY, f"the datastore of {cluster.name} has less than {needed_gib:.0f} GiB free")
    ordinal = state.next_ordinal
    state.next_ordinal += 1
    host.clones += 1
    cloned_at_s = now_s + _lasting(state, "clone", host.host, host.clones, state.settings.clone_s)
    half = state.faults.half_clone
    state.machines.append(
        MachineRecord(
            name=spec.name,
            installation_id=spec.mark.installation_id,
            machine_id=spec.mark.machine_id,
            ordinal=ordinal,
            nth=host.clones,
            cluster=cluster.cluster,
            host=host.host,
            template=spec.template,
            vcpus=spec.vcpus,
            memory_mib=spec.memory_mib,
            disk_gib=spec.disk_gib,
            user_data=spec.user_data,
            created_at_s=now_s,
            cloned_at_s=cloned_at_s,
            booting_s=_lasting(state, "boot", host.host, host.clones, state.settings.boot_s),
            half=half,
            power=[(now_s, "off")],
            limit=[] if half else [(cloned_at_s, float(math.floor(spec.limit_mhz)))],
        )
    )
    if value_at(cluster.cap, now_s) is None:
        record(cluster.cap, now_s, float(math.floor(spec.limit_mhz)))


def _lasting(state: CloudState, what: str, host: str, nth: int, mean_s: float) -> float:
    """The n-th clone or boot on a host: the mean plus or minus 20 %."""
    return mean_s * (0.8 + 0.4 * chance(key_of(state.settings.seed, what, host), nth))


def _place(state: CloudState, spec: MachineSpec, cluster: ClusterRecord, now_s: float) -> HostRecord:
    """The spec's host, or the one with most headroom that has the memory."""
    if spec.host is not None:
        host = next((one for one in cluster.hosts if one.host == spec.host), None)
        if host is None:
            raise Rejected(Cause.NOT_FOUND, f"no host {spec.host} in {cluster.name}")
        _check_connected(host, now_s)
        _check_memory(state, cluster, host, spec.memory_mib, now_s)
        return host
    fitting = [
        host
        for host in cluster.hosts
        if state_of(host, now_s) is HostState.CONNECTED
        and _free_mib(state, cluster, host, now_s) >= spec.memory_mib
    ]
    if not fitting:
        raise Full(Cause.CAPACITY, f"no host of {cluster.name} has {spec.memory_mib} MiB free")
    return max(fitting, key=lambda host: _headroom_mhz(state, cluster, host, now_s))


def _headroom_mhz(state: CloudState, cluster: ClusterRecord, host: HostRecord, now_s: float) -> float:
    promised = sum(machine.limit[-1][1] if machine.limit else 0.0 for machine in _residents(state, host))
    return cluster.capacity_mhz - owner_mhz(state, cluster, host, now_s) - promised


def _residents(state: CloudState, host: HostRecord) -> list[MachineRecord]:
    return [
        machine for machine in state.machines if machine.host == host.host and machine.deleted_at_s is None
    ]


def _free_mib(
    state: CloudState,
    cluster: ClusterRecord,
    host: HostRecord,
    now_s: float,
    but: MachineRecord | None = None,
) -> float:
    """Memory that neither the owner uses nor ours were promised."""
    promised = sum(machine.memory_mib for machine in _residents(state, host) if machine is not but)
    return cluster.memory_mib - owner_mib(state, cluster, host, now_s) - promised


def _check_connected(host: HostRecord, now_s: float) -> None:
    found = state_of(host, now_s)
    if found is not HostState.CONNECTED:
        raise Rejected(Cause.CONFLICT, f"{host.host} is in state {found}")


def _check_reachable(state: CloudState, machine: MachineRecord, now_s: float) -> None:
    """What runs on a host that has lost its connection cannot be altered, whatever is asked."""
    if _is_out_of_reach(state, machine, now_s):
        raise _out_of_reach(machine)


def _is_out_of_reach(state: CloudState, machine: MachineRecord, now_s: float) -> bool:
    hosts = _cluster(state, machine.cluster).hosts
    return any(host.host == machine.host and state_of(host, now_s) is HostState.FAILED for host in hosts)


def _out_of_reach(machine: MachineRecord) -> Unavailable:
    return Unavailable(Cause.UNREACHABLE, f"{machine.name}: host {machine.host} is not connected")


def _check_memory(
    state: CloudState, cluster: ClusterRecord, host: HostRecord, needed_mib: int, now_s: float
) -> None:
    free_mib = _free_mib(state, cluster, host, now_s)
    if needed_mib > free_mib:
        raise Full(
            Cause.CAPACITY, f"{host.host} has {max(0.0, free_mib):.0f} MiB free, {needed_mib} are needed"
        )


def _power_on(state: CloudState, machine: MachineRecord, now_s: float) -> None:
    if not machine.is_configured(now_s):
        raise Rejected(Cause.CONFLICT, f"{machine.name} is not configured")
    if is_on(machine, now_s):
        return
    cluster = _cluster(state, machine.cluster)
    host = next(one for one in cluster.hosts if one.host == machine.host)
    _check_connected(host, now_s)
    if machine.memory_mib > _free_mib(state, cluster, host, now_s, but=machine):
        raise Full(Cause.CAPACITY, f"{host.host} lacks the memory for {machine.name}")
    suspended = value_at(machine.power, now_s) == "suspended"
    if not suspended and machine.memory_mib / 1024.0 > datastore_free_gib(state, cluster, now_s):
        raise Full(Cause.CAPACITY, f"the datastore of {cluster.name} lacks room for a swap file")
    record(machine.power, now_s, "resume" if suspended else "boot")
    if _BUILDS in machine.user_data and not suspended:
        machine.power.append((now_s + machine.booting_s + _BUILD_S, "off"))


def _is_already(machine: MachineRecord, power: Power, now_s: float) -> bool:
    if power is Power.ON:
        return is_on(machine, now_s)
    now = value_at(machine.power, now_s) or "off"
    return now == ("suspended" if power is Power.SUSPENDED else "off")


def _shut_down(state: CloudState, machine: MachineRecord, now_s: float) -> None:
    """A guest that runs takes its time; one that cannot be asked is switched off."""
    if Capability.GUEST_SHUTDOWN in state.settings.without:
        raise Rejected(Cause.INVALID, "this cloud cannot ask guests")
    if not is_on(machine, now_s) or is_starting(machine, now_s):
        record(machine.power, now_s, "off")
    elif machine.power[-1][0] <= now_s:
        takes_s = _lasting(state, "shutdown", machine.host, machine.nth, _SHUTDOWN_S)
        machine.power.append((now_s + takes_s, "off"))


def _suspend(state: CloudState, machine: MachineRecord, now_s: float) -> None:
    if Capability.SUSPEND in state.settings.without:
        raise Rejected(Cause.INVALID, "this cloud cannot suspend")
    if value_at(machine.power, now_s) == "off":
        raise Rejected(Cause.CONFLICT, f"{machine.name} is off")
    record(machine.power, now_s, "suspended")


def _cluster(state: CloudState, cluster: str) -> ClusterRecord:
    found = state.find_cluster(cluster)
    if found is None:
        raise Rejected(Cause.NOT_FOUND, f"no cluster {cluster}")
    return found


def _find_own(state: CloudState, name: str, installation_id: UUID) -> MachineRecord | None:
    """A machine that this installation may alter; None when there is none. Raises Rejected for somebody
    else's."""
    if name in state.foreign:
        raise Rejected(Cause.PERMISSION, f"{name} is not ours")
    machine = state.find_machine(name)
    if machine is None or (found := state.find_cluster(machine.cluster)) is None:
        return None
    if machine.installation_id != installation_id:
        raise Rejected(Cause.PERMISSION, f"{name} belongs to another installation, in {found.name}")
    return machine
