"""A single ESXi host under every service: it lends, yields, and has everything back, files too."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pyVmomi import vim

from tests.contract.providers.vsphere_target import HostTarget, read_counters
from tests.service.whole_house import Cloudy, open_cloudy
from tests.support import until
from tools.parts.vcsim import Vcsim


@pytest.fixture
async def cloudy(database_url: str, vcsim: Vcsim) -> AsyncIterator[Cloudy]:
    """One host, idle, with a machine that is off and serves as a template."""
    await vcsim.start(vms=1, flags=("-esx", "-autostart=false", "-perf-default", "1"))
    async with open_cloudy(database_url, vcsim) as cloudy:
        cloudy.proxy.rules.esxi = True
        cloudy.lab.counters = await cloudy.lab.eye.run(read_counters)
        yield cloudy


async def test_a_host_lends_is_cut_and_gets_everything_back(cloudy: Cloudy) -> None:
    resource = await cloudy.register(settings={})
    refused = await cloudy.whole.ask("POST", f"/v1/resources/{cloudy.id}/mode", {"mode": "lend"})
    assert (refused.status, "No network is named" in refused.body["detail"]) == (409, True)
    settings = {"settings": {"network": HostTarget.network}}
    seen = {"If-Match": f'"{resource["revision"]}"'}
    changed = await cloudy.whole.ask("PATCH", f"/v1/resources/{cloudy.id}", settings, headers=seen)
    assert changed.status == 200, changed.body
    assert changed.body["validation"]["blockers"] == []
    assert "disk_copy" in resource["capabilities"]
    assert "clone" not in resource["capabilities"]

    await cloudy.supply(max_machines=1, template_name=HostTarget.template)
    await cloudy.set_mode("lend")
    await until(lambda: _runs(cloudy, 3000), timeout=40, what="a machine at work")
    cloudy.lab.set_owner(0.9)
    await until(lambda: _is_cut(cloudy), timeout=20, what="a machine that gave way")

    await cloudy.set_mode("draining")
    await until(lambda: cloudy.events("resource_released"), timeout=40, what="everything given back")
    assert await cloudy.lab.ours() == []
    assert await cloudy.lab.eye.run(_directories) == {HostTarget.template}
    assert not cloudy.proxy.disks.loose


async def _runs(cloudy: Cloudy, above_mhz: int) -> bool:
    vms = await cloudy.lab.ours()
    return len(vms) == 1 and vms[0].is_on and vms[0].limit_mhz > above_mhz


async def _is_cut(cloudy: Cloudy) -> bool:
    vms = await cloudy.lab.ours()
    return len(vms) == 1 and (vms[0].limit_mhz < 1000 or not vms[0].is_on)


def _directories(content: Any) -> set[str]:
    """What lies on the host's datastore."""
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.Datastore], True)
    (store,) = view.view
    everything = vim.host.DatastoreBrowser.SearchSpec(matchPattern=["*"])
    task = store.browser.SearchDatastore_Task(f"[{store.name}]", everything)
    return {str(each.path) for each in task.info.result.file}
