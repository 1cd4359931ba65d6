"""Templates in the inventory: what machines are cloned from."""

from dataclasses import dataclass
from typing import Any

from pyVmomi import vim

from libs.providers.base import TemplateSeen
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.inventory import Row, read_datacenters, read_objects, read_view
from libs.providers.vsphere.marks import PREFIX
from libs.providers.vsphere.settings import VSphereSettings

_KIB_PER_GIB = 1024 * 1024
_PATHS = {
    vim.VirtualMachine: (
        "name",
        "config.template",
        "config.guestFullName",
        "config.guestId",
        "config.hardware.device",
        "snapshot.currentSnapshot",
    )
}


@dataclass(frozen=True, slots=True)
class Template:
    """A template, or a plain VM that serves as one."""

    ref: Any
    seen: TemplateSeen
    snapshot: Any | None
    stores: frozenset[str] = frozenset()
    """Names of the datastores that its disks lie on."""
    first_disk_gib: float = 0.0


class Templates:
    """Finds templates by name or reference; remembers which object a name means, and looks again when that is gone."""

    def __init__(self, settings: VSphereSettings) -> None:
        self._settings = settings
        self._known: dict[str, Any] = {}

    def find(self, api: Api, name: str) -> Template | None:
        """A template by its name or object id; a true template before a plain VM of the same name."""
        rows = self._read(api, name)
        if rows is None:
            self._known.pop(name, None)
            self._look_up(api, name)
            rows = self._read(api, name)
        return None if rows is None else _make_template(rows)

    def _read(self, api: Api, name: str) -> Row | None:
        ref = self._known.get(name)
        rows = read_objects(api, "templates", [ref] if ref is not None else [], _PATHS)
        if not rows or "name" not in rows[0].properties:
            return None
        return rows[0] if name in (rows[0].id, rows[0].properties["name"]) else None

    def _look_up(self, api: Api, name: str) -> None:
        if name.startswith(PREFIX):
            return
        found: list[tuple[bool, str, Any]] = []
        for datacenter in read_datacenters(api, self._settings):
            paths = {vim.VirtualMachine: ("name", "config.template")}
            found.extend(
                (not row.properties.get("config.template"), row.id, row.ref)
                for row in read_view(api, "templates", datacenter.properties["vmFolder"], paths)
                if name in (row.id, row.properties.get("name"))
            )
        if found:
            self._known[name] = min(found, key=lambda item: item[:2])[2]


def template_refs(api: Api, settings: VSphereSettings) -> list[Any]:
    """The templates of the scope."""
    paths = {vim.VirtualMachine: ("config.template",)}
    return [
        row.ref
        for datacenter in read_datacenters(api, settings)
        for row in read_view(api, "templates", datacenter.properties["vmFolder"], paths)
        if row.properties.get("config.template")
    ]


def _make_template(row: Row) -> Template:
    got = row.properties
    disks = [
        device
        for device in got.get("config.hardware.device") or ()
        if isinstance(device, vim.vm.device.VirtualDisk)
    ]
    seen = TemplateSeen(
        reference=row.id,
        name=str(got["name"]),
        disk_gib=sum(int(disk.capacityInKB) for disk in disks) / _KIB_PER_GIB,
        guest_os=str(got.get("config.guestFullName") or ""),
        unfit=judge_guest(str(got.get("config.guestId") or "")),
    )
    files = [str(getattr(disk.backing, "fileName", "")) for disk in disks]
    return Template(
        row.ref,
        seen,
        got.get("snapshot.currentSnapshot"),
        stores=frozenset(file[1:].partition("]")[0] for file in files),
        first_disk_gib=int(disks[0].capacityInKB) / _KIB_PER_GIB if disks else 0.0,
    )


def judge_guest(guest_id: str) -> str | None:
    """Why no machine of ours runs this guest; None where one may. Windows takes no cloud-init document."""
    if guest_id.lower().startswith(("win", "longhorn")):
        return f"its guest is Windows ({guest_id}); machines need a Linux guest with cloud-init"
    return None
