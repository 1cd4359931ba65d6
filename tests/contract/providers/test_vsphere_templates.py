"""What a template is, and what its machines get of it: linked and limited disks, a guest that fits, its context."""

import base64
import re
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from pyVmomi import vim
from structlog.testing import capture_logs

from libs.providers.base import Capability, Cause, Rejected
from libs.providers.vsphere import VSphereProvider
from tests.contract.providers.target import deploy
from tests.contract.providers.vsphere_target import TEMPLATE, VSphereTarget, find
from tests.faultproxy import FaultProxy

LINKED = "createNewChildDiskBacking"


async def opened_with(target: VSphereTarget, **settings: Any) -> VSphereProvider:
    """The target's session, with these settings."""
    await target.provider.aclose()
    ca_pem = target.vcsim.ca_file.read_text()
    provider = await target.open_with(target.connection(target.vcsim.password, ca_pem, **settings))
    target.provider = provider
    return provider


def make_template(snapshot: bool, content: Any) -> None:
    """A true template, with or without a snapshot, which can only be taken before."""
    machine = find(content, vim.VirtualMachine, TEMPLATE)
    machine.PowerOffVM_Task()
    if snapshot:
        machine.CreateSnapshot_Task("base", "", False, False)
    machine.MarkAsTemplate()


def watch_clones(proxy: FaultProxy) -> list[bool]:
    """Fills with whether each clone was a linked one."""
    seen: list[bool] = []

    def look(method: str, body: str) -> None:
        if method == "CloneVM_Task":
            seen.append(LINKED in body and "<snapshot" in body)

    proxy.listener = look
    return seen


async def test_auto_makes_linked_clones_of_a_snapshot_and_full_ones_without(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    await opened_with(target, clone="auto")
    clones = watch_clones(proxy)
    with capture_logs() as logs:
        assert (await deploy(target, target.make_spec())).configured
    told = [each["reason"] for each in logs if each["event"] == "vsphere.full_clone_instead"]
    assert told == ["the template has no snapshot"]
    await target.back_door.run(partial(make_template, True))
    assert (await deploy(target, target.make_spec())).configured
    builder = replace(target.make_spec(), is_whole=True)  # its template outlives the one that it is made from
    assert (await deploy(target, builder)).configured
    await opened_with(target, clone="auto", datastore="LocalDS_1")
    with pytest.raises(Rejected, match="no datastore 'LocalDS_1'"):
        await target.provider.create(target.make_spec())
    await opened_with(target)
    assert (await deploy(target, target.make_spec())).configured
    assert clones == [False, True, False, False]


async def test_linked_alone_refuses_what_cannot_be_linked(target: VSphereTarget, proxy: FaultProxy) -> None:
    clones = watch_clones(proxy)
    for settings in ({"clone": "linked"}, {"linked_clone": True}):
        await opened_with(target, **settings)
        with pytest.raises(Rejected, match="no snapshot") as refusal:
            await target.provider.create(target.make_spec())
        assert refusal.value.cause is Cause.INVALID
        assert Capability.TEMPLATES not in target.provider.capabilities, "its clones could not be linked"
        with pytest.raises(Rejected, match="no snapshot"):
            await target.provider.keep_as_template(target.make_spec().name)
    await target.back_door.run(partial(make_template, True))
    await deploy(target, target.make_spec())
    assert clones == [True]


async def test_a_linked_clone_does_not_grow(target: VSphereTarget, proxy: FaultProxy) -> None:
    await target.back_door.run(partial(make_template, True))
    await opened_with(target, clone="auto")
    clones = watch_clones(proxy)
    template = await target.provider.find_template(TEMPLATE)
    assert template is not None
    await deploy(target, target.make_spec(disk_gib=template.disk_gib * 2))
    await deploy(target, target.make_spec(disk_gib=template.disk_gib))
    assert clones == [False, True]


async def test_every_disk_of_a_machine_is_limited_and_the_template_s_is_not(target: VSphereTarget) -> None:
    await opened_with(target, disk_iops=300)
    spec = target.make_spec()
    await deploy(target, spec)

    def limits(name: str, content: Any) -> list[Any]:
        devices: list[Any] = find(content, vim.VirtualMachine, name).config.hardware.device
        disks = [each for each in devices if isinstance(each, vim.vm.device.VirtualDisk)]
        return [each.storageIOAllocation and each.storageIOAllocation.limit for each in disks]

    assert await target.back_door.run(partial(limits, spec.name)) == [300]
    assert await target.back_door.run(partial(limits, TEMPLATE)) in ([None], [-1])


async def test_a_windows_template_is_unfit_and_a_linux_one_is_not(target: VSphereTarget) -> None:
    found = await target.provider.find_template(TEMPLATE)
    assert found is not None
    assert found.unfit is None
    spec = vim.vm.ConfigSpec(guestId="windows9Server64Guest")
    await target.back_door.run(
        lambda content: find(content, vim.VirtualMachine, TEMPLATE).ReconfigVM_Task(spec)
    )
    found = await target.provider.find_template(TEMPLATE)
    assert found is not None
    assert "Windows (windows9Server64Guest)" in (found.unfit or "")


PROPERTIES = (
    '<propSet><name>config.vAppConfig</name><val xsi:type="VmConfigInfo">'
    + "".join(
        f"<property><key>{key}</key><id>{name}</id><userConfigurable>true</userConfigurable>"
        "<defaultValue></defaultValue><value></value></property>"
        for key, name in enumerate(("password", "user-data", "instance-id", "hostname"), 1)
    )
    + "<ovfEnvironmentTransport>iso</ovfEnvironmentTransport><installBootRequired>false</installBootRequired>"
    "<installBootStopDelay>0</installBootStopDelay></val></propSet>"
)


async def test_an_appliance_that_asks_for_user_data_is_told_by_its_properties(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    said: list[str] = []
    proxy.listener = lambda method, body: said.append(body) if "guestinfo.userdata" in body else None
    await deploy(target, target.make_spec())
    assert "vAppConfig" not in said[-1]

    asked = False

    def ask(method: str, body: str) -> None:
        nonlocal asked
        asked = "<pathSet>config.vAppConfig<" in body
        if "guestinfo.userdata" in body:
            said.append(body)

    def show(method: str, text: str) -> bytes:
        return (text.replace("</objects>", PROPERTIES + "</objects>", 1) if asked else text).encode()

    proxy.listener, proxy.rules.mutate = ask, show
    spec = target.make_spec()
    assert (await deploy(target, spec)).configured
    told = dict(re.findall(r"<id>([^<]+)</id>.*?<value>([^<]*)</value>", said[-1], re.DOTALL))
    assert base64.b64decode(told["user-data"]).decode() == spec.user_data
    assert (told["instance-id"], told["hostname"]) == (str(spec.mark.machine_id), spec.name)
    assert "password" not in told
    assert "<ovfEnvironmentTransport>iso<" in said[-1]
