"""What HA keeps free and how far DRS goes, by a cluster's configuration as pyVmomi reads it."""

from typing import Any, cast

import pytest
from pyVmomi import vim

from libs.common.contracts.usage import Drs, HostState
from libs.providers.base import Cause, Rejected
from libs.providers.vsphere.inventory import Cluster, Host, Row, assemble
from libs.providers.vsphere.reserve import Reserve, ReserveWatch, read_reserve
from libs.providers.vsphere.settings import VSphereSettings
from tests.unit.providers.test_vsphere_announced import LATER, NOW

POLICIES = vim.cluster
HOSTS = [
    Host(vim.HostSystem(f"host-{n}"), f"host-{n}", HostState.CONNECTED, cores, 1000.0, 1024.0 * n, None, None)
    for n, cores in ((1, 10), (2, 20), (3, 30))
]


def config(policy: Any = None, **more: Any) -> Any:
    given = {"enabled": True, "admissionControlEnabled": True} | more
    return vim.cluster.DasConfigInfo(admissionControlPolicy=policy, **given)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (
            config(
                POLICIES.FailoverResourcesAdmissionControlPolicy(
                    cpuFailoverResourcesPercent=25, memoryFailoverResourcesPercent=50
                )
            ),
            (15_000, 3072),
        ),
        (config(POLICIES.FailoverLevelAdmissionControlPolicy(failoverLevel=1)), (30_000, 3072)),
        (
            config(
                POLICIES.FailoverHostAdmissionControlPolicy(
                    failoverHosts=[vim.HostSystem("host-1"), vim.HostSystem("host-9")]
                )
            ),
            (0, 0),
        ),
        (config(failoverLevel=2), (50_000, 5120)),
        (config(admissionControlEnabled=False, failoverLevel=1), (0, 0)),
        (config(enabled=False, failoverLevel=1), (0, 0)),
        (config(), None),
        (vim.cluster.DasConfigInfo(), None),
        (None, None),
    ],
)
def test_what_admission_control_keeps(given: Any, kept: tuple[float, float] | None) -> None:
    reserve = read_reserve(given)
    assert (None if reserve is None else reserve.of(HOSTS)) == kept


async def test_it_is_read_now_and_then_and_a_refusal_costs_nothing_else() -> None:
    class Session:
        asked = 0

        async def call(self, work: object, doing: str) -> dict[str, Reserve]:
            self.asked += 1
            if self.asked > 1:
                raise Rejected(Cause.PERMISSION, "no")
            return {"domain-c1": Reserve(0.1, 0.1)}

    session = Session()
    watch = ReserveWatch(cast(Any, session))
    cluster = Cluster(vim.ClusterComputeResource("domain-c1"), "c", None, None, None, True, HOSTS)
    for _ in range(3):
        assert await watch.look([cluster], LATER) == {"domain-c1": Reserve(0.1, 0.1)}
    assert session.asked == 1
    assert await watch.look([cluster], NOW) == {"domain-c1": Reserve(0.1, 0.1)}, (
        "what cannot be read is not given up"
    )
    assert session.asked == 2, "a clock that went back is no reason to wait"


@pytest.mark.parametrize(
    ("is_on", "extent", "drs"),
    [
        (True, "fullyAutomated", Drs.FULL),
        (True, "partiallyAutomated", Drs.PARTIAL),
        (True, "manual", Drs.MANUAL),
        (True, "something new", Drs.ON),
        (False, "fullyAutomated", Drs.OFF),
        (None, None, None),
    ],
)
def test_how_far_drs_goes(is_on: bool | None, extent: str | None, drs: Drs | None) -> None:
    path = "configurationEx.drsConfig"
    told = {f"{path}.enabled": is_on, f"{path}.defaultVmBehavior": extent}
    got = {"name": "c", "resourcePool": vim.ResourcePool("resgroup-1")}
    got |= {name: value for name, value in told.items() if value is not None}  # type: ignore[misc]
    datacenter = Row(vim.Datacenter("datacenter-1"), {"vmFolder": vim.Folder("group-v1")})
    rows = [Row(vim.ClusterComputeResource("domain-c1"), got)]
    (cluster,) = assemble(datacenter, rows, VSphereSettings())
    assert (cluster.drs, cluster.pools_possible) == (drs, bool(is_on))
