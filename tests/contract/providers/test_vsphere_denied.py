"""An account that lacks one privilege, for every privilege and every write: the refusal names it, so did validation.

The proxy asks for what a real vCenter asks for (`tests/faultproxy/privileges.py`). One machine goes its whole way, and
at each write every privilege that the write needs is missing once before it may happen: nothing is half made, what was
begun is listed as ours and can be deleted, and when the privilege is granted the same call goes on.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from pyVmomi import vim

from libs.providers.base import Cause, MachineSeen, MachineSpec, Power, Provider, Rejected
from libs.providers.vsphere.privileges import CLUSTER, DATASTORE, FOLDER, HOST, NETWORK, ROOT, TEMPLATE
from libs.providers.vsphere.role import list_privileges
from tests.contract.providers import administrator
from tests.contract.providers.target import deploy, seen
from tests.contract.providers.vsphere_target import TEMPLATE as SOURCE
from tests.contract.providers.vsphere_target import HostTarget, VSphereTarget, find, opened_host
from tests.faultproxy import FaultProxy
from tools.parts.vcsim import Vcsim

Act = Callable[[], Awaitable[object]]
MACHINE = "VirtualMachine."
BEFORE_THE_CLONE = (
    "Resource.AssignVMToPool", "Datastore.AllocateSpace",
    *(MACHINE + name for name in (
        "Inventory.CreateFromExisting", "Config.AddNewDisk", "Config.Settings", "Config.Annotation",
        "Config.AdvancedConfig",
    )),
)  # fmt: skip
"""Without these there is not even a clone."""
TO_CONFIGURE = (
    "Network.Assign",
    *(MACHINE + f"Config.{name}" for name in (
        "CPUCount", "Memory", "Resource", "DiskExtend", "EditDevice", "AddRemoveDevice",
    )),
)  # fmt: skip
"""Without these a clone stays as it is: off, marked as ours, and not configured."""
LIVED_WITHOUT = ("Global.ManageCustomFields", "Global.SetCustomField", "Host.Inventory.EditCluster")
NEVER_NEEDED_HERE = {"Resource.ColdMigrate"}
"""Asked for where the cloud puts a clone on another host than it was told: vcsim does not."""


NEVER_NEEDED_ON_HOST = {MACHINE + "Config.AddNewDisk", MACHINE + "Config.EditDevice"}
"""A disk is copied first and attached then, a card is made where there was none."""


class Denied:
    """Tries what an account may not do, privilege by privilege."""

    def __init__(self, provider: Provider, target: VSphereTarget, proxy: FaultProxy) -> None:
        self.provider = provider
        self.target = target
        self.proxy = proxy

    async def refused(self, privileges: Iterable[str], act: Act) -> None:
        """Each of these missing alone stands in the validation before, and in the refusal of the act."""
        for privilege in privileges:
            self.proxy.rules.lacking = {privilege}
            assert privilege in {each.privilege for each in (await self.provider.validate()).missing}
            before = self.proxy.denied[privilege]
            try:
                await act()
            except Rejected as refused:
                refusal = refused
            else:
                pytest.fail(f"nothing was refused for lack of {privilege}")
            assert refusal.cause is Cause.PERMISSION
            assert privilege in refusal.detail
            assert self.proxy.denied[privilege] > before
            assert self.proxy.denied[privilege] <= before + 2, "nobody asks again and again"
            self.proxy.rules.lacking = set()

    async def missed(self, privilege: str, act: Act) -> None:
        """Missing it is known beforehand, and the act does without."""
        self.proxy.rules.lacking = {privilege}
        assert privilege in {each.privilege for each in (await self.provider.validate()).missing}
        await act()
        assert self.proxy.denied[privilege], f"nothing asked for {privilege}"
        self.proxy.rules.lacking = set()

    async def look(self, spec: MachineSpec) -> MachineSeen | None:
        """The machine as it is listed: nothing else is there."""
        found = await self.provider.machines()
        assert {machine.name for machine in found} <= {spec.name}
        return found[0] if found else None


@pytest.fixture
async def denied(target: VSphereTarget, proxy: FaultProxy) -> AsyncIterator[Denied]:
    """With a template of two cards and a network of the operator's, so that every part of a machine is changed."""

    def prepare(content: Any) -> None:
        template = find(content, vim.VirtualMachine, SOURCE)
        if template.runtime.powerState == "poweredOn":
            template.PowerOffVM_Task()
        backing = vim.vm.device.VirtualEthernetCard.NetworkBackingInfo(deviceName="VM Network")
        card = vim.vm.device.VirtualE1000(key=-1, backing=backing)
        change = vim.vm.device.VirtualDeviceSpec(operation="add", device=card)
        template.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[change]))

    await target.back_door.run(prepare)
    connection = target.connection(target.vcsim.password, target.vcsim.ca_file.read_text())
    connection = replace(connection, settings={"network": target.network})
    provider = await target.open_with(connection)
    yield Denied(provider, target, proxy)
    await provider.aclose()


async def mark_as_template(target: VSphereTarget) -> None:
    await target.back_door.run(lambda content: find(content, vim.VirtualMachine, SOURCE).MarkAsTemplate())


async def test_every_missing_privilege_is_named_beforehand_and_by_the_write_that_needs_it(
    denied: Denied, target: VSphereTarget, proxy: FaultProxy
) -> None:
    provider, spec = denied.provider, target.make_spec(disk_gib=1.0)
    await _make(denied, spec)
    await _limit_and_power(denied, spec)
    await administrator.move_out(target.back_door, spec.name)
    bring_home = partial(provider.set_limits, spec.cluster, 800, {spec.name: 400})
    await denied.refused(["Resource.AssignVMToPool"], bring_home)

    await _derive(denied, spec)
    await denied.refused([MACHINE + "Inventory.Delete"], lambda: provider.delete(spec.name))
    await provider.delete(spec.name)
    assert not await target.exists(spec.name)
    await denied.refused(["Resource.DeletePool"], lambda: provider.release(spec.cluster))
    await denied.missed("Folder.Delete", lambda: provider.release(spec.cluster))
    await provider.release(spec.cluster)
    assert await administrator.pools(target.back_door) == []

    places = (FOLDER, TEMPLATE, CLUSTER, DATASTORE, NETWORK, ROOT)
    assert set(proxy.denied) | NEVER_NEEDED_HERE == {name for place in places for name in place.privileges}


async def _derive(denied: Denied, spec: MachineSpec) -> None:
    """The machine becomes a template; its clones would not be taken for finished machines."""
    provider, target = denied.provider, denied.target
    await provider.set_power(spec.name, Power.ON)
    with pytest.raises(Rejected, match="not off"):
        await provider.keep_as_template(spec.name)
    await provider.set_power(spec.name, Power.OFF)
    mark = [MACHINE + "Provisioning.MarkAsTemplate"]
    await denied.refused(mark, lambda: provider.keep_as_template(spec.name))
    kept = await provider.keep_as_template(spec.name)

    def options(content: Any) -> dict[str, str]:
        found = find(content, vim.VirtualMachine, spec.name)
        assert found.config.template
        return {option.key: option.value for option in found.config.extraConfig}

    told = await target.back_door.run(options)
    assert told["tides.configured"] != "1"
    assert not told.get("guestinfo.userdata")
    derived = replace(target.make_spec(disk_gib=1.0), template=kept.reference, network=target.network)
    needs = [MACHINE + "Provisioning.DeployTemplate"]
    await denied.refused(needs, lambda: provider.create(derived))


async def _make(denied: Denied, spec: MachineSpec) -> None:
    provider, target = denied.provider, denied.target

    async def create() -> None:
        await provider.create(spec)

    # A plain machine is cloned with one right, a template with another.
    await denied.refused(["Folder.Create", "Resource.CreatePool", MACHINE + "Provisioning.Clone"], create)
    await mark_as_template(target)
    await denied.refused([MACHINE + "Provisioning.DeployTemplate", *BEFORE_THE_CLONE], create)
    assert await denied.look(spec) is None
    assert not await target.exists(spec.name)

    await denied.refused(TO_CONFIGURE, create)
    half = await denied.look(spec)
    assert half is not None
    assert (half.configured, half.power, half.mark) == (False, Power.OFF, spec.mark)

    for privilege in LIVED_WITHOUT:
        await provider.delete(spec.name)
        assert not await target.exists(spec.name), "what was begun can be taken back"
        await denied.missed(privilege, create)
        made = await denied.look(spec)
        assert made is not None
        assert made.configured


async def _limit_and_power(denied: Denied, spec: MachineSpec) -> None:
    provider = denied.provider

    def cut(cap_mhz: float, mhz: float) -> Act:
        return partial(provider.set_limits, spec.cluster, cap_mhz, {spec.name: mhz})

    await denied.refused(["Resource.EditPool"], cut(900, 500))
    machine = await denied.look(spec)
    assert machine is not None
    assert machine.limit_mhz == 500, "the machine is cut though the pool may not be"
    await denied.refused([MACHINE + "Config.Resource"], cut(800, 400))
    for privilege, power, stays in (
        ("PowerOn", Power.ON, Power.OFF),
        ("Suspend", Power.SUSPENDED, Power.ON),
        ("PowerOff", Power.SHUTDOWN, Power.ON),
        ("PowerOff", Power.OFF, Power.ON),
    ):
        await denied.refused(
            [MACHINE + f"Interact.{privilege}"], partial(provider.set_power, spec.name, power)
        )
        machine = await denied.look(spec)
        assert machine is not None
        assert machine.power is stays
        if power is Power.ON:
            await provider.set_power(spec.name, Power.ON)


async def test_nothing_else_is_needed_from_the_first_call_to_the_last(
    denied: Denied, target: VSphereTarget, proxy: FaultProxy
) -> None:
    """An account that may do only what the role says."""
    granted = {name for _, name, _ in list_privileges()}

    class Everything(set[str]):
        def __contains__(self, privilege: object) -> bool:
            return privilege not in granted

        def __bool__(self) -> bool:
            return True

    proxy.rules.lacking = Everything()
    target.provider, spec = denied.provider, target.make_spec(disk_gib=1.0)
    assert (await deploy(target, spec)).configured
    await target.provider.set_limits(spec.cluster, 900, {spec.name: 500})
    for power in (Power.ON, Power.SUSPENDED, Power.ON, Power.OFF):
        await target.provider.set_power(spec.name, power)
    await target.provider.delete(spec.name)
    await target.provider.release(spec.cluster)
    assert await seen(target, spec.name) is None
    assert not proxy.denied


async def test_on_a_single_host_every_missing_privilege_is_named_too(vcsim: Vcsim) -> None:
    await vcsim.start(vms=1, flags=("-esx", "-autostart=false", "-perf-default", "1"))
    async with FaultProxy.before(vcsim) as proxy:
        proxy.rules.esxi = True
        async with opened_host(vcsim, proxy.url) as target:
            await _walk_on_host(Denied(target.provider, target, proxy), target)
            assert set(proxy.denied) == set(HOST.privileges) - NEVER_NEEDED_ON_HOST


async def _walk_on_host(denied: Denied, target: HostTarget) -> None:
    provider, spec = denied.provider, target.make_spec(disk_gib=2.0)

    async def create() -> None:
        await deploy(target, spec)

    ahead = ("Inventory.Create", "Config.Settings", "Config.Annotation", "Config.AdvancedConfig")
    places = ("Resource.CreatePool", "Datastore.FileManagement", "Resource.AssignVMToPool")
    await denied.refused([*places, *(MACHINE + name for name in ahead)], create)
    assert not await target.exists(spec.name)
    await denied.refused(["Datastore.Browse", "Datastore.AllocateSpace"], create)
    await denied.refused([MACHINE + "Config.AddExistingDisk"], create)
    half = await denied.look(spec)
    assert half is not None
    assert (half.configured, half.power) == (False, Power.OFF)
    await provider.delete(spec.name)
    assert await target.files(spec.name) is None, "no copy and no directory is left"
    assert denied.proxy.disks.loose == set()
    needed = [name for name in TO_CONFIGURE if name not in NEVER_NEEDED_ON_HOST]
    await denied.refused(needed, create)
    await create()
    await _limit_and_power(denied, spec)
    await denied.refused([MACHINE + "Inventory.Delete"], lambda: provider.delete(spec.name))
    await provider.delete(spec.name)
    await denied.refused(["Resource.DeletePool"], lambda: provider.release(spec.cluster))
    await provider.release(spec.cluster)
    assert await target.files(spec.name) is None
