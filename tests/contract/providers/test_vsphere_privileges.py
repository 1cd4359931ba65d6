"""What an account must be allowed: privileges that exist, asked where they count, and lived without where possible."""

import re
from typing import Any

import pytest
from pyVmomi import vim

from libs.providers.base import Capability, Cause, Rejected
from libs.providers.vsphere.role import list_privileges
from tests.contract.providers.target import deploy, seen
from tests.contract.providers.vsphere_target import TEMPLATE, VSphereTarget, find
from tests.faultproxy import FaultProxy, no_permission

CLONING = {"VirtualMachine.Provisioning.DeployTemplate", "VirtualMachine.Provisioning.Clone"}
ATTRIBUTE_RIGHT = "Global.ManageCustomFields"


@pytest.fixture
def cloud() -> dict[str, Any]:
    return {"hosts": 2, "vms": 2, "flags": ("-perf-default", "1")}


async def missing(target: VSphereTarget) -> dict[str, str]:
    """What validation says is missing, with what it disables."""
    return {each.privilege: each.disables for each in (await target.provider.validate()).missing}


async def test_the_cloud_knows_every_privilege_and_takes_a_role_of_them(target: VSphereTarget) -> None:
    names = [name for _, name, _ in list_privileges()]

    def learn(content: Any) -> set[str]:
        manager = content.authorizationManager
        role = manager.AddAuthorizationRole("Tides", names)
        kept = next(each.privilege for each in manager.roleList if each.roleId == role)
        admin = next(each.privilege for each in manager.roleList if each.name == "Admin")
        assert set(names) <= set(kept)
        return set(admin)

    assert set(names) <= await target.back_door.run(learn)


async def test_one_template_that_may_be_cloned_is_enough(target: VSphereTarget, proxy: FaultProxy) -> None:
    def make_templates(content: Any) -> str:
        names = (TEMPLATE, TEMPLATE.replace("VM0", "VM1"))
        machines = [find(content, vim.VirtualMachine, name) for name in names]
        for machine in machines:
            if machine.runtime.powerState == "poweredOn":
                machine.PowerOffVM_Task()
            machine.MarkAsTemplate()
        return str(machines[1]._GetMoId())

    others = await target.back_door.run(make_templates)

    def deny(method: str, text: str) -> bytes:
        if method == "HasPrivilegeOnEntities":
            text = re.sub(
                rf"(<entity[^>]*>{others}</entity>)(.*?)(?=</returnval>)",
                lambda each: each[1] + each[2].replace("true</isGranted>", "false</isGranted>"),
                text,
                flags=re.DOTALL,
            )
        return text.encode()

    proxy.rules.mutate = deny
    assert await missing(target) == {}
    proxy.rules.mutate = None
    proxy.rules.lacking = set(CLONING)
    assert set(await missing(target)) == CLONING


async def test_what_nothing_works_without_stands_against_lending_and_the_rest_does_not(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    ca_pem = target.vcsim.ca_file.read_text()
    named = await target.open_with(target.connection(target.vcsim.password, ca_pem, network=target.network))

    async def blockers(*lacking: str) -> list[str]:
        proxy.rules.lacking = set(lacking)
        return [each.code for each in (await named.validate()).blockers]

    assert await blockers() == []
    assert await blockers(ATTRIBUTE_RIGHT, "Host.Inventory.EditCluster", "Resource.DeletePool") == []
    assert await blockers(min(CLONING)) == []
    assert await blockers("VirtualMachine.Config.Resource", "Folder.Create") == [
        "privilege:Folder.Create",
        "privilege:VirtualMachine.Config.Resource",
    ]
    assert await blockers(*CLONING) == [f"privilege:{name}" for name in sorted(CLONING, reverse=True)]
    await target.back_door.run(
        lambda content: content.rootFolder.childEntity[0].vmFolder.CreateFolder("tides")
    )
    assert await blockers("Folder.Create") == []
    await named.aclose()


async def test_a_vcenter_can_more_with_drs_than_without(target: VSphereTarget, proxy: FaultProxy) -> None:
    with_drs = target.provider.capabilities
    assert {
        Capability.CLONE, Capability.LINKED_CLONE, Capability.ATTRIBUTE, Capability.HA_OVERRIDE, Capability.LIMITS,
    } <= with_drs  # fmt: skip
    assert Capability.DISK_COPY not in with_drs
    proxy.rules.drs_off = True
    without = await target.open(target.vcsim.password)
    assert with_drs - without.capabilities == {Capability.POOLS, Capability.DRS_OVERRIDE}
    await without.aclose()


async def test_the_right_on_the_root_is_not_missed_once_the_attribute_is_there(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    proxy.rules.lacking = {ATTRIBUTE_RIGHT}
    assert "beforehand" in (await missing(target))[ATTRIBUTE_RIGHT]
    await target.back_door.run(
        lambda content: content.customFieldsManager.AddCustomFieldDef("tides.machine", vim.VirtualMachine)
    )
    assert await missing(target) == {}
    proxy.rules.faults["AddCustomFieldDef"] = no_permission(ATTRIBUTE_RIGHT)
    spec = target.make_spec()
    assert (await deploy(target, spec)).configured
    values = await target.back_door.run(
        lambda content: [each.value for each in find(content, vim.VirtualMachine, spec.name).customValue]
    )
    assert values == [str(spec.mark.machine_id)]


async def test_a_folder_that_may_not_be_removed_is_left_and_the_cluster_is_released(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    spec = target.make_spec()
    await deploy(target, spec)
    await target.provider.delete(spec.name)
    assert await seen(target, spec.name) is None
    proxy.rules.faults["UnregisterAndDestroy_Task"] = no_permission("Folder.Delete")
    await target.provider.release(spec.cluster)
    folders = await target.back_door.run(
        lambda content: [each.name for each in content.rootFolder.childEntity[0].vmFolder.childEntity]
    )
    assert "tides" in folders


async def test_a_pool_that_may_not_be_removed_is_a_refusal(target: VSphereTarget, proxy: FaultProxy) -> None:
    spec = target.make_spec()
    await deploy(target, spec)
    await target.provider.delete(spec.name)
    proxy.rules.faults["Destroy_Task"] = no_permission("Resource.DeletePool")
    with pytest.raises(Rejected) as refusal:
        await target.provider.release(spec.cluster)
    assert refusal.value.cause is Cause.PERMISSION
    assert "Resource.DeletePool" in refusal.value.detail
