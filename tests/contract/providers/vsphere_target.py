"""A vCenter for the conformance suite: vcsim, and a back door to it that knows nothing of the driver."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar
from uuid import UUID, uuid4

import aiohttp
from pyVim import connect
from pyVmomi import vim, vmodl

from libs.common.clock import WallClock
from libs.common.secrets import KEY_BYTES, Vault
from libs.providers.base import Connection, MachineSpec, Mark, Provider, sealing_context
from libs.providers.vsphere import VSphereProvider, driver
from tools.parts.vcsim import Vcsim

HOST_MHZ = 2 * 2294
CPU_COUNTER, READY_COUNTER, MEMORY_COUNTER, COSTOP_COUNTER = 6, 12, 98, 399
"""vcsim's ids of cpu.usagemhz.average, cpu.ready.summation, mem.consumed.average and cpu.costop.summation."""
TEMPLATE = "DC0_C0_RP0_VM0"
NETWORK = "DC0_DVPG0"
T = TypeVar("T")
V = TypeVar("V", bound="VSphereTarget")


class BackDoor:
    """The cloud past the driver: another session of pyVmomi's own."""

    def __init__(self, vcsim: Vcsim) -> None:
        self._vcsim = vcsim

    async def run(self, act: Callable[[Any], T]) -> T:
        """Run with a logged-in service content."""
        return await asyncio.to_thread(self._run, act)

    def _run(self, act: Callable[[Any], T]) -> T:
        instance = connect.SmartConnect(
            host=self._vcsim.host,
            port=self._vcsim.port,
            user=self._vcsim.username,
            pwd=self._vcsim.password,
            sslContext=ssl.create_default_context(cafile=str(self._vcsim.ca_file)),
        )
        try:
            return act(instance.RetrieveContent())
        finally:
            connect.Disconnect(instance)
            instance._stub.DropConnections()

    async def names(self) -> list[str]:
        """Names of all machines, as often as they exist."""
        return await self.run(lambda content: [name for _, name in named(content, vim.VirtualMachine)])

    async def add_machine(self, name: str, folder: str | None = None) -> None:
        """A machine that somebody else made; in a folder of this name, which is made on demand."""
        await self.run(lambda content: _add_machine(content, name, folder))

    async def machine_id(self, name: str) -> str:
        """The managed object id of the machine."""
        return str((await self.run(lambda content: find(content, vim.VirtualMachine, name)))._GetMoId())


def _all(content: Any, kind: Any) -> list[Any]:
    view = content.viewManager.CreateContainerView(content.rootFolder, [kind], True)
    try:
        return list(view.view)
    finally:
        view.DestroyView()


def named(content: Any, kind: Any) -> Iterator[tuple[Any, str]]:
    """Everything of a kind with its name. After a move, vcsim's views still list machines that are gone."""
    for item in _all(content, kind):
        with suppress(vmodl.fault.ManagedObjectNotFound):
            yield item, item.name


def find(content: Any, kind: Any, name: str) -> Any:
    """The one object of this kind and name."""
    return next(item for item, called in named(content, kind) if called == name)


def _add_machine(content: Any, name: str, folder: str | None) -> None:
    root = content.rootFolder.childEntity[0].vmFolder
    place = root
    if folder is not None:
        place = content.searchIndex.FindChild(root, folder) or root.CreateFolder(folder)
    pool = _all(content, vim.ComputeResource)[0].resourcePool
    files = vim.vm.FileInfo(vmPathName="[LocalDS_0]")
    place.CreateVM_Task(vim.vm.ConfigSpec(name=name, files=files, guestId="otherGuest"), pool)


class VSphereTarget:
    """A vcsim of three hosts; its counters say 1 unless a test sets them, and their clock runs ahead on demand."""

    template = TEMPLATE
    network = NETWORK
    provider: Provider

    def __init__(self, vcsim: Vcsim, url: str, cluster: str) -> None:
        self.vcsim = vcsim
        self.url = url
        self.cluster = cluster
        self.back_door = BackDoor(vcsim)
        self.vault = Vault({"k1": b"k" * KEY_BYTES})
        self.installation_id: UUID = uuid4()

    def make_spec(
        self,
        name: str | None = None,
        host: str | None = None,
        template: str | None = None,
        disk_gib: float = 0.0005,
    ) -> MachineSpec:
        machine_id = uuid4()
        return MachineSpec(
            name=f"tides-{machine_id}" if name is None else name,
            mark=Mark(self.installation_id, machine_id),
            cluster=self.cluster,
            host=host,
            template=template or self.template,
            vcpus=2,
            memory_mib=1024,
            disk_gib=disk_gib,
            limit_mhz=1500.0,
            user_data="#cloud-config\n",
            network=self.network,
        )

    def connection(
        self, password: str, ca_pem: str | None = None, thumbprint: str | None = None, **settings: Any
    ) -> Connection:
        """A connection with this password and trust; without any, only the system's authorities are believed."""
        sealed = self.vault.seal(password, sealing_context(self.url, ca_pem, thumbprint))
        return Connection(
            uuid4(),
            self.installation_id,
            self.url,
            self.vcsim.username,
            sealed,
            ca_pem=ca_pem,
            thumbprint=thumbprint,
            settings=settings,
        )

    async def open(self, password: str) -> VSphereProvider:
        return await self.open_with(self.connection(password, self.vcsim.ca_file.read_text()))

    async def open_with(self, connection: Connection) -> VSphereProvider:
        """Open any connection."""
        return await driver.open(connection, self.vault, WallClock())

    async def set_owner_load(self, host: str, fraction: float) -> None:
        await self.vcsim.set_perf(
            host, {CPU_COUNTER: round(fraction * HOST_MHZ), MEMORY_COUNTER: 1024 * 1024}
        )

    async def settle(self) -> None:
        context = ssl.create_default_context(cafile=str(self.vcsim.ca_file))
        url = f"https://{self.vcsim.host}:{self.vcsim.port}/lab/ahead"
        async with (
            aiohttp.ClientSession() as http,
            http.post(url, json={"seconds": 20}, ssl=context) as answer,
        ):
            assert answer.status == 200

    async def add_foreign(self, name: str) -> None:
        await self.back_door.add_machine(name)

    async def exists(self, name: str) -> bool:
        return name in await self.back_door.names()


@asynccontextmanager
async def opened(vcsim: Vcsim, url: str | None = None) -> AsyncIterator[VSphereTarget]:
    """A target with an open session; `url` where something stands before vcsim."""
    async with _logged_in(VSphereTarget(vcsim, url or vcsim.url, "")) as target:
        yield target


@asynccontextmanager
async def _logged_in(target: V) -> AsyncIterator[V]:
    target.provider = await target.open(target.vcsim.password)
    try:
        target.cluster = (await target.provider.validate()).clusters[0].cluster
        yield target
    finally:
        await target.provider.aclose()


class HostTarget(VSphereTarget):
    """A vcsim that is one ESXi host: other names, and other numbers of the counters."""

    template = "ha-host_VM0"
    network = "VM Network"
    counters: tuple[int, int, int] = (0, 0, 0)

    async def set_owner_load(self, host: str, fraction: float) -> None:
        if not any(self.counters):
            self.counters = await self.back_door.run(read_counters)
        cpu, memory, _ = self.counters
        await self.vcsim.set_perf(host, {cpu: round(fraction * HOST_MHZ), memory: 1024 * 1024})

    async def files(self, name: str) -> list[str] | None:
        """What lies in the directory of this name of the host's datastore; None when there is none."""
        return await self.back_door.run(lambda content: _list_files(content, name))


def counter_ids(content: Any) -> dict[str, int]:
    """A cloud's own numbers of its counters, by name."""
    return {
        f"{each.groupInfo.key}.{each.nameInfo.key}.{each.rollupType}": int(each.key)
        for each in content.perfManager.perfCounter
    }


def read_counters(content: Any) -> tuple[int, int, int]:
    """A cloud's own numbers of use, memory and ready time."""
    ids = counter_ids(content)
    return ids["cpu.usagemhz.average"], ids["mem.consumed.average"], ids["cpu.ready.summation"]


def _list_files(content: Any, name: str) -> list[str] | None:
    store = _all(content, vim.Datastore)[0]
    everything = vim.host.DatastoreBrowser.SearchSpec(matchPattern=["*"])
    task = store.browser.SearchDatastore_Task(f"[{store.name}] {name}", everything)
    kinds = [vmodl.query.PropertyCollector.PropertySpec(type=vim.Task, pathSet=["info.result", "info.state"])]
    spec = vmodl.query.PropertyCollector.FilterSpec(
        objectSet=[vmodl.query.PropertyCollector.ObjectSpec(obj=task)], propSet=kinds
    )
    answer = content.propertyCollector.RetrieveContents([spec])
    got = {each.name: each.val for each in answer[0].propSet}
    return [each.path for each in got["info.result"].file] if got["info.state"] == "success" else None


@asynccontextmanager
async def opened_host(vcsim: Vcsim, url: str | None = None) -> AsyncIterator[HostTarget]:
    """A target with an open session on a single ESXi host."""
    async with _logged_in(HostTarget(vcsim, url or vcsim.url, "")) as target:
        yield target
