"""What an administrator does to a cluster behind the driver's back, over the same API."""

from collections.abc import Callable
from typing import Any

from pyVmomi import vim

from tests.contract.providers.vsphere_target import BackDoor, find, named

CLUSTER = "DC0_C0"
POOL = "tides"


async def switch_drs(door: BackDoor, *, enabled: bool) -> None:
    """DRS on or off. Off deletes every resource pool of the cluster, as in vCenter."""

    def act(content: Any) -> None:
        spec = vim.cluster.ConfigSpecEx(drsConfig=vim.cluster.DrsConfigInfo(enabled=enabled))
        find(content, vim.ClusterComputeResource, CLUSTER).ReconfigureComputeResource_Task(spec, True)

    await door.run(act)


async def raise_pool(door: BackDoor) -> None:
    """High shares, a reservation, and no limit."""

    def act(content: Any) -> None:
        allocation = vim.ResourceAllocationInfo(limit=-1, reservation=100, expandableReservation=True)
        allocation.shares = vim.SharesInfo(level="high", shares=8000)
        spec = vim.ResourceConfigSpec(cpuAllocation=allocation, memoryAllocation=allocation)
        find(content, vim.ResourcePool, POOL).UpdateConfig(None, spec)

    await door.run(act)


async def raise_shares(door: BackDoor, shares: int) -> None:
    """Many custom shares, and everything else as it was."""

    def act(content: Any) -> None:
        pool = find(content, vim.ResourcePool, POOL)
        spec = vim.ResourceConfigSpec(
            cpuAllocation=pool.config.cpuAllocation, memoryAllocation=pool.config.memoryAllocation
        )
        spec.cpuAllocation.shares = vim.SharesInfo(level="custom", shares=shares)
        pool.UpdateConfig(None, spec)

    await door.run(act)


async def move_pool(door: BackDoor, below: str) -> None:
    """Our pool below another one."""

    def act(content: Any) -> None:
        find(content, vim.ResourcePool, below).MoveIntoResourcePool([find(content, vim.ResourcePool, POOL)])

    await door.run(act)


async def rename_pool(door: BackDoor, name: str) -> None:
    """Our pool under another name."""
    await door.run(lambda content: find(content, vim.ResourcePool, POOL).UpdateConfig(name, None))


async def add_pool(door: BackDoor, name: str, shares: int) -> None:
    """A pool of the owner's beside ours."""

    def act(content: Any) -> None:
        allocation = vim.ResourceAllocationInfo(reservation=0, expandableReservation=True, limit=-1)
        allocation.shares = vim.SharesInfo(level="custom", shares=shares)
        spec = vim.ResourceConfigSpec(cpuAllocation=allocation, memoryAllocation=allocation)
        find(content, vim.ClusterComputeResource, CLUSTER).resourcePool.CreateResourcePool(name, spec)

    await door.run(act)


async def move_out(door: BackDoor, machine: str) -> None:
    """A machine of ours into the cluster's own pool."""

    def act(content: Any) -> None:
        root = find(content, vim.ClusterComputeResource, CLUSTER).resourcePool
        root.MoveIntoResourcePool([find(content, vim.VirtualMachine, machine)])

    await door.run(act)


async def move_to_host(door: BackDoor, machines: Callable[[str], bool], host: str) -> None:
    """Machines with such names onto a host, as DRS or a person moves them."""

    def act(content: Any) -> None:
        place = vim.vm.RelocateSpec(host=vim.HostSystem(host, content.rootFolder._stub))
        for vm, name in named(content, vim.VirtualMachine):
            if machines(name):
                vm.RelocateVM_Task(place)

    await door.run(act)


async def enter_maintenance(door: BackDoor, host: str) -> None:
    """Ask for maintenance; the task runs until nothing is powered on there any more."""
    await door.run(
        lambda content: vim.HostSystem(host, content.rootFolder._stub).EnterMaintenanceMode_Task(0)
    )


async def is_in_maintenance(door: BackDoor, host: str) -> bool:
    """Whether the host may be unplugged."""
    return await door.run(
        lambda content: bool(vim.HostSystem(host, content.rootFolder._stub).runtime.inMaintenanceMode)
    )


async def pools(door: BackDoor) -> list[str]:
    """Names of the pools directly below the cluster's own."""
    return await door.run(
        lambda content: sorted(
            pool.name for pool in find(content, vim.ClusterComputeResource, CLUSTER).resourcePool.resourcePool
        )
    )


async def shares_of(door: BackDoor, machine: str) -> tuple[str, int, str, int, str]:
    """CPU and memory shares of a machine, and the name of its pool."""

    def look(content: Any) -> tuple[str, int, str, int, str]:
        vm = find(content, vim.VirtualMachine, machine)
        cpu, memory = vm.config.cpuAllocation.shares, vm.config.memoryAllocation.shares
        return str(cpu.level), cpu.shares, str(memory.level), memory.shares, vm.resourcePool.name

    return await door.run(look)
