"""What a single ESXi host refuses and vcsim lets pass, and which disks it would leave behind."""

import re

from tests.faultproxy.rules import Rules, SoapFault
from tests.faultproxy.texts import ref_in

VCENTER_ONLY = frozenset(
    {
        "CloneVM_Task",
        "InstantClone_Task",
        "RelocateVM_Task",
        "MarkAsTemplate",
        "MarkAsVirtualMachine",
        "CustomizeVM_Task",
        "CreateFolder",
        "MoveIntoFolder_Task",
        "UnregisterAndDestroy_Task",
        "ReconfigureComputeResource_Task",
        "AddCustomFieldDef",
        "SetField",
        "PlaceVm",
    }
)
_READS = re.compile(
    r"(Fetch|Retrieve|Continue|Cancel|Query|Find|Search|Has|Current|Login|Logout"
    r"|Destroy(View|PropertyCollector|PropertyFilter)|Create(ContainerView|PropertyCollector|Filter)|WaitFor|GET|POST)"
)


class Disks:
    """Disks that were copied on this host, and those of them that a destroyed machine did not take along."""

    def __init__(self) -> None:
        self.copied: set[str] = set()
        self.attached: dict[str, set[str]] = {}

    @property
    def loose(self) -> set[str]:
        """Copies that hang on no machine."""
        return self.copied - {file for files in self.attached.values() for file in files}

    def note(self, method: str, body: str) -> None:
        """A call that was obeyed."""
        source, target = _value(body, "sourceName"), _value(body, "destName")
        machine = (ref_in(body, "_this") or ("", ""))[1]
        if method == "CopyVirtualDisk_Task" and target:
            self.copied.add(target)
        elif method == "MoveVirtualDisk_Task" and source and target:
            self.copied.discard(source)
            self.copied.add(target)
        elif method == "DeleteVirtualDisk_Task":
            self.copied.discard(_value(body, "name") or "")
        elif method == "ReconfigVM_Task":
            files = set(re.findall(r"<fileName[^>]*>([^<]+)</fileName>", body)) & self.copied
            self.attached.setdefault(machine, set()).update(files)
        elif method == "Destroy_Task":
            self.copied -= self.attached.pop(machine, set())


def refuse_on_host(rules: Rules, method: str) -> SoapFault | None:
    """The fault that a single host answers with."""
    if rules.free_licence and not _READS.match(method):
        return SoapFault(
            "RestrictedVersion",
            "Current license or ESXi version prohibits execution of the requested operation.",
        )
    if rules.esxi and method in VCENTER_ONLY:
        return SoapFault("NotSupported", "The operation is not supported on the object.")
    return None


def license_freely(text: str) -> str:
    """The license manager's answer under the free licence."""
    return text.replace("<editionKey>eval<", "<editionKey>esxBasic.vram<").replace(
        "<name>Evaluation Mode<", "<name>VMware vSphere 8 Hypervisor<"
    )


def _value(body: str, tag: str) -> str | None:
    found = re.search(rf"<{tag}[^>]*>([^<]+)</{tag}>", body)
    return found[1] if found else None
