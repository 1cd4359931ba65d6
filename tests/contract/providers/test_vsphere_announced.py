"""What owners begin is told with the samples before it is done; vcsim ends every task at once, so the proxy is late."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from pyVmomi import vim

from libs.common.clock import WallClock
from libs.common.contracts.usage import Announced, Coming
from libs.providers.base import Power
from tests.contract.providers.target import bring, deploy
from tests.contract.providers.vsphere_target import TEMPLATE, BackDoor, VSphereTarget, find
from tests.faultproxy import FaultProxy, Late, no_permission
from tools.parts.vcsim import Vcsim

OWNERS = TEMPLATE


def through(proxy: FaultProxy, vcsim: Vcsim) -> BackDoor:
    """An administrator whose tasks take their time."""
    here = {"username": vcsim.username, "password": vcsim.password, "ca_file": vcsim.ca_file}
    return BackDoor(cast(Vcsim, SimpleNamespace(host=vcsim.host, port=proxy.port, **here)))


def act(name: str, what: Callable[[Any, Any], object]) -> Callable[[Any], Any]:
    def run(content: Any) -> Any:
        machine = find(content, vim.VirtualMachine, name)
        what(content, machine)
        return machine.runtime.host._GetMoId()

    return run


async def told(target: VSphereTarget) -> list[Announced]:
    await target.settle()
    return [each for sample in await target.provider.sample(None) for each in sample.coming]


async def test_what_an_owner_begins_is_told_before_it_is_done_and_ours_is_not(
    target: VSphereTarget, proxy: FaultProxy, vcsim: Vcsim
) -> None:
    assert await told(target) == [], "what had ended before shows in the samples"
    spec = target.make_spec()
    await deploy(target, spec)
    await bring(target, spec.name, Power.ON)
    assert await told(target) == []

    slow = through(proxy, vcsim)
    proxy.rules.late["PowerOnVM_Task"] = Late(600)
    await target.back_door.run(act(OWNERS, lambda _, vm: vm.PowerOffVM_Task()))
    host = await slow.run(act(OWNERS, lambda _, vm: vm.PowerOnVM_Task()))
    (coming,) = await told(target)
    assert (coming.kind, coming.host, coming.share) == (Coming.POWER_ON, host, 0.5)
    proxy.tasks.release()
    proxy.rules.late.clear()

    await target.back_door.run(act(OWNERS, lambda _, vm: vm.CreateSnapshot_Task("s", "", False, False)))
    kinds = {each.kind: each.host for each in await told(target)}
    assert kinds == {Coming.POWER_ON: host, Coming.SNAPSHOT: host}


async def test_a_move_is_told_of_the_host_that_it_goes_to(
    target: VSphereTarget, proxy: FaultProxy, vcsim: Vcsim
) -> None:
    assert await told(target) == []
    slow = through(proxy, vcsim)
    sample = (await target.provider.sample(None))[0]
    home = await target.back_door.run(act(OWNERS, lambda *_: None))
    away = next(host for host in sample.hosts if host != home)

    def move(content: Any, vm: Any) -> None:
        place = vim.HostSystem(away, content.rootFolder._stub)
        about = vim.event.VmEventArgument(name="a name that a tenant chose </vm><x>", vm=vm)
        event = vim.event.VmBeingHotMigratedEvent(
            key=0, chainId=0, createdTime=WallClock().now(), userName="", vm=about, template=False,
            host=vim.event.HostEventArgument(name="h", host=vm.runtime.host),
            destHost=vim.event.HostEventArgument(name="h", host=place),
        )  # fmt: skip
        content.eventManager.PostEvent(event)
        vm.RelocateVM_Task(vim.vm.RelocateSpec(host=place))

    proxy.rules.late["RelocateVM_Task"] = Late(600)
    proxy.rules.faults["CreateCollectorForEvents"] = no_permission("System.View")
    await slow.run(act(OWNERS, move))
    assert await told(target) == [], "who may not read events learns of it when it has arrived"
    proxy.rules.faults.clear()
    await target.provider.aclose()
    target.provider = await target.open(target.vcsim.password)
    (coming,) = await told(target)
    assert (coming.kind, coming.host, coming.share) == (Coming.MIGRATION, away, 0.5)
    assert proxy.calls["DestroyCollector"] == proxy.obeyed["CreateCollectorForEvents"] == 1
