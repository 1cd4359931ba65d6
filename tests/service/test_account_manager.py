"""Tides as BOINC's account manager, from outside: tokens, projects by weight, drains, trouble, what clients claim."""

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from libs.boinc.manager import ManagerRequest, ReportedProject, parse_reply, render_request
from libs.boinc.signing import SigningKey
from libs.common.contracts.action import MachineDestroyed, MachineDraining, MachineRequested
from libs.common.contracts.supply import ContributionChanged
from services.contribution.domain import FIRST_REPEAT_S, REPEAT_S, TROUBLE_REPEAT_S
from services.contribution.main import build
from tests.service.lone_service import OURS, THEIRS, serve
from tests.service.manager_house import KEY, MACHINE, TOKEN, WEAK, House, attached, opened


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with opened(database_url) as one:
        yield one


async def test_a_machine_is_told_its_projects_its_own_token_and_to_come_again_soon(house: House) -> None:
    reply = await house.come(TOKEN)

    [account] = reply.accounts
    assert (account.url, account.authenticator, account.resource_share) == (house.project_url, WEAK, 3.0)
    assert account.signature is not None
    assert KEY.public.verifies(account.url, account.signature)
    assert reply.signing_key == KEY.public
    assert reply.repeat_s == FIRST_REPEAT_S
    assert reply.opaque == str(house.machine_id)
    assert reply.dynamic
    assert reply.authenticator not in (None, TOKEN)


async def test_a_lost_reply_bricks_nobody_and_a_spent_token_is_a_thiefs(house: House) -> None:
    lost = await house.come(TOKEN)
    again = await house.come(TOKEN)
    assert again.authenticator == lost.authenticator
    assert lost.authenticator is not None

    seen = await house.come(lost.authenticator)
    assert seen.authenticator is None
    assert await house.refused(TOKEN)
    assert await house.refused("")
    assert await house.refused("guessed")
    assert not await house.refused(lost.authenticator)
    async with house.lone.http.get(f"{house.lone.run.url}/metrics") as answer:
        assert 'tides_boinc_contacts_total{end="spent token"} 1.0' in await answer.text()


async def test_a_token_is_changed_every_day(house: House) -> None:
    token = await house.settled_token()
    house.clock.pass_by(86_399)
    assert (await house.come(token)).authenticator is None
    house.clock.pass_by(2)
    fresh = (await house.come(token)).authenticator
    assert fresh is not None
    assert (await house.come(token)).authenticator == fresh
    assert (await house.come(fresh)).authenticator is None
    assert await house.refused(token)


async def test_a_change_of_weight_reaches_a_running_machine_at_its_next_contact(house: House) -> None:
    token = await house.settled_token()
    assert (await house.come(token, attached(house.project_url))).repeat_s == REPEAT_S

    await house.lone.ask("PATCH", f"/v1/contributions/{house.contribution}", {"weight": 0.5})
    reply = await house.come(token, attached(house.project_url))

    assert [account.resource_share for account in reply.accounts] == [0.5]
    assert reply.repeat_s == FIRST_REPEAT_S
    assert (await house.come(token, attached(house.project_url, 0.5))).repeat_s == REPEAT_S


async def test_who_does_not_follow_is_not_asked_for_ever_to_come_soon(house: House) -> None:
    token = await house.settled_token()
    ignores = attached(house.project_url, 77.0)
    assert (await house.come(token, ignores)).repeat_s == FIRST_REPEAT_S
    house.clock.pass_by(901)
    assert (await house.come(token, ignores)).repeat_s == REPEAT_S


async def test_what_is_lent_no_more_is_left_when_its_work_is_done(house: House) -> None:
    token = await house.settled_token()
    by_hand = ReportedProject(url="https://mine.example/", resource_share=1.0)
    await house.lone.ask("DELETE", f"/v1/contributions/{house.contribution}")

    reply = await house.come(token, attached(house.project_url), by_hand)

    assert [(account.url, account.detach_when_done, account.detach) for account in reply.accounts] == [
        (house.project_url, True, False)
    ]
    assert reply.repeat_s == FIRST_REPEAT_S
    leaving = attached(house.project_url, detach_when_done=True)
    assert (await house.come(token, leaving, by_hand)).repeat_s == REPEAT_S
    assert (await house.come(token, by_hand)).accounts == ()


async def test_only_projects_for_its_resource_and_with_a_signature_reach_a_machine(house: House) -> None:
    await house.add_project("https://elsewhere.example/", 1.0, resource_ids=[str(uuid4())])
    await house.add_project("https://here.example/", 1.0, resource_ids=[str(house.resource_id)])
    unsigned = await house.lone.ask("POST", "/v1/projects", {"name": "u", "url": "https://unsigned.example/"})
    lent = {"project_id": unsigned.body["id"], "weight": 1, "authenticator": WEAK}
    await house.lone.ask("POST", "/v1/contributions", lent)

    reply = await house.come(TOKEN)

    assert [account.url for account in reply.accounts] == [house.project_url, "https://here.example/"]


async def test_a_draining_machine_gets_no_more_work_and_hands_back_what_it_has_not_begun(
    house: House,
) -> None:
    token = await house.settled_token()
    await house.say(MachineDraining)
    [account] = (await house.come(token, attached(house.project_url))).accounts
    assert (account.dont_request_more_work, account.abort_not_started, account.update) == (True, True, True)
    assert not account.detach

    await house.say(MachineDestroyed)
    assert await house.refused(token)


async def test_a_successor_under_the_same_name_and_cpid_is_known_by_its_token_alone(house: House) -> None:
    same = {"host_cpid": "67ca5b3951c52e06fe5e2bb2720c322e", "domain_name": "tides-0a1b2c3d-1"}
    token = await house.settled_token()
    house.clock.pass_by(300)
    await house.come(token, attached(house.project_url, cpu_s=400.0, host_id=6), **same)
    successor = UUID(int=9)
    await house.say(MachineDestroyed)
    await house.say(MachineRequested, successor, guest_token_sha256=sha256(b"the successor's").hexdigest())

    first = await house.come("the successor's", **same)
    assert first.opaque == str(successor)
    assert first.authenticator is not None
    assert await house.refused(token)
    house.clock.pass_by(300)
    # The project has taken it for the old host; its counters begin anew all the same.
    await house.come(first.authenticator, attached(house.project_url, cpu_s=90.0, host_id=6), **same)
    found = await house.lone.ask("GET", "/v1/claims?since=2026-11-01&until=2026-12-01&by=machine")
    hours = {item["of"]: round(item["core_hours"] * 3600) for item in found.body["items"]}
    assert hours == {str(MACHINE): 400, str(successor): 90}


async def test_hours_come_from_the_clients_counters_and_no_machine_claims_more_than_it_has(
    house: House,
) -> None:
    token = await house.settled_token()
    url = house.project_url
    for cpu_s in (500.0, 900.0, 900.0, 1e12, 100.0):
        house.clock.pass_by(300)
        await house.come(token, attached(url, cpu_s=cpu_s, host_id=6))
    house.clock.pass_by(86_000)
    await house.come(token, attached(url, cpu_s=1700.0))
    await house.come(token)
    house.clock.pass_by(300)
    await house.come(token, attached(url, cpu_s=50.0))

    path = "/v1/claims?since=2026-11-01&until=2026-12-01&by="
    days = (await house.lone.ask("GET", f"{path}day")).body
    hours = {"2026-11-20": (500 + 400 + 600) / 3600, "2026-11-21": (200 + 50) / 3600}
    assert {item["of"]: item["core_hours"] for item in days["items"]} == pytest.approx(hours, abs=0.001)
    assert days["items"][0]["credit"] == pytest.approx(1500 * 4e9 * 200 / 86_400e9, abs=0.001)
    assert days["core_hours"] == pytest.approx(sum(hours.values()), abs=0.001)
    for by, of in (("project", house.project_id), ("machine", str(MACHINE)), ("organisation", str(OURS))):
        found = (await house.lone.ask("GET", path + by)).body
        assert [(item["of"], item["core_hours"]) for item in found["items"]] == [(of, days["core_hours"])]
    assert (await house.lone.ask("GET", f"{path}day", organisation=THEIRS)).body["items"] == []
    other = (await house.lone.ask("GET", f"{path}day&project_id={UUID(int=99)}")).body
    assert (other["items"], other["core_hours"]) == ([], 0)
    refused = await house.lone.ask("GET", "/v1/claims?since=2026-12-01&until=2026-11-01")
    assert (refused.status, refused.field) == (422, "since")


async def test_trouble_of_ours_is_no_error_for_a_client(house: House) -> None:
    token = await house.settled_token()
    async with house.lone.run.services[0].database.transaction() as session:
        await session.execute(text("ALTER TABLE guest_token RENAME TO away"))
    try:
        reply = await house.come(token, attached(house.project_url), opaque="<m>7</m>")
        odd = await house.come(token, opaque="a & b")
    finally:
        async with house.lone.run.services[0].database.transaction() as session:
            await session.execute(text("ALTER TABLE away RENAME TO guest_token"))

    assert (reply.accounts, reply.authenticator, reply.opaque) == ((), None, "<m>7</m>")
    assert (reply.repeat_s, reply.signing_key, odd.opaque) == (TROUBLE_REPEAT_S, KEY.public, "")
    assert (await house.come(token)).accounts != ()


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"a=b", b"\xff\xfe", b"<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>"]
)
async def test_what_is_no_client_is_told_so(house: House, body: bytes) -> None:
    assert b"<error_num>-112</error_num>" in await house.post(body)


@pytest.mark.parametrize("kind", ["application/json", "text/plain; charset=utf-16", "multipart/form-data"])
async def test_a_client_is_answered_whatever_it_calls_its_body(house: House, kind: str) -> None:
    asked = render_request(ManagerRequest(authenticator=TOKEN))
    assert parse_reply(await house.post(asked, kind)).accounts != ()


async def test_a_persons_client_learns_who_this_is(house: House) -> None:
    async with house.lone.http.get(f"{house.lone.run.url}/boinc/get_project_config.php") as answer:
        assert b"<account_manager/>" in await answer.read()


async def test_only_this_installations_signature_is_kept(house: House) -> None:
    path = f"/v1/projects/{house.project_id}"
    other = SigningKey.generate().sign(house.project_url)
    for wrong in (
        other,
        KEY.sign(house.project_url + "x/"),
        "abc",
        KEY.sign(house.project_url).replace("\n", "\r\n"),
    ):
        answer = await house.lone.ask("PATCH", path, {"url_signature": wrong})
        assert (answer.status, answer.field) == (422, "url_signature")
        assert "tides boinc sign" in answer.body["remedy"]
    assert (await house.lone.ask("PATCH", path, {"url_signature": None})).body["url_signature"] is None
    assert (await house.come(TOKEN)).accounts == ()


async def test_without_a_key_there_is_no_account_manager(database_url: str) -> None:
    async with serve(build, "contribution", database_url) as lone:
        assert (await lone.ask("GET", "/boinc/get_project_config.php")).status == 404
        project = await lone.ask("POST", "/v1/projects", {"name": "x", "url": "https://x.example/"})
        signed = {"url_signature": KEY.sign("https://x.example/")}
        answer = await lone.ask("PATCH", f"/v1/projects/{project.body['id']}", signed)
        assert (answer.status, answer.body["remedy"]) == (409, "Set TIDES_BOINC_SIGNING_KEY_FILE first.")


async def test_two_replicas_give_a_machine_the_same_new_token(database_url: str) -> None:
    async with opened(database_url) as house:
        replies = await asyncio.gather(*(house.come(TOKEN) for _ in range(8)))
        assert len({reply.authenticator for reply in replies}) == 1
        token = replies[0].authenticator
        assert token is not None
        seen = await asyncio.gather(*(house.come(token) for _ in range(4)))
        assert {reply.authenticator for reply in seen} == {None}


async def test_workload_hears_whether_a_project_is_signed(house: House) -> None:
    heard = [event for event in await house.lone.hear(1) if isinstance(event, ContributionChanged)]
    assert [event.project_signed for event in heard] == [True]
    path = f"/v1/projects/{house.project_id}"
    for signature in (KEY.sign(house.project_url), None, None, KEY.sign(house.project_url)):
        assert (await house.lone.ask("PATCH", path, {"url_signature": signature})).status == 200
    told = [event for event in await house.lone.hear(3) if isinstance(event, ContributionChanged)]
    assert [(event.project_signed, event.revision) for event in told] == [(True, 1), (False, 2), (True, 3)]
