"""What hosts are made of, by what pyVmomi reads of them; what cannot be read is not known."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import pytest
from pyVmomi import vim

from libs.common.contracts.usage import HostState
from libs.providers.base import Cause, HostHardware, Rejected
from libs.providers.vsphere import metal
from libs.providers.vsphere.inventory import Cluster, Host
from libs.providers.vsphere.metal import MetalWatch, read_hardware
from tests.unit.providers.test_vsphere_announced import NOW

THREADS, NODES = "hardware.cpuInfo.numCpuThreads", "hardware.numaInfo.numNodes"
DEVICES, GRAPHICS = "hardware.pciDevice", "config.graphicsInfo"


def host(number: int = 1, cores: int = 16) -> Host:
    ref = vim.HostSystem(f"host-{number}")
    return Host(ref, f"esx{number}", HostState.CONNECTED, cores, 2600.0, 65536.0, None, None)


def device(kind: int, vendor: int = 0x10DE, name: str = "A100", vendor_name: str = "NVIDIA") -> Any:
    signed = vendor - 0x10000 if vendor > 0x7FFF else vendor
    return vim.host.PciDevice(classId=kind, vendorId=signed, deviceName=name, vendorName=vendor_name)


def graphics(kind: str, name: str = "A40") -> Any:
    return vim.host.GraphicsInfo(deviceName=name, vendorName="NVIDIA", graphicsType=kind)


CONSOLE = device(0x0300, 0x102B, "G200", "Matrox")


@pytest.mark.parametrize(
    ("got", "gpus", "models"),
    [
        ({}, None, ()),
        ({DEVICES: []}, 0, ()),
        ({DEVICES: [CONSOLE, device(0x0403), device(0x0200, 0x8086)]}, 0, ()),
        ({DEVICES: [CONSOLE, device(0x0302), device(0x0302)]}, 2, ("NVIDIA A100",)),
        (
            {DEVICES: [device(0x0300, 0x1002, "MI25", "AMD"), device(0x0380, 0x8086, "Flex 170", "Intel")]},
            2,
            ("AMD MI25", "Intel Flex 170"),
        ),
        ({DEVICES: [device(0x0302), device(0x0302, name="A100 Virtual Function")]}, 1, ("NVIDIA A100",)),
        ({GRAPHICS: [graphics("basic")]}, 0, ()),
        ({GRAPHICS: [graphics("basic"), graphics("sharedDirect")]}, 1, ("NVIDIA A40",)),
        ({GRAPHICS: [graphics("shared")], DEVICES: [device(0x0302)] * 2}, 2, ("NVIDIA A100",)),
        ({GRAPHICS: [graphics("direct", "a\u202eb\n")]}, 1, ("NVIDIA ab",)),
    ],
)
def test_gpus_are_counted_where_either_list_is_given(
    got: dict[str, Any], gpus: int | None, models: tuple[str, ...]
) -> None:
    found = read_hardware(host(), got)
    assert (found.gpus, found.gpu_models) == (gpus, models)


def test_threads_and_nodes_are_told_where_they_are_known() -> None:
    assert read_hardware(host(), {THREADS: 32, NODES: 2}) == HostHardware("host-1", 16, 32, 2)
    assert read_hardware(host(cores=0), {NODES: 0}) == HostHardware("host-1")


class Rooms:
    """A session that answers with what is in `answer`, or refuses."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.answer: Callable[[Any], Any] | None = None

    async def call(self, read: Callable[[Any], Any], doing: str) -> Any:
        if self.answer is None:
            raise Rejected(Cause.PERMISSION, doing)
        return read(None)


async def test_few_hosts_are_read_at_once_and_what_is_known_lasts_a_day(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rooms, hosts = Rooms(), [host(number) for number in range(100)]
    cluster = cast(Cluster, type("Cluster", (), {"hosts": hosts}))

    def read(api: Any, consumer: str, refs: list[Any], paths: Any) -> list[Any]:
        rooms.asked.append(len(refs))
        row = {"properties": {DEVICES: [device(0x0302)]}}
        return [type("Row", (), {"id": ref._GetMoId(), **row}) for ref in refs]

    monkeypatch.setattr(metal, "read_objects", read)
    watch = MetalWatch(cast(Any, rooms))

    refused = await watch.look([cluster], NOW)
    assert {(one.cores, one.gpus) for one in refused} == {(16, None)}, "cores come with the inventory"
    rooms.answer = lambda api: api
    seen = []
    for minutes in (1, 6, 12, 18, 24, 25 * 60, 25 * 60 + 6):
        found = await watch.look([cluster], NOW + timedelta(minutes=minutes))
        seen.append(sum(one.gpus == 1 for one in found))
    assert rooms.asked == [64, 36, 64, 36]
    assert seen == [0, 64, 100, 100, 100, 100, 100]


async def test_hosts_that_do_not_tell_their_gpus_keep_no_other_from_being_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rooms, hosts = Rooms(), [host(number) for number in range(1000)]
    cluster = cast(Cluster, type("Cluster", (), {"hosts": hosts}))
    asked: set[str] = set()

    def read(api: Any, consumer: str, refs: list[Any], paths: Any) -> list[Any]:
        asked.update(ref._GetMoId() for ref in refs)
        return []

    monkeypatch.setattr(metal, "read_objects", read)
    rooms.answer = lambda api: api
    watch = MetalWatch(cast(Any, rooms))
    for look in range(20):
        await watch.look([cluster], NOW + look * timedelta(minutes=6))
    assert len(asked) == 1000
