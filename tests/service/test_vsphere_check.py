"""`tides vsphere check` on a vCenter behind a strict proxy: everything is tried, and nothing is left."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pyVmomi import vim

from libs.common.auth import Principal, Role
from libs.common.ids import new_id
from libs.providers import trial
from tests.contract.providers.vsphere_target import TEMPLATE, BackDoor, named
from tests.faultproxy import SoapFault
from tests.service.whole_house import Cloudy, open_cloudy
from tests.support import until
from tools.parts.vcsim import Vcsim

CALLS = [
    "validate", "sample", "machines", "find_template", "create", "set_limits: low", "set_power: on",
    "set_limits: raised", "sample: our machine", "set_power: suspended", "set_power: resumed",
    "set_power: guest shutdown", "set_power: off", "delete", "release",
]  # fmt: skip


@pytest.fixture
async def cloudy(database_url: str, vcsim: Vcsim, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cloudy]:
    monkeypatch.setattr(trial, "LOOK_EVERY_S", 0.2)
    async with open_cloudy(database_url, vcsim) as cloudy:
        await cloudy.register()
        yield cloudy


async def left(cloudy: Cloudy) -> list[str]:
    """What of ours is in the cloud, seen past every service."""

    def look(content: Any) -> list[str]:
        kinds = (vim.VirtualMachine, vim.Folder, vim.ResourcePool)
        return [name for kind in kinds for _, name in named(content, kind) if name.startswith("tides")]

    return await BackDoor(cloudy.lab.vcsim).run(look)


async def steps(cloudy: Cloudy, until_call: str | None = None, **asked: Any) -> list[dict[str, Any]]:
    """The steps of a trial; hangs up after one of them, where it is named."""
    who = Principal(new_id(), "someone", Role.OPERATOR, cloudy.whole.organisation, new_id())
    headers = {"Authorization": f"Bearer {cloudy.whole.signer.sign(who)}"}
    url = f"{cloudy.whole.run.url}/v1/resources/{cloudy.id}/check"
    found = []
    async with cloudy.whole.http.post(url, json=asked, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        async for line in answer.content:
            found.append(json.loads(line))
            if found[-1]["call"] == until_call:
                answer.close()
                break
    return found


async def test_every_call_is_tried_and_nothing_is_left(cloudy: Cloudy) -> None:
    cloudy.proxy.calls.clear()
    assert [step["call"] for step in await steps(cloudy)] == CALLS[:3]
    changing = {call for call in cloudy.proxy.calls if call.endswith("_Task") or call.startswith("Create")}
    assert changing - {"CreateContainerView", "CreatePropertyCollector"} == set(), (
        "without a template it only looks"
    )

    found = await steps(cloudy, template=TEMPLATE)
    assert [(step["call"], step["ok"]) for step in found] == [(call, True) for call in CALLS], found
    assert all(step["ms"] >= 0 for step in found)
    assert found[0]["note"].startswith("VMware vCenter Server 6.5.0")
    assert "MHz ours" in found[CALLS.index("sample: our machine")]["note"]
    assert await left(cloudy) == []

    await cloudy.set_mode("paused")
    refused = await cloudy.whole.ask("POST", f"/v1/resources/{cloudy.id}/check", {})
    assert (refused.status, "observe" in refused.body["remedy"]) == (409, True)


async def test_what_fails_is_named_and_nothing_is_left_of_a_trial_that_ends_early(cloudy: Cloudy) -> None:
    cloudy.proxy.rules.faults["PowerOnVM_Task"] = SoapFault("NotSupported", "not here")
    found = await steps(cloudy, template=TEMPLATE)
    assert [step["call"] for step in found if not step["ok"]] == ["set_power: on"]
    assert [step["call"] for step in found[-2:]] == ["delete", "release"]
    assert await left(cloudy) == []
    cloudy.proxy.rules.heal()

    found = await steps(cloudy, "set_power: on", template=TEMPLATE)
    assert found[-1]["ok"], found

    async def is_clean() -> bool:
        return await left(cloudy) == []

    await until(is_clean, timeout=30, what="a cloud without anything of ours after who asked hung up")
