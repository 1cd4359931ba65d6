"""What an account of Tides may do in a vCenter: each privilege, where it is needed, and what it is needed for."""

from collections.abc import Mapping
from dataclasses import dataclass

ATTRIBUTE = "tides.machine"
"""The custom attribute that shows people which machine a VM is."""


@dataclass(frozen=True, slots=True)
class Place:
    """A kind of object, and the privileges that are needed on it: name -> what is impossible without it."""

    key: str
    propagates: bool
    """Whether a permission there must reach what is below it."""
    privileges: Mapping[str, str]
    one_is_enough: bool = False
    """Of several such objects, the account needs its rights on one."""


_MACHINES = {
    "VirtualMachine.Config.AddRemoveDevice": "giving machines one network card, whatever the template has",
    "VirtualMachine.Config.AdvancedConfig": "marking machines as ours and giving them their user data",
    "VirtualMachine.Config.Annotation": "explaining machines in their notes",
    "VirtualMachine.Config.CPUCount": "sizing machines",
    "VirtualMachine.Config.Settings": "giving machines an identity of their own",
    "VirtualMachine.Config.Memory": "sizing machines",
    "VirtualMachine.Config.DiskExtend": "sizing machines' disks",
    "VirtualMachine.Config.Resource": "limiting machines' CPU: without it nothing may be lent",
    "VirtualMachine.Config.EditDevice": "putting machines into their own network",
    "VirtualMachine.Interact.PowerOn": "starting machines",
    "VirtualMachine.Interact.PowerOff": "stopping machines",
    "VirtualMachine.Interact.Suspend": "suspending machines when the owner needs the host",
}
"""On machines of ours, wherever they are."""
OF_DERIVED = "deploying machines from an image that Tides derived"
FOLDER = Place(
    "folder",
    True,
    {
        "Folder.Create": "making the folder of our machines",
        "Folder.Delete": "removing that folder at the end",
        "Global.SetCustomField": "showing the machine id as a custom attribute",
        "VirtualMachine.Inventory.CreateFromExisting": "deploying machines",
        "VirtualMachine.Inventory.Delete": "destroying machines",
        "VirtualMachine.Config.AddNewDisk": "deploying machines with their disks",
        "VirtualMachine.Provisioning.MarkAsTemplate": "deriving images (`tides template derive`)",
        "VirtualMachine.Provisioning.DeployTemplate": OF_DERIVED,
        **_MACHINES,
    },
)
TEMPLATE = Place(
    "template",
    False,
    {
        "VirtualMachine.Provisioning.DeployTemplate": "deploying machines from a template",
        "VirtualMachine.Provisioning.Clone": "deploying machines from a plain machine",
    },
    one_is_enough=True,
)
CLUSTER = Place(
    "cluster",
    True,
    {
        "Resource.AssignVMToPool": "deploying machines",
        "Resource.ColdMigrate": "moving a fresh machine to its host",
        "Resource.CreatePool": "the pool that gives way to everyone else",
        "Resource.EditPool": "capping the pool",
        "Resource.DeletePool": "removing the pool at the end",
        "Host.Inventory.EditCluster": "keeping machines on their hosts and out of HA restarts",
    },
)
DATASTORE = Place("datastore", False, {"Datastore.AllocateSpace": "deploying machines"})
NETWORK = Place("network", False, {"Network.Assign": "putting machines into their own network"})
ROOT = Place(
    "root",
    False,
    {
        "Global.ManageCustomFields": (
            "showing the machine id as a custom attribute; not needed where the attribute is made beforehand"
        )
    },
)
HOST = Place(
    "host",
    True,
    {
        "VirtualMachine.Inventory.Create": "making machines",
        "VirtualMachine.Inventory.Delete": "destroying machines",
        "VirtualMachine.Config.AddExistingDisk": "giving machines their disks",
        "VirtualMachine.Config.AddNewDisk": "giving machines their disks",
        **_MACHINES,
        "Resource.AssignVMToPool": "making machines",
        "Resource.CreatePool": "the pool that gives way to everyone else",
        "Resource.EditPool": "capping the pool",
        "Resource.DeletePool": "removing the pool at the end",
        "Datastore.AllocateSpace": "making machines",
        "Datastore.Browse": "seeing which disks are copied already",
        "Datastore.FileManagement": "copying a template's disks, and deleting what a broken-off copy left",
        "Network.Assign": "putting machines into their own network",
    },
)
"""A single ESXi host has neither folders nor templates: a role of its own on the host itself."""
OPTIONAL = frozenset(
    {
        "Folder.Delete",
        "Global.SetCustomField",
        "Global.ManageCustomFields",
        "Host.Inventory.EditCluster",
        "Resource.ColdMigrate",
        "Resource.DeletePool",
        "VirtualMachine.Interact.Suspend",
        "VirtualMachine.Provisioning.MarkAsTemplate",
    }
)
"""Without these something is less good; without any other one nothing can be lent."""
PLACES = (FOLDER, TEMPLATE, CLUSTER, DATASTORE, NETWORK, ROOT)
