"""A second client of vcsim: what it says is what the cloud has, not what our rows say. It never changes anything."""

import asyncio
import ssl
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from pyVim import connect
from pyVmomi import vim, vmodl

from tools.parts.vcsim import Vcsim

T = TypeVar("T")
OURS = "tides-"
UNLIMITED = 10**9
_MACHINE = (
    "name",
    "runtime.host",
    "runtime.powerState",
    "config.cpuAllocation.limit",
    "config.cpuAllocation.shares.level",
    "config.memoryAllocation.shares.level",
    "resourcePool",
    "parent",
)
_POOL = ("name", "config.cpuAllocation.limit", "config.cpuAllocation.shares.shares", "parent")


@dataclass(frozen=True)
class Vm:
    """A machine as vcsim has it."""

    name: str
    ref: str
    host: str
    power: str
    limit_mhz: int
    shares: tuple[str, str]
    """Levels for CPU and memory."""
    pool: str
    folder: str

    @property
    def is_ours(self) -> bool:
        """By its name."""
        return self.name.startswith(OURS)

    @property
    def is_on(self) -> bool:
        """Powered on."""
        return self.power == "poweredOn"


@dataclass(frozen=True)
class Pool:
    """A resource pool as vcsim has it."""

    name: str
    limit_mhz: int
    shares: int
    parent: str


@dataclass(frozen=True)
class Sight:
    """Everything at one moment."""

    vms: tuple[Vm, ...]
    pools: tuple[Pool, ...]
    folders: tuple[str, ...]

    @property
    def ours(self) -> list[Vm]:
        """Our machines, by name."""
        return sorted((vm for vm in self.vms if vm.is_ours), key=lambda vm: vm.name)

    @property
    def twice(self) -> list[str]:
        """Names that more than one machine has."""
        return sorted(name for name, count in Counter(vm.name for vm in self.vms).items() if count > 1)


class Eye:
    """One logged-in session, opened again after vcsim was away."""

    def __init__(self, vcsim: Vcsim) -> None:
        self._vcsim = vcsim
        self._instance: Any = None
        self._lock = asyncio.Lock()

    async def run(self, act: Callable[[Any], T]) -> T:
        """Run with the service content."""
        async with self._lock:
            try:
                return await asyncio.to_thread(self._run, act)
            except (OSError, vmodl.MethodFault):
                self._drop()
                raise

    async def look(self) -> Sight:
        """Machines, pools and folders."""
        return await self.run(_look)

    async def hosts(self) -> dict[str, str]:
        """Names of hosts by reference."""
        return await self.run(
            lambda content: {ref: row["name"] for ref, row in _rows(content, vim.HostSystem)}
        )

    async def aclose(self) -> None:
        """Log out."""
        async with self._lock:
            await asyncio.to_thread(self._drop)

    def _run(self, act: Callable[[Any], T]) -> T:
        if self._instance is None:
            self._instance = connect.SmartConnect(
                host=self._vcsim.host,
                port=self._vcsim.port,
                user=self._vcsim.username,
                pwd=self._vcsim.password,
                sslContext=ssl.create_default_context(cafile=str(self._vcsim.ca_file)),
            )
        return act(self._instance.RetrieveContent())

    def _drop(self) -> None:
        instance, self._instance = self._instance, None
        if instance is not None:
            with suppress(OSError, vmodl.MethodFault):
                connect.Disconnect(instance)
            instance._stub.DropConnections()


def _look(content: Any) -> Sight:
    folders = {ref: row["name"] for ref, row in _rows(content, vim.Folder)}
    pools = {ref: row for ref, row in _rows(content, vim.ResourcePool, _POOL)}
    names = {ref: row["name"] for ref, row in pools.items()}
    return Sight(
        tuple(_vm(ref, row, names, folders) for ref, row in _rows(content, vim.VirtualMachine, _MACHINE)),
        tuple(_pool(row, names) for row in pools.values()),
        tuple(sorted(folders.values())),
    )


def _vm(ref: str, row: dict[str, Any], pools: dict[str, str], folders: dict[str, str]) -> Vm:
    limit = row.get("config.cpuAllocation.limit")
    return Vm(
        name=row["name"],
        ref=ref,
        host=_id(row.get("runtime.host")),
        power=str(row.get("runtime.powerState")),
        limit_mhz=limit if limit is not None and limit > 0 else UNLIMITED,
        shares=(
            str(row.get("config.cpuAllocation.shares.level")),
            str(row.get("config.memoryAllocation.shares.level")),
        ),
        pool=pools.get(_id(row.get("resourcePool")), ""),
        folder=folders.get(_id(row.get("parent")), ""),
    )


def _pool(row: dict[str, Any], names: dict[str, str]) -> Pool:
    limit, parent = row.get("config.cpuAllocation.limit"), _id(row.get("parent"))
    return Pool(
        name=row["name"],
        limit_mhz=UNLIMITED if limit is None or limit < 0 else limit,
        shares=row.get("config.cpuAllocation.shares.shares") or 0,
        parent=names.get(parent, parent),
    )


def _id(ref: Any) -> str:
    return "" if ref is None else str(ref._GetMoId())


def _rows(content: Any, kind: Any, paths: tuple[str, ...] = ("name",)) -> list[tuple[str, dict[str, Any]]]:
    """Properties of everything of a kind in one call. vcsim's views may list machines that are gone: left out."""
    view = content.viewManager.CreateContainerView(content.rootFolder, [kind], True)
    collector = vmodl.query.PropertyCollector
    walk = collector.TraversalSpec(name="view", path="view", skip=False, type=vim.view.ContainerView)
    wish = collector.FilterSpec(
        objectSet=[collector.ObjectSpec(obj=view, skip=True, selectSet=[walk])],
        propSet=[collector.PropertySpec(type=kind, pathSet=list(paths), all=False)],
    )
    try:
        found = content.propertyCollector.RetrieveContents([wish])
    finally:
        view.DestroyView()
    rows = [(_id(each.obj), {prop.name: prop.val for prop in each.propSet}) for each in found]
    return [(ref, row) for ref, row in rows if "name" in row]
