"""What hosts are made of, read of a vCenter; and with an account that may not read it."""

from dataclasses import replace

from libs.providers.base import HostHardware
from tests.contract.providers.vsphere_target import VSphereTarget
from tests.faultproxy import FaultProxy
from tools.parts.vcsim import Vcsim


async def test_hosts_tell_what_they_are_made_of(
    target: VSphereTarget, proxy: FaultProxy, vcsim: Vcsim
) -> None:
    (first, second) = (await target.provider.sample(None))[0].hosts
    await vcsim.set_metal(first, 16, 262_144, 2, ["A100 PCIe 40GB"] * 2)
    found = {one.host: one for one in await target.provider.hardware()}
    expected = HostHardware(first, 16, 32, 2, 2, ("NVIDIA Corporation A100 PCIe 40GB",))
    assert found[first] == expected
    assert (found[second].cores, found[second].threads, found[second].gpus) == (2, 2, 0)
    sample = (await target.provider.sample(None))[0]
    assert sample.memory_capacity_mib[sample.hosts.index(first)] == 262_144

    await vcsim.set_metal(first, 16, 262_144)
    assert {one.host: one for one in await target.provider.hardware()}[first] == expected, "read once a day"
    anew = await target.open(vcsim.password)
    try:
        found = {one.host: one for one in await anew.hardware()}
        assert found[first] == replace(expected, numa_nodes=1, gpus=0, gpu_models=())
    finally:
        await anew.aclose()
