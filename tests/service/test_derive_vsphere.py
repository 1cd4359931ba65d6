"""An image that is made in a vCenter, under every service: a person plays the guest, which vcsim does not run."""

import base64
import gzip
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import yaml
from pyVmomi import vim

from services.workload import main
from services.workload.settings import Pace
from tests.contract.providers.vsphere_target import find, named
from tests.service.whole_house import Cloudy, open_cloudy
from tests.support import until
from tools.parts.vcsim import Vcsim


@pytest.fixture
async def cloudy(database_url: str, vcsim: Vcsim, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cloudy]:
    """One host, idle, with a machine that is off and serves as a template; it is looked at often."""
    monkeypatch.setattr(main, "Pace", partial(Pace, look_every_s=2.0))
    await vcsim.start(hosts=1, vms=1, flags=("-autostart=false", "-perf-default", "1"))
    async with open_cloudy(database_url, vcsim) as cloudy:
        yield cloudy


async def test_a_version_is_derived_and_deployed_and_its_template_goes_when_it_is_revoked(
    cloudy: Cloudy,
) -> None:
    whole = cloudy.whole
    resource = await cloudy.register()
    assert "templates" in resource["capabilities"]
    template = await cloudy.supply(max_machines=1)
    path = f"/v1/templates/{template['id']}"

    async def derive() -> str:
        body = {"components": ["boinc"], "auto_approve": True, "within_minutes": 60}
        return str((await whole.made(f"{path}/versions/1/derive", body))["id"])

    async def newest() -> dict[str, Any]:
        return (await whole.items(f"{path}/derivations"))[0]

    async def builder() -> str | None:
        """The name of the builder when it installs."""
        found = await newest()
        assert found["state"] == "running", found
        return f"tides-{found['machine_id']}" if found["step"] == "running" else None

    await derive()
    name = str(await until(builder, timeout=60, what="a builder that runs"))
    [vm] = await cloudy.lab.ours()
    assert (vm.name, vm.limit_mhz <= 400) == (name, True)
    written = await cloudy.lab.eye.run(lambda content: _written(content, name))
    assert written["runcmd"][1][2] == "tides-build.service"
    await cloudy.lab.eye.run(lambda content: _turn_off(content, name))
    done = await until(lambda: _is(newest, "succeeded"), timeout=60, what="a version")
    [_, made] = (await whole.ask("GET", path)).body["versions"]
    assert (made["version"], made["state"], made["components"]) == (2, "approved", ["boinc"])
    assert (made["id"], made["derived_from"]["version"]) == (done["id"], 1)
    await cloudy.set_mode("lend")
    [vm] = await until(lambda: _runs(cloudy), timeout=60, what="a machine of the new version")
    written = await cloudy.lab.eye.run(lambda content: _written(content, vm.name))
    files = {file["path"]: file["content"] for file in written["write_files"]}
    assert "apt-get" not in files["/usr/local/sbin/tides-setup"]

    await whole.made(f"{path}/versions/2/revoke", None)
    await until(lambda: _is_gone(cloudy, name), timeout=60, what="a template that is gone with its machines")


async def _runs(cloudy: Cloudy) -> list[Any] | None:
    vms = [vm for vm in await cloudy.lab.ours() if vm.is_on]
    return vms if len(vms) == 1 else None


async def _is(newest: Any, state: str) -> dict[str, Any] | None:
    found: dict[str, Any] = await newest()
    assert found["state"] in ("running", state), found
    return found if found["state"] == state else None


async def _is_gone(cloudy: Cloudy, name: str) -> bool:
    names = await cloudy.lab.eye.run(lambda content: {each for _, each in named(content, vim.VirtualMachine)})
    return name not in names


def _turn_off(content: Any, name: str) -> None:
    """What the guest does at its end."""
    find(content, vim.VirtualMachine, name).PowerOffVM_Task()


def _written(content: Any, name: str) -> dict[str, Any]:
    """The document in the machine's guestinfo."""

    options = {one.key: one.value for one in find(content, vim.VirtualMachine, name).config.extraConfig}
    text = gzip.decompress(base64.b64decode(options["guestinfo.userdata"])).decode()
    document: dict[str, Any] = yaml.safe_load(text)
    return document
