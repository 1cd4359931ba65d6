"""A vCenter that is gone for good, under every service: given up, and met again by who registers it anew."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.contract.providers.vsphere_target import TEMPLATE
from tests.service.whole_house import Cloudy, open_cloudy
from tests.support import until
from tools.parts.vcsim import Vcsim


@pytest.fixture
async def cloudy(database_url: str, vcsim: Vcsim) -> AsyncIterator[Cloudy]:
    """A vCenter of one cluster with two hosts, idle."""
    await vcsim.start(hosts=2, vms=1, flags=("-perf-default", "1"))
    async with open_cloudy(database_url, vcsim) as cloudy:
        yield cloudy


async def names_at_work(cloudy: Cloudy) -> set[str]:
    return {vm.name for vm in await cloudy.lab.ours() if vm.is_on}


async def is_degraded(cloudy: Cloudy) -> bool:
    found = await cloudy.whole.ask("GET", f"/v1/resources/{cloudy.id}")
    return bool(found.body["health"]["state"] == "degraded")


async def supply_again(cloudy: Cloudy) -> None:
    """A template and the policy for the resource that was registered anew."""
    given = {"name": "worker", "resource_id": cloudy.id, "reference": TEMPLATE}
    template = await until(lambda: cloudy.whole.accepted("/v1/templates", given), what="templates to know it")
    await cloudy.approve(template)
    (policy,) = await cloudy.whole.items("/v1/policies")
    path, scope = f"/v1/policies/{policy['id']}/assignments", {"scope": "resource", "scope_id": cloudy.id}
    await until(lambda: cloudy.whole.accepted(path, scope), what="policy to know it")


async def sweep(cloudy: Cloudy) -> dict[str, Any] | None:
    """What the sweeper found; None before it asks."""
    found = await cloudy.whole.ask("GET", f"/v1/sweeps/{cloudy.id}")
    return found.body if found.status == 200 and found.body["stopped"] else None


async def test_a_dead_vcenter_is_given_up_by_name_and_its_machines_are_strangers_when_it_is_back(
    cloudy: Cloudy,
) -> None:
    await cloudy.register()
    await cloudy.supply(max_machines=1)
    await cloudy.set_mode("lend")
    ours = await until(lambda: names_at_work(cloudy), timeout=40, what="a machine at work")
    first = cloudy.id
    await cloudy.proxy.stop()
    await until(lambda: is_degraded(cloudy), timeout=40, what="an outage that is known")
    path = f"/v1/resources/{first}?abandon=true"
    assert (await cloudy.whole.ask("DELETE", path)).status == 409
    cloudy.whole.leap(660)

    given_up = await cloudy.whole.ask("DELETE", path)

    assert given_up.status == 202, given_up.body
    left = {machine["name"]: machine for machine in given_up.body["machines"]}
    assert set(left) == ours
    assert {machine["cluster"] for machine in left.values()} == {"DC0_C0"}
    assert "in folder `tides` and in resource pool `tides`" in given_up.body["find"]
    assert [machine["state"] for machine in await cloudy.machines()] == ["abandoned"]
    assert {event["body"]["name"] for event in await cloudy.events("machine_abandoned")} == ours
    assert await cloudy.whole.items("/v1/clusters") == []

    await cloudy.proxy.start()
    await cloudy.register()
    await supply_again(cloudy)
    await cloudy.set_mode("lend")
    found = await until(lambda: sweep(cloudy), timeout=40, what="a sweeper that asks")
    assert found["machines"][0]["name"] in ours
    assert "abandoned by Ada" in found["machines"][0]["was"]
    await cloudy.run(6)
    assert await names_at_work(cloudy) == ours

    await cloudy.whole.made(f"/v1/sweeps/{cloudy.id}/allow", {"names": list(ours)})
    await until(lambda: others_work(cloudy, ours), timeout=40, what="a machine of the new resource alone")


async def others_work(cloudy: Cloudy, before: set[str]) -> bool:
    now = {vm.name for vm in await cloudy.lab.ours()}
    return bool(now) and now.isdisjoint(before)
