"""What becomes of lending when the cloud, or a person, takes away what it stands on: named, contained, not hammered.

The table in `test_bad_input.py` says which item each test is for.
"""

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pyVmomi import vim

from tests.contract.providers.vsphere_target import TEMPLATE, BackDoor, find
from tests.faultproxy import no_permission
from tests.service.whole_house import Cloudy, open_cloudy
from tests.support import until
from tools.parts.vcsim import Vcsim

pytestmark = pytest.mark.timeout(300)
STEADY = ("-perf-default", "1")
WRITES = {
    "CreateFolder": "Folder.Create",
    "CreateResourcePool": "Resource.CreatePool",
    "UpdateConfig": "Resource.EditPool",
    "CloneVM_Task": "VirtualMachine.Provisioning.DeployTemplate",
    "RelocateVM_Task": "Resource.ColdMigrate",
    "ReconfigVM_Task": "VirtualMachine.Config.Resource",
    "PowerOnVM_Task": "VirtualMachine.Interact.PowerOn",
    "PowerOffVM_Task": "VirtualMachine.Interact.PowerOff",
    "SuspendVM_Task": "VirtualMachine.Interact.Suspend",
    "Destroy_Task": "VirtualMachine.Inventory.Delete",
    "ReconfigureComputeResource_Task": "Host.Inventory.EditCluster",
    "AddCustomFieldDef": "Global.ManageCustomFields",
    "SetField": "Global.SetCustomField",
}
"""What changes a cloud, and a privilege that it takes."""


@pytest.fixture
async def cloudy(database_url: str, vcsim: Vcsim) -> AsyncIterator[Cloudy]:
    """A vCenter of one cluster with two hosts, idle."""
    await vcsim.start(hosts=2, vms=1, flags=STEADY)
    async with open_cloudy(database_url, vcsim) as cloudy:
        yield cloudy


def make_read_only(cloudy: Cloudy) -> None:
    """Whatever changes the cloud is denied, and the account's privileges say so."""
    cloudy.proxy.rules.lacking = set(WRITES.values())
    cloudy.proxy.rules.faults = {method: no_permission(name) for method, name in WRITES.items()}


async def are_lent(cloudy: Cloudy, count: int) -> bool:
    """Whether so many machines run, raised to more than the floor."""
    vms = await cloudy.lab.ours()
    return len(vms) == count and all(vm.is_on and vm.limit_mhz > 3000 for vm in vms)


async def live(cloudy: Cloudy) -> list[dict[str, Any]]:
    """Machines that there are; on a slow machine one may have failed before."""
    return [machine for machine in await cloudy.machines() if machine["state"] not in ("destroyed", "failed")]


async def lend(cloudy: Cloudy, count: int, **policy: Any) -> None:
    """From nothing to this many machines at work."""
    await cloudy.register()
    await cloudy.supply(**policy)
    await cloudy.set_mode("lend")
    await until(lambda: are_lent(cloudy, count), timeout=40, what=f"{count} machines at work")


async def test_a_read_only_account_is_told_and_cannot_lend_and_one_that_is_refused_later_rests(
    cloudy: Cloudy,
) -> None:
    make_read_only(cloudy)
    resource = await cloudy.register()
    missing = {one["privilege"]: one["disables"] for one in resource["validation"]["missing"]}
    assert set(WRITES.values()) <= set(missing)
    assert all(missing.values())
    assert "nothing may be lent" in missing["VirtualMachine.Config.Resource"]
    again = await cloudy.whole.made(f"/v1/resources/{cloudy.id}/validate", None)
    assert again["missing"] == resource["validation"]["missing"]

    refused = await cloudy.whole.ask("POST", f"/v1/resources/{cloudy.id}/mode", {"mode": "lend"})
    assert refused.status == 409
    assert all(name in refused.body["detail"] for name in ("Resource.CreatePool", "Config.Resource"))

    # An account that has every right by its own word, and is refused all the same.
    cloudy.proxy.rules.lacking.clear()
    await cloudy.whole.made(f"/v1/resources/{cloudy.id}/validate", None)
    await cloudy.supply(max_machines=1)
    await cloudy.set_mode("lend")
    (failed,) = await until(lambda: cloudy.events("machine_failed"), timeout=30, what="the failure")
    assert "permission" in failed["body"]["reason"]
    await cloudy.run(8)

    asked = {method: count for method, count in cloudy.proxy.calls.items() if method in WRITES}
    assert sum(asked.values()) == 1, "asked once, not again and again"
    (refused_call,) = asked
    assert f"privilege {WRITES[refused_call]}" in failed["body"]["reason"]
    assert await cloudy.lab.ours() == []
    assert len(await cloudy.events("machine_failed")) == 1
    (cluster,) = (await cloudy.clusters()).values()
    assert "the last deployment failed" in cluster["reason"]


async def test_rights_that_are_taken_away_later_are_named_and_asked_for_ever_more_rarely(
    cloudy: Cloudy,
) -> None:
    await lend(cloudy, 1, max_machines=1)
    make_read_only(cloudy)
    cloudy.lab.set_owner(0.9)
    (failed,) = await until(lambda: cloudy.events("limits_failed"), timeout=20, what="limits that failed")
    assert failed["body"]["cause"] == "permission"

    await cloudy.set_mode("draining")
    await until(lambda: cloudy.proxy.calls["PowerOffVM_Task"], timeout=20, what="a refused end")
    before = Counter(cloudy.proxy.calls)
    await asyncio.sleep(7)  # three looks at the inventory
    again = {method: cloudy.proxy.calls[method] - before[method] for method in WRITES}
    assert {method: count for method, count in again.items() if count > 1} == {}
    (machine,) = await live(cloudy)
    assert "privilege VirtualMachine.Interact.PowerOff" in machine["error"]
    assert len(await cloudy.events("limits_failed")) == 1

    cloudy.proxy.rules.heal()
    cloudy.whole.leap(60)
    await until(lambda: cloudy.events("resource_released"), timeout=30, what="the end once it is allowed")
    assert await cloudy.lab.ours() == []


async def test_a_cluster_that_vanishes_goes_to_the_floor_and_the_other_goes_on(
    database_url: str, vcsim: Vcsim
) -> None:
    await vcsim.start(clusters=2, hosts=1, vms=1, flags=STEADY)
    async with open_cloudy(database_url, vcsim) as cloudy:
        await lend(cloudy, 2)
        lent = {machine["id"] for machine in await live(cloudy)}
        known = (await cloudy.whole.ask("GET", f"/v1/resources/{cloudy.id}")).body["clusters"]
        stays, goes = sorted(known, key=lambda one: str(one["name"]))
        cloudy.proxy.rules.hidden = {goes["reference"], *(host["reference"] for host in goes["hosts"])}
        await until(lambda: _is_known(cloudy, stays), timeout=20, what="an inventory without it")

        cloudy.whole.leap(70)
        gone = await until(lambda: _is_floored(cloudy, goes["name"]), timeout=20, what="the floor")
        assert gone["budget_mhz"] == 400
        assert "nothing heard for" in gone["reason"]
        before = (await cloudy.clusters())[stays["name"]]
        cloudy.lab.owner = dict.fromkeys(cloudy.lab.hosts, 0.4)
        await until(lambda: _follows(cloudy, stays, before), timeout=20, what="the other to follow its owner")

        cloudy.proxy.rules.hidden = set()
        cloudy.lab.set_owner(0.1)
        await until(lambda: _is_idle(cloudy, goes["name"]), timeout=20, what="its return")
        await until(lambda: are_lent(cloudy, 2), timeout=30, what="both at work again")
        assert {machine["id"] for machine in await live(cloudy)} == lent, "the same machines as before"


async def _is_known(cloudy: Cloudy, only: dict[str, Any]) -> bool:
    known = (await cloudy.whole.ask("GET", f"/v1/resources/{cloudy.id}")).body["clusters"]
    return [one["id"] for one in known] == [only["id"]]


async def _is_floored(cloudy: Cloudy, name: str) -> dict[str, Any] | None:
    cluster = (await cloudy.clusters())[name]
    return cluster if cluster["verdict"] == "unknown" else None


async def _is_idle(cloudy: Cloudy, name: str) -> bool:
    return bool((await cloudy.clusters())[name]["verdict"] == "idle")


async def _follows(cloudy: Cloudy, cluster: dict[str, Any], before: dict[str, Any]) -> bool:
    """New samples, and limits in the cloud that leave the owner its 40 %."""
    now = (await cloudy.clusters())[cluster["name"]]
    hosts = {host["reference"] for host in cluster["hosts"]}
    limits = [vm.limit_mhz for vm in await cloudy.lab.ours() if vm.host in hosts]
    return now["sampled_at"] > before["sampled_at"] and [2000 < mhz < 2500 for mhz in limits] == [True]


async def test_an_unapproved_template_deploys_nothing_and_why_says_so(cloudy: Cloudy) -> None:
    await cloudy.register()
    template = await cloudy.supply(approve=False, max_machines=1)
    await cloudy.set_mode("lend")
    await until(lambda: _reason_says(cloudy, "no approved template"), timeout=20, what="the reason")
    await cloudy.run(3)
    assert await cloudy.machines() == []
    (cluster,) = (await cloudy.clusters()).values()
    told = await tides(cloudy, "why", cluster["name"])
    assert "no approved template" in told
    assert cloudy.proxy.calls["CloneVM_Task"] == 0

    await cloudy.approve(template)
    await until(lambda: are_lent(cloudy, 1), timeout=30, what="a machine once it is approved")
    path = f"/v1/templates/{template['id']}/versions/1"
    assert (await cloudy.whole.ask("POST", f"{path}/approve")).status == 409
    await cloudy.whole.made(f"{path}/revoke", None)
    assert (await cloudy.whole.ask("POST", f"{path}/approve")).status == 409
    await until(lambda: are_lent(cloudy, 0), timeout=30, what="the revoked one's machine to be gone")


async def _reason_says(cloudy: Cloudy, text: str) -> bool:
    return any(text in cluster["reason"] for cluster in (await cloudy.clusters()).values())


async def test_a_template_that_disappears_during_a_clone_fails_it_once_and_growth_rests(
    cloudy: Cloudy,
) -> None:
    await cloudy.register()
    await cloudy.supply(max_machines=1)
    cloudy.proxy.rules.delay_s["CloneVM_Task"] = 1.5
    await cloudy.set_mode("lend")
    await until(lambda: cloudy.proxy.calls["CloneVM_Task"], timeout=20, what="the clone to begin")
    await BackDoor(cloudy.lab.vcsim).run(_destroy_template)
    (failed,) = await until(lambda: cloudy.events("machine_failed"), timeout=20, what="the failure")
    assert "not_found" in failed["body"]["reason"]
    await until(lambda: cloudy.events("machine_destroyed"), timeout=20, what="the row to end")
    await cloudy.run(6)

    assert cloudy.proxy.calls["CloneVM_Task"] == 1, "growth rests"
    assert len(await cloudy.events("machine_failed")) == 1
    assert [machine["state"] for machine in await cloudy.machines()] == ["destroyed"]
    assert await cloudy.lab.ours() == [], "no orphan"
    assert await _reason_says(cloudy, "the last deployment failed")

    cloudy.whole.leap(61)
    await until(lambda: _has_failed(cloudy, 2), timeout=20, what="another try after the rest")
    assert "no template" in (await cloudy.events("machine_failed"))[1]["body"]["reason"]
    assert cloudy.proxy.calls["CloneVM_Task"] == 1


async def _has_failed(cloudy: Cloudy, times: int) -> bool:
    return len(await cloudy.events("machine_failed")) == times


def _destroy_template(content: Any) -> None:
    vm = find(content, vim.VirtualMachine, TEMPLATE)
    if vm.runtime.powerState == "poweredOn":
        vm.PowerOffVM_Task()
    vm.Destroy_Task()


HOSTILE = "[red]$(id)[/red]<script>'; drop table cluster; --\x9b31m\u202e../../"
"""Markup of a terminal and of a page, SQL, a shell, a control sequence in one character, right to left, a path."""
SHOWN = "[red]$(id)[/red]<script>'; drop table cluster; -- 31m ../../"


async def test_a_hostile_name_in_the_cloud_is_only_text_in_the_api_and_on_a_terminal(
    cloudy: Cloudy,
) -> None:
    await BackDoor(cloudy.lab.vcsim).run(_rename_cluster)
    await lend(cloudy, 2)
    resource = (await cloudy.whole.ask("GET", f"/v1/resources/{cloudy.id}")).body
    assert [one["name"] for one in resource["validation"]["clusters"]] == [HOSTILE]
    (cluster,) = await cloudy.whole.items("/v1/clusters")
    assert cluster["name"] == HOSTILE
    commands = [
        ("status",), ("cluster", "list"), ("why", cluster["id"]), ("cluster", "show", cluster["id"]),
        ("resource", "show", "lab"), ("events",), ("status", "--json"),
    ]  # fmt: skip
    told = [await tides(cloudy, *words) for words in commands]

    for words, text in zip(commands, told, strict=True):
        assert all(letter.isprintable() or letter == "\n" for letter in text), words
    assert "[red]$(id)" in told[0]
    assert SHOWN in told[1]
    assert json.loads(told[-1])[0]["name"] == HOSTILE
    refused = await tides(cloudy, "cluster", "pause", "\x1b[31mnobody", code=1)
    assert "there are: [red]$(id)" in refused
    assert "\x9b" not in refused
    assert "\x1b" not in refused


def _rename_cluster(content: Any) -> None:
    find(content, vim.ClusterComputeResource, "DC0_C0").Rename_Task(HOSTILE)


async def tides(cloudy: Cloudy, *words: str, code: int = 0) -> str:
    """What a command says, as a process of its own."""
    token = cloudy.whole.settings.bootstrap_admin_token
    assert token is not None
    environment = {
        **os.environ, "TIDES_URL": cloudy.whole.run.url, "TIDES_TOKEN": token.get_secret_value(), "COLUMNS": "200",
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", *words),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await process.communicate()
    assert process.returncode == code, told.decode()
    return told.decode()
