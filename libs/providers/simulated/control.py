"""What an owner, an administrator or bad luck does to a simulated cloud. Every process sees it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from pydantic import ValidationError

from libs.common.clock import Clock
from libs.common.contracts.usage import Announced, Coming, HostState
from libs.providers.base import Capability
from libs.providers.simulated.passwords import hash_password
from libs.providers.simulated.physics import is_on
from libs.providers.simulated.rules import destroy
from libs.providers.simulated.settings import Faults
from libs.providers.simulated.state import CloudState, ClusterRecord, HostRecord, MachineRecord, record
from libs.providers.simulated.store import Store

Result = TypeVar("Result")


class Control:
    """The hand from outside. Unknown names raise LookupError, impossible values ValueError."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def set_fault(self, knob: str, value: bool | float) -> None:
        """Turn one knob of `Faults`, by its field's name."""

        def alter(state: CloudState, now_s: float) -> None:
            try:
                state.faults = Faults.model_validate({**state.faults.model_dump(), knob: value})
            except ValidationError as error:
                raise ValueError(f"fault {knob}: {error.errors()[0]['msg']}") from None

        self._change(alter)

    def clear_faults(self) -> None:
        """Back to a cloud that works. Its clock is right again too."""

        def alter(state: CloudState, now_s: float) -> None:
            state.faults = Faults()

        self._change(alter)

    def set_password(self, password: str) -> None:
        """Later logins need this password; sessions that are open go on."""

        def alter(state: CloudState, now_s: float) -> None:
            state.password_hash = hash_password(password, state.salt)

        self._change(alter)

    def set_owner_load(self, host: str, fraction: float | None) -> None:
        """From now on the owner uses this fraction of the host's CPU; None: by its profile again."""
        if fraction is not None and not 0.0 <= fraction <= 1.0:
            raise ValueError("owner load is a fraction from 0 to 1")
        self._change(lambda state, now_s: record(_host(state, host).load, now_s, fraction))

    def announce_owner_load(self, host: str, kind: Coming, in_s: float, fraction: float) -> None:
        """In so many seconds the owner will use this fraction of the host's CPU, and the cloud says so from now on."""
        if not 0.0 <= fraction <= 1.0:
            raise ValueError("owner load is a fraction from 0 to 1")

        def alter(state: CloudState, now_s: float) -> None:
            found, begins_s = _host(state, host), now_s + in_s
            record(found.load, begins_s, fraction)
            begins_at = datetime.fromtimestamp(begins_s, UTC)
            state.announced = [told for told in state.announced if told.host != host]
            state.announced.append(Announced(kind, begins_at, host=host))

        self._change(alter)

    def set_host_state(self, host: str, state: HostState) -> None:
        """Into or out of maintenance or standby. Ours keep running in maintenance: it is the driver's caller
        that must make them leave."""
        self._change(lambda cloud, now_s: record(_host(cloud, host).states, now_s, state))

    def fail_host(self, host: str) -> None:
        """The host dies, and our machines on it are off: nobody restarts them."""

        def alter(state: CloudState, now_s: float) -> None:
            record(_host(state, host).states, now_s, HostState.FAILED)
            for machine in state.machines:
                if machine.host == host and machine.deleted_at_s is None and is_on(machine, now_s):
                    record(machine.power, now_s, "off")

        self._change(alter)

    def repair_host(self, host: str) -> None:
        """Connected again, whatever was wrong."""
        self.set_host_state(host, HostState.CONNECTED)

    def add_template(self, name: str) -> None:
        """Put a template into the inventory."""
        self._change(
            lambda state, now_s: state.templates.setdefault(name, f"vm-{9001 + len(state.templates)}")
        )

    def remove_template(self, name: str) -> None:
        """The template vanishes."""
        self._change(lambda state, now_s: state.templates.pop(name))

    def kill_machine(self, name: str) -> None:
        """An administrator deletes one of our machines."""
        self._change(lambda state, now_s: destroy(_machine(state, name), now_s))

    def switch_off_machine(self, name: str) -> None:
        """An administrator switches one of our machines off."""
        self._change(lambda state, now_s: record(_machine(state, name).power, now_s, "off"))

    def tamper_limit(self, name: str, limit_mhz: float) -> None:
        """An administrator changes the CPU limit of one of our machines."""
        self._change(lambda state, now_s: record(_machine(state, name).limit, now_s, limit_mhz))

    def move_machine(self, name: str, host: str) -> None:
        """An administrator moves one of our machines to a host, of another cluster too."""

        def alter(state: CloudState, now_s: float) -> None:
            cluster = next(one for one in state.clusters if _host(state, host) in one.hosts)
            machine = _machine(state, name)
            machine.cluster, machine.host = cluster.cluster, host

        self._change(alter)

    def set_machine_error(self, name: str, error: str | None) -> None:
        """What the inventory shows as the machine's error."""

        def alter(state: CloudState, now_s: float) -> None:
            _machine(state, name).error = error

        self._change(alter)

    def add_foreign(self, name: str, cluster: str) -> None:
        """A machine that somebody else made, whatever its name looks like."""

        def alter(state: CloudState, now_s: float) -> None:
            state.foreign[name] = _cluster(state, cluster).cluster

        self._change(alter)

    def remove_cluster(self, cluster: str) -> None:
        """The cluster vanishes from the inventory, with all that is in it."""

        def alter(state: CloudState, now_s: float) -> None:
            _cluster(state, cluster).gone = True

        self._change(alter)

    def restore_cluster(self, cluster: str) -> None:
        """The cluster is back, with what was in it."""

        def alter(state: CloudState, now_s: float) -> None:
            _cluster(state, cluster).gone = False

        self._change(alter)

    def gain(self, capability: Capability) -> None:
        """The cloud can from now on do what it could not; sessions that are open do not know."""

        def alter(state: CloudState, now_s: float) -> None:
            without = tuple(one for one in state.settings.without if one != capability)
            state.settings = state.settings.model_copy(update={"without": without})

        self._change(alter)

    def shift_clock(self, offset: timedelta) -> None:
        """The cloud's clock minus everybody else's."""
        self.set_fault("clock_offset_s", offset.total_seconds())

    def _change(self, alter: Callable[[CloudState, float], Result]) -> None:
        now_s = self._clock.now().timestamp()
        self._store.change(lambda state: alter(state, now_s))


def _cluster(state: CloudState, cluster: str) -> ClusterRecord:
    for found in state.clusters:
        if found.cluster == cluster:
            return found
    raise LookupError(f"no cluster {cluster}")


def _host(state: CloudState, host: str) -> HostRecord:
    for cluster in state.clusters:
        for found in cluster.hosts:
            if found.host == host:
                return found
    raise LookupError(f"no host {host}")


def _machine(state: CloudState, name: str) -> MachineRecord:
    machine = state.find_machine(name)
    if machine is None:
        raise LookupError(f"no machine {name}")
    return machine
