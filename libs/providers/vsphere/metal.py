"""What hosts are made of beyond what every round reads: threads, NUMA nodes, GPUs. Read now and then, some at a time.

A host's list of PCI devices is long, and changes only when it is opened: each is read once a day, one that could not be
read once an hour. What an account may not read is not known; it is never none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from pyVmomi import vim

from libs.providers.base import HostHardware
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.inventory import Cluster, Host, read_objects
from libs.providers.vsphere.seldom import Seldom
from libs.providers.vsphere.session import Session

AT_ONCE = 64
"""Hosts that one look reads."""
_NEVER = datetime.min.replace(tzinfo=UTC)
_KEPT = timedelta(days=1)
_KEPT_UNKNOWN = timedelta(hours=1)
_THREADS, _NODES = "hardware.cpuInfo.numCpuThreads", "hardware.numaInfo.numNodes"
_DEVICES, _GRAPHICS = "hardware.pciDevice", "config.graphicsInfo"
_3D_CONTROLLER, _OTHER_DISPLAY, _ACCELERATOR, _VGA = 0x0302, 0x0380, 0x1200, 0x0300
_VENDORS = frozenset({0x10DE, 0x1002})
"""Whose VGA devices compute (NVIDIA, AMD): the others in a server show its console."""
_MOST_MODELS = 8
_LONGEST_MODEL = 100

_Known = tuple[datetime, HostHardware]


class MetalWatch:
    """The hardware of hosts, as it was a day ago at most."""

    def __init__(self, session: Session) -> None:
        self._known: dict[str, _Known] = {}
        self._seldom: Seldom[dict[str, _Known]] = Seldom(session, "the hosts' hardware", {})

    async def look(self, clusters: Sequence[Cluster], now: datetime) -> list[HostHardware]:
        """Of every host; what is not known of it yet is left open. One look reads so many that it ends soon."""
        hosts = [host for cluster in clusters for host in cluster.hosts]
        there = {host.id for host in hosts}
        self._known = {host: known for host, known in self._known.items() if host in there}
        due = sorted((host for host in hosts if self._is_due(host, now)), key=self._read_at)[:AT_ONCE]
        if due:
            await self._seldom.look(partial(self._read, due, now), now)
        return [self._describe(host) for host in hosts]

    def _read_at(self, host: Host) -> datetime:
        return self._known[host.id][0] if host.id in self._known else _NEVER

    def _is_due(self, host: Host, now: datetime) -> bool:
        if host.id not in self._known:
            return True
        read_at, known = self._known[host.id]
        return not timedelta() <= now - read_at < (_KEPT_UNKNOWN if known.gpus is None else _KEPT)

    def _read(self, due: Sequence[Host], now: datetime, api: Api) -> dict[str, _Known]:
        paths = (_THREADS, _NODES, _GRAPHICS, _DEVICES)
        rows = read_objects(api, "metal", [host.ref for host in due], {vim.HostSystem: paths})
        found = {row.id: row.properties for row in rows}
        self._known |= {host.id: (now, read_hardware(host, found.get(host.id, {}))) for host in due}
        return self._known

    def _describe(self, host: Host) -> HostHardware:
        known = self._known.get(host.id)
        return read_hardware(host, {}) if known is None else replace(known[1], cores=host.cores or None)


def read_hardware(host: Host, got: Mapping[str, Any]) -> HostHardware:
    """A host by the properties that could be read."""
    models = _find_gpus(got.get(_GRAPHICS), got.get(_DEVICES))
    return HostHardware(
        host=host.id,
        cores=host.cores or None,
        threads=_count(got.get(_THREADS)),
        numa_nodes=_count(got.get(_NODES)),
        gpus=None if models is None else len(models),
        gpu_models=tuple(sorted(set(models or ())))[:_MOST_MODELS],
    )


def _count(value: Any) -> int | None:
    return int(value) if value else None


def _find_gpus(graphics: Sequence[Any] | None, devices: Sequence[Any] | None) -> list[str] | None:
    """The model of each; None where neither list was given.

    The list of graphics leaves out what is passed through to machines, the list of devices those that the host took
    away: the longer one is believed.
    """
    shown = [one for one in graphics or () if str(one.graphicsType) != "basic"]
    found = [one for one in devices or () if _is_gpu(one)]
    if graphics is None and devices is None:
        return None
    return [_name(one) for one in (shown if len(shown) > len(found) else found)]


def _is_gpu(device: Any) -> bool:
    kind, vendor = device.classId & 0xFFFF, device.vendorId & 0xFFFF  # both are told as signed
    if "virtual function" in str(device.deviceName).lower():
        return False
    return kind in (_3D_CONTROLLER, _OTHER_DISPLAY, _ACCELERATOR) or (kind == _VGA and vendor in _VENDORS)


def _name(device: Any) -> str:
    text = f"{device.vendorName or ''} {device.deviceName or ''}".strip()
    return "".join(one for one in text if one.isprintable())[:_LONGEST_MODEL]
