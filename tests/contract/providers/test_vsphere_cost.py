"""What an act costs the cloud: questions about the one cluster that it is about, whatever else there is."""

from collections import Counter
from typing import Any

import pytest

from libs.providers.base import Power
from tests.contract.providers.target import deploy, seen
from tests.contract.providers.vsphere_target import VSphereTarget
from tests.faultproxy import FaultProxy


@pytest.fixture
def cloud() -> dict[str, Any]:
    return {"clusters": 3, "hosts": 4, "vms": 2, "flags": ("-perf-default", "1")}


async def test_acts_ask_about_one_cluster_and_no_more(target: VSphereTarget, proxy: FaultProxy) -> None:
    provider, spec = target.provider, target.make_spec()
    costs: dict[str, Counter[str]] = {}

    async def cost(what: str, act: Any) -> None:
        proxy.calls.clear()
        await act
        costs[what] = Counter(proxy.calls)

    await cost("deploy", deploy(target, spec))
    await provider.set_limits(spec.cluster, 2000, {spec.name: 900})
    await cost("limits that hold", provider.set_limits(spec.cluster, 2000, {spec.name: 900}))
    await cost("limits", provider.set_limits(spec.cluster, 1800, {spec.name: 800}))
    await cost("power", provider.set_power(spec.name, Power.ON))
    await cost("look", seen(target, spec.name))
    await cost("delete", provider.delete(spec.name))
    await cost("release", provider.release(spec.cluster))
    most = {
        "deploy": 56,
        "limits that hold": 4,
        "limits": 7,
        "power": 8,
        "look": 10,
        "delete": 10,
        "release": 13,
    }
    assert {
        what: sum(calls.values()) for what, calls in costs.items() if sum(calls.values()) > most[what]
    } == {}
    assert not costs["limits"]["CreateContainerView"], "a view is of everything"
