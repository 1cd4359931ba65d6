"""A vCenter that refuses the account of Tides: all go on with the alternate one, and go back when the first works."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.contract.providers.vsphere_target import TEMPLATE
from tests.service.lone_service import Answer
from tests.service.whole_house import Cloudy, open_cloudy
from tests.support import until
from tools.parts.vcsim import Vcsim

SECOND, SECRET = "tides-2@vsphere.local", "another horse"
QUARTER_S = 15 * 60 + 1


@pytest.fixture
async def cloudy(database_url: str, vcsim: Vcsim) -> AsyncIterator[Cloudy]:
    """One cluster, two accounts."""
    await vcsim.start(clusters=1, hosts=1, vms=1, flags=("-perf-default", "1"))
    async with open_cloudy(database_url, vcsim) as cloudy:
        cloudy.proxy.accounts.passwords[SECOND] = SECRET
        yield cloudy


async def _set(cloudy: Cloudy, alternate: dict[str, Any] | None) -> Answer:
    path, seen = f"/v1/resources/{cloudy.id}", {"If-Match": "*"}
    return await cloudy.whole.ask("PATCH", path, {"alternate": alternate}, headers=seen)


async def _shown(cloudy: Cloudy) -> dict[str, Any]:
    found: dict[str, Any] = (await cloudy.whole.ask("GET", f"/v1/resources/{cloudy.id}")).body
    return found


async def _is_asked_as(cloudy: Cloudy, *, alternate: bool) -> dict[str, Any] | None:
    """What is shown once this account is in use and everybody is answered."""
    shown = await _shown(cloudy)
    (watched,) = await cloudy.whole.items("/v1/monitors")
    (cluster,) = await cloudy.whole.items("/v1/clusters")
    calm = {watched["cloud"]["state"], cluster["cloud"]["state"]} == {"closed"}
    return shown if calm and shown["alternate"]["in_use"] is alternate else None


async def test_a_locked_account_costs_no_machine_and_each_is_tried_once(cloudy: Cloudy) -> None:
    first, accounts = cloudy.lab.vcsim.username, cloudy.proxy.accounts
    await cloudy.register()
    await cloudy.supply(max_machines=1, template_name=TEMPLATE)
    await cloudy.set_mode("lend")
    await until(lambda: _runs(cloudy), timeout=40, what="a machine at work")
    before = [one["id"] for one in await cloudy.machines()]
    same = await _set(cloudy, {"username": first.upper(), "password": SECRET})
    wrong = await _set(cloudy, {"username": SECOND, "password": "wrong"})
    assert (same.field, wrong.field) == ("alternate.username", "alternate.password")
    assert wrong.status == 422
    assert (await _set(cloudy, {"username": SECOND, "password": SECRET})).body["alternate"]["in_use"] is False

    accounts.locked, accounts.tried = {first}, type(accounts.tried)()
    cloudy.proxy.sessions.end_all()
    shown = await until(lambda: _is_asked_as(cloudy, alternate=True), timeout=40, what="the alternate")
    assert (shown["health"]["state"], shown["health"]["cause"], shown["mode"]) == ("degraded", "auth", "lend")
    assert "incorrect user name" in shown["alternate"]["why"]
    assert first in shown["health"]["detail"]
    assert SECOND in shown["health"]["detail"]
    assert 1 <= accounts.tried[first] <= 3, (
        "once by monitor, once by workload, whose lanes may both be on their way"
    )
    cloudy.lab.set_owner(0.9)
    await until(lambda: _is_cut(cloudy), timeout=40, what="the owner to be given way to as the alternate")

    tried = accounts.tried[first]
    cloudy.whole.leap(QUARTER_S)
    await until(lambda: accounts.tried[first] > tried, timeout=60, what="the first to be tried again")
    accounts.locked = set()
    assert accounts.tried[first] == tried + 1
    validated = await cloudy.whole.ask("POST", f"/v1/resources/{cloudy.id}/validate")
    assert validated.status == 200, validated.body
    shown = await until(lambda: _is_asked_as(cloudy, alternate=False), timeout=40, what="the first again")
    assert shown["health"]["state"] == "ok"
    assert [one["id"] for one in await cloudy.machines()] == before, "nothing was deployed anew"
    assert SECRET not in "".join(text for _, text in cloudy.whole.answers)


async def _runs(cloudy: Cloudy) -> bool:
    vms = await cloudy.lab.ours()
    return len(vms) == 1 and vms[0].is_on and vms[0].limit_mhz > 1000


async def _is_cut(cloudy: Cloudy) -> bool:
    vms = await cloudy.lab.ours()
    return len(vms) == 1 and (vms[0].limit_mhz < 1000 or not vms[0].is_on)
