"""How far a probe has come, as its agent and its client tell: each step once, with what stands in its way."""

from collections.abc import AsyncIterator
from hashlib import sha256
from uuid import UUID

import pytest

from libs.common.contracts.action import MachineDeployed, MachineRequested
from libs.common.contracts.probe import ProbeReported
from tests.service.manager_house import KEY, House, attached, opened

PROBE, MACHINE = UUID(int=31), UUID(int=32)
TOKEN, SECRET = "the probe's", "drawn-by-the-machine-itself-0123456789"


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with opened(database_url) as one:
        await one.say(MachineDeployed, MACHINE)  # facts come in any order
        await one.say(
            MachineRequested, MACHINE, probe_id=PROBE, guest_token_sha256=sha256(TOKEN.encode()).hexdigest()
        )
        yield one


async def reports(house: House) -> list[tuple[str, str]]:
    await house.lone.settle()
    found = [event for event in house.lone.said if isinstance(event, ProbeReported)]
    assert {(event.probe_id, event.machine_id, event.resource_id) for event in found} <= {
        (PROBE, MACHINE, house.resource_id)
    }
    return [(event.step, event.reason) for event in sorted(found, key=lambda event: event.id)]


async def beat(house: House, **body: object) -> None:
    headers = {"Authorization": f"Bearer {SECRET}"}
    assert (await house.lone.ask("POST", "/guests/beat", body, role=None, headers=headers)).status == 200


async def test_each_step_is_told_once_and_why_it_comes_no_further(house: House) -> None:
    url = house.project_url
    enrolled = {"token": TOKEN, "secret": SECRET}
    for _ in range(2):
        assert (await house.lone.ask("POST", "/guests/enrol", enrolled, role=None)).status == 200
    await beat(house, boinc_error="connection refused")
    token = (await house.come(TOKEN)).authenticator
    assert token is not None
    await house.come(token, attached(url))
    await house.come(token, attached(url, failed_contacts=3))
    await beat(house, boinc_error="connection refused")  # what is behind it is told no more
    await house.come(token, attached("https://elsewhere.example/", host_id=5))
    await house.come(token, attached(url, host_id=7))
    await house.come(token, attached(url, host_id=7))
    await beat(house, task_count=3)
    assert await reports(house) == [
        ("enrolled", ""),
        ("enrolled", "its BOINC cannot be asked: connection refused"),
        ("contacted", f"the client has not been taken by {url} yet"),
        ("contacted", f"the client cannot reach {url}, or is refused there"),
        ("contacted", f"the client has not been taken by {url} yet"),
        ("attached", ""),
    ]
    # Of a machine that is no probe nothing is said.
    before = await reports(house)
    await house.settled_token()
    assert await reports(house) == before


async def test_a_project_that_no_client_would_take_is_named(house: House) -> None:
    path = f"/v1/projects/{house.project_id}"
    assert (await house.lone.ask("PATCH", path, {"url_signature": None})).status == 200
    await house.come(TOKEN)
    await house.lone.ask("DELETE", f"/v1/contributions/{house.contribution}")
    await house.come(TOKEN)
    signed = {"url_signature": KEY.sign(house.project_url)}
    assert (await house.lone.ask("PATCH", path, signed)).status == 200
    whys = [why for step, why in await reports(house) if step == "contacted"]
    assert whys == [
        f"the address of {house.project_url} is not signed, so no client takes it: `tides project sign`",
        "no project is lent to from here",
    ]
