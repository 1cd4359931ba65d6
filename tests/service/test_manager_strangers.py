"""Who comes to the account manager that nobody knows, or too often; and sums of what clients claim, by pages."""

import io
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from libs.boinc.manager import ManagerRequest, parse_reply, parse_request, render_request
from services.contribution.api import boinc as boinc_door
from services.contribution.api.limits import STRANGER_BURST, TOKEN_BURST, Limits
from services.contribution.domain import REPEAT_S
from tests.service.manager_house import TOKEN, House, attached, opened


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with opened(database_url) as one:
        yield one


async def test_who_comes_too_often_is_told_to_wait_and_a_client_of_ours_hears_of_no_error(
    house: House,
) -> None:
    token = await house.settled_token()
    app = house.lone.run.services[0].app
    app.state.door = replace(app.state.door, limits=Limits(lambda: 0.0))
    for _ in range(int(TOKEN_BURST)):
        assert (await house.come(token)).accounts != ()
    for _ in range(int(STRANGER_BURST)):
        assert await house.refused("guessed")

    kept = "<vm_uuid>4211aa00-0000-0000-0000-000000000002</vm_uuid>"
    for opaque, echoed in ((kept, kept), ("", ""), ("x" * 600, ""), ("<b", ""), ("\N{OGHAM SPACE MARK}", "")):
        said = render_request(ManagerRequest(authenticator=token, opaque="-")).replace(
            b"-\n", opaque.encode(), 1
        )
        reply = parse_reply(await house.post(said))
        assert (reply.accounts, reply.authenticator, reply.repeat_s) == ((), None, REPEAT_S)
        assert reply.opaque == echoed
    body = render_request(ManagerRequest(authenticator="guessed"))
    async with house.lone.http.post(f"{house.lone.run.url}/boinc/rpc.php", data=body) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        assert "guessed" not in await answer.text()


async def test_whose_turn_it_is_is_asked_before_anything_is_read(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no request counts as well, and who is over the limit costs no reading."""
    read: list[int] = []

    def counting(body: bytes) -> ManagerRequest:
        read.append(len(body))
        return parse_request(body)

    monkeypatch.setattr(boinc_door, "parse_request", counting)
    token = await house.settled_token()
    app = house.lone.run.services[0].app
    app.state.door = replace(app.state.door, limits=Limits(lambda: 0.0))
    await house.come(token)
    read.clear()
    for number in range(int(STRANGER_BURST)):
        assert b"<error_num>-112</error_num>" in await house.post(b"<html>%d" % number)
    assert len(read) == STRANGER_BURST

    # Nobody knows of this one that it is a stranger: it is told nothing new, and no error.
    assert parse_reply(await house.post(b"<html>" * 20_000)).repeat_s == REPEAT_S
    assert len(read) == STRANGER_BURST
    assert (await house.come(token)).accounts != ()


async def test_a_client_of_ours_is_no_stranger_after_a_restart_whoever_came_from_its_address(
    house: House,
) -> None:
    token, secret = await house.settled_token(), "drawn-by-the-machine-itself-0123456789"
    enrolled = {"token": TOKEN, "secret": secret}
    assert (await house.lone.ask("POST", "/guests/enrol", enrolled, role=None)).status == 200
    app = house.lone.run.services[0].app
    app.state.door = replace(app.state.door, limits=Limits(lambda: 100.0))
    for number in range(int(STRANGER_BURST)):
        assert await house.refused(f"guessed {number}")
    body = render_request(ManagerRequest(authenticator="guessed 7"))
    async with house.lone.http.post(f"{house.lone.run.url}/boinc/rpc.php", data=body) as answer:
        assert answer.status == 429

    headers = {"Authorization": f"Bearer {secret}"}
    assert (await house.come(token)).accounts != ()
    assert (await house.lone.ask("POST", "/guests/beat", {}, role=None, headers=headers)).status == 200
    headers = {"Authorization": "Bearer a stranger's"}
    assert (await house.lone.ask("POST", "/guests/beat", {}, role=None, headers=headers)).status == 429


async def test_sums_come_by_pages_and_of_any_days(house: House) -> None:
    token = await house.settled_token()
    for _ in range(3):
        house.clock.pass_by(86_400)
        token = (await house.come(token, attached(house.project_url, cpu_s=0.0))).authenticator or token
        house.clock.pass_by(300)
        await house.come(token, attached(house.project_url, cpu_s=36.0))
        await house.come(token)
    asked, days = "/v1/claims?by=day&limit=2&since=2026-11-01&until=2026-12-01", []
    page = (await house.lone.ask("GET", asked)).body
    whole = page["core_hours"]
    days += [item["of"] for item in page["items"]]
    assert (len(days), whole) == (2, 0.03)
    page = (await house.lone.ask("GET", f"{asked}&cursor={page['next_cursor']}")).body
    days += [item["of"] for item in page["items"]]
    assert (days, page["next_cursor"], page["core_hours"]) == (
        ["2026-11-21", "2026-11-22", "2026-11-23"],
        None,
        whole,
    )
    for path in ("/v1/claims", "/v1/grants"):
        wrong = await house.lone.ask("GET", f"{path}?cursor=Inh4Il0")
        assert (wrong.status, wrong.field) == (422, "cursor")
        early = await house.lone.ask("GET", f"{path}?until=0001-01-02")
        assert (early.status, early.body["since"]) == (200, "0001-01-01")
        assert (await house.lone.ask("GET", f"{path}?until=0001-01-01")).status == 422
        assert (await house.lone.ask("GET", f"{path}?since=9999-12-01&until=9999-12-31")).status == 200
    page = (await house.lone.ask("GET", "/v1/grants?by=machine&limit=1")).body
    assert (page["items"], page["next_cursor"]) == ([], None)


async def test_a_body_of_fifty_megabytes_is_not_read(house: House) -> None:
    body = io.BytesIO(b"<acct_mgr_request>" * 3_000_000)
    async with house.lone.http.post(f"{house.lone.run.url}/boinc/rpc.php", data=body) as answer:
        assert answer.status == 413
