"""What a real vCenter asks an account for at each call: the privileges, by what the call says. vcsim asks for none.

As the vSphere API reference has it, method by method; of a change of a machine each part asks for its own.
"""

import re
from collections.abc import Iterator

from tests.faultproxy.texts import first, ref_in

_CALLS: dict[str, tuple[str, ...]] = {
    "AddCustomFieldDef": ("Global.ManageCustomFields",),
    "CloneVM_Task": (
        "VirtualMachine.Inventory.CreateFromExisting",
        "VirtualMachine.Config.AddNewDisk",
        "Resource.AssignVMToPool",
        "Datastore.AllocateSpace",
    ),
    "CopyVirtualDisk_Task": ("Datastore.FileManagement", "Datastore.AllocateSpace"),
    "CreateFolder": ("Folder.Create",),
    "CreateResourcePool": ("Resource.CreatePool",),
    "CreateVM_Task": ("VirtualMachine.Inventory.Create", "Resource.AssignVMToPool"),
    "DeleteDatastoreFile_Task": ("Datastore.FileManagement",),
    "DeleteVirtualDisk_Task": ("Datastore.FileManagement",),
    "MakeDirectory": ("Datastore.FileManagement",),
    "MarkAsTemplate": ("VirtualMachine.Provisioning.MarkAsTemplate",),
    "MoveIntoResourcePool": ("Resource.AssignVMToPool",),
    "MoveVirtualDisk_Task": ("Datastore.FileManagement",),
    "PowerOffVM_Task": ("VirtualMachine.Interact.PowerOff",),
    "PowerOnVM_Task": ("VirtualMachine.Interact.PowerOn",),
    "ReconfigureComputeResource_Task": ("Host.Inventory.EditCluster",),
    "RelocateVM_Task": ("Resource.ColdMigrate", "Resource.AssignVMToPool"),
    "SearchDatastore_Task": ("Datastore.Browse",),
    "SetField": ("Global.SetCustomField",),
    "ShutdownGuest": ("VirtualMachine.Interact.PowerOff",),
    "SuspendVM_Task": ("VirtualMachine.Interact.Suspend",),
    "UnregisterAndDestroy_Task": ("Folder.Delete",),
    "UpdateConfig": ("Resource.EditPool",),
}
_DESTROYED = {
    "Folder": "Folder.Delete",
    "ResourcePool": "Resource.DeletePool",
    "VirtualMachine": "VirtualMachine.Inventory.Delete",
}
_PARTS = {
    "numCPUs": "VirtualMachine.Config.CPUCount",
    "memoryMB": "VirtualMachine.Config.Memory",
    "annotation": "VirtualMachine.Config.Annotation",
    "extraConfig": "VirtualMachine.Config.AdvancedConfig",
    "instanceUuid": "VirtualMachine.Config.Settings",
    "uuid": "VirtualMachine.Config.Settings",
    "cpuAllocation": "VirtualMachine.Config.Resource",
    "memoryAllocation": "VirtualMachine.Config.Resource",
}
_WITH_CONFIGURATION = ("CloneVM_Task", "CreateVM_Task", "ReconfigVM_Task")


def needed(method: str, body: str, from_template: bool) -> Iterator[str]:
    """The privileges that a call needs; `from_template`: what is cloned is a template."""
    yield from _CALLS.get(method, ())
    if method == "CloneVM_Task":
        kind = "DeployTemplate" if from_template else "Clone"
        yield f"VirtualMachine.Provisioning.{kind}"
    if method == "Destroy_Task":
        yield _DESTROYED.get((ref_in(body, "_this") or ("", ""))[0], "System.Read")
    if method in _WITH_CONFIGURATION:
        yield from (privilege for tag, privilege in _PARTS.items() if re.search(rf"<{tag}[ >]", body))
        for change in re.findall(r"<deviceChange[ >].*?</deviceChange>", body, re.DOTALL):
            yield from _of_device(change)


def _of_device(change: str) -> Iterator[str]:
    operation = first(r"<operation[^>]*>(\w+)<", change)
    if 'type="VirtualDisk"' in change:
        if operation == "edit":
            yield "VirtualMachine.Config.DiskExtend"
        else:
            is_new = "<fileOperation" in change
            yield f"VirtualMachine.Config.Add{'New' if is_new else 'Existing'}Disk"
        return
    yield (
        "VirtualMachine.Config.EditDevice" if operation == "edit" else "VirtualMachine.Config.AddRemoveDevice"
    )
    if operation != "remove" and "BackingInfo" in change:
        yield "Network.Assign"
