"""The OVF environment: for images that read their context from their appliance's properties, not from guestinfo."""

import base64
from typing import Any

from pyVmomi import vim

from libs.providers.base import MachineSpec
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.inventory import read_objects

USER_DATA, INSTANCE, HOSTNAME = "user-data", "instance-id", "hostname"
"""Properties by which cloud-init's OVF data source is told what it needs."""
_GUEST_INFO = "com.vmware.guestInfo"


def read_properties(api: Api, vm: Any) -> Any | None:
    """What an appliance's image asks for; None where the VM is no appliance, or the server keeps no such thing."""
    if api.on_host:
        return None
    rows = read_objects(api, "machines", [vm], {vim.VirtualMachine: ("config.vAppConfig",)})
    return rows[0].properties.get("config.vAppConfig") if rows else None


def environment_spec(asked: Any | None, spec: MachineSpec) -> Any | None:
    """The change that answers an image which asks for user data; None for one that does not."""
    values = {
        USER_DATA: base64.b64encode(spec.user_data.encode()).decode(),
        INSTANCE: str(spec.mark.machine_id),
        HOSTNAME: spec.name,
    }
    known = {str(each.id): each for each in getattr(asked, "property", None) or ()}
    if USER_DATA not in known:
        return None
    changes = []
    for name, value in values.items():
        if name in known:
            info = known[name]
            info.value, info.userConfigurable = value, True
            changes.append(vim.vApp.PropertySpec(operation="edit", info=info))
    transports = list(getattr(asked, "ovfEnvironmentTransport", None) or ())
    return vim.vApp.VmConfigSpec(property=changes, ovfEnvironmentTransport=transports or [_GUEST_INFO])
