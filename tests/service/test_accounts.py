"""Accounts at projects, against a strict stand-in: made, let in once, kept by their keys, and followed."""

import json
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import pytest
import pytest_asyncio

from libs.boinc.web import password_hash
from libs.common.auth import Role
from libs.common.contracts.action import MachineDeployed, MachineRequested
from tests.boinclab.web import HTML
from tests.service.demander import EMAIL, PASSWORD, Calendar, World, open_service, open_world
from tests.service.lone_service import THEIRS, Lone

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("accounts")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(postgres_url: str) -> AsyncIterator[tuple[Lone, Calendar]]:
    async with open_service(postgres_url) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def world(service: tuple[Lone, Calendar]) -> AsyncIterator[World]:
    async with open_world(*service) as one:
        yield one


async def test_an_account_is_made_once_somebody_has_agreed_and_only_its_weak_key_leaves(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    world.project.invite_code = "open sesame"
    new = {"create": True, "user_name": " Ent ", "invite_code": "open sesame"}
    unread = await world.ask(**new)
    assert (unread.status, unread.field) == (409, "project_id")
    await world.agree()
    asked = await world.ask(**new)

    assert (asked.status, asked.body["state"]) == (202, "asked")
    account = await world.account()
    [user] = world.project.users
    assert (account["state"], account["user_id"], account["trouble"]) == ("ready", 1, None)
    assert user.consent == "Tides"
    assert (await world.ask(**new)).status == 409
    lent = await world.lend(account_id=account["id"])
    assert (lent.status, lent.body["account_id"]) == (201, account["id"])
    [told] = await world.told()
    assert world.key_in(told) == user.weak

    secrets = (PASSWORD, user.passwd_hash, user.strong, user.weak, "open sesame")
    rows = await world.sql("select t::text from account t union all select t::text from contribution t")
    shown = "".join(capfd.readouterr()) + json.dumps([asked.body, account, lent.body]) + str(rows)
    shown += "".join(event.model_dump_json() for event in world.lone.said)
    assert [secret for secret in secrets if secret in shown] == []
    query = "select sealed_login from account where organisation_id = :o"
    assert await world.sql(query, o=world.ours) == [("",)]


async def test_a_refused_password_is_sent_once_and_a_person_may_give_another(world: World) -> None:
    user = world.project.user(EMAIL, password_hash("another", EMAIL))
    await world.ask()
    await world.later(hours=7)
    await world.later(hours=7)

    account = await world.account()
    assert (account["state"], account["trouble"]) == ("refused", "bad password")
    assert world.project.count("lookup_account.php") == 1
    lent = await world.lend(account_id=account["id"])
    assert (lent.status, lent.field) == (422, "account_id")

    path = f"/v1/accounts/{account['id']}/login"
    again = await world.call("PUT", path, {"email": EMAIL, "password": "another"})
    await world.lone.settle()
    assert again.status == 202
    assert ((await world.account())["state"], world.project.count("lookup_account.php")) == ("ready", 2)
    assert (await world.account())["user_id"] == user.id


async def test_a_changed_password_changes_the_key_of_whatever_is_lent_by_it(world: World) -> None:
    user, account = await world.ready()
    await world.lend(account_id=account["id"])
    before = user.weak
    await world.later(hours=7)
    assert len(await world.told()) == 1

    world.project.change_password(user, password_hash("new", EMAIL))
    await world.later(hours=7)
    assert [world.key_in(event) for event in await world.told()] == [before, user.weak]

    contribution = str((await world.told())[0].contribution_id)
    given = "17_" + "f" * 32
    await world.call("PATCH", f"/v1/contributions/{contribution}", {"authenticator": given})
    world.project.change_password(user, password_hash("newer", EMAIL))
    await world.later(hours=7)
    assert world.key_in((await world.told())[-1]) == given
    back = await world.call("PATCH", f"/v1/contributions/{contribution}", {"account_id": account["id"]})
    assert back.body["account_id"] == account["id"]
    assert world.key_in((await world.told())[-1]) == user.weak


async def test_a_key_that_is_void_is_seen_and_what_is_lent_goes_on(world: World) -> None:
    user, account = await world.ready()
    await world.lend(account_id=account["id"])
    user.strong = "f" * 32
    await world.later(hours=7)

    account = await world.account()
    assert account["state"] == "refused"
    assert "log in anew" in account["trouble"]
    assert [event.active for event in await world.told()] == [True]
    count = len(world.project.asked)
    await world.later(hours=7)
    assert world.project.asked[count:] == ["get_project_config.php"]


async def test_a_login_waits_a_day_for_a_project_that_is_away_and_is_not_sent_later(world: World) -> None:
    world.project.user(EMAIL, password_hash(PASSWORD, EMAIL))
    world.project.stopped = True
    await world.ask()
    assert ((await world.account())["state"], (await world.seen())["seen"]["failures"]) == ("asked", 1)
    world.project.stopped, world.project.page = False, HTML
    await world.later(minutes=6)
    world.project.page = None
    await world.later(minutes=11)
    assert (await world.account())["state"] == "ready"

    path = f"/v1/accounts/{(await world.account())['id']}/login"
    world.project.page = HTML
    await world.call("PUT", path, {"email": EMAIL, "password": PASSWORD})
    await world.lone.settle()
    world.project.page = None
    sent = world.project.count("lookup_account.php")
    await world.later(hours=25)
    assert "for a day" in (await world.account())["trouble"]
    assert world.project.count("lookup_account.php") == sent


async def test_terms_that_changed_before_the_account_was_made_stop_it(world: World) -> None:
    await world.agree()
    world.project.terms = "Pay us"
    await world.ask(create=True, user_name="Ent")

    account = await world.account()
    assert account["state"] == "refused"
    assert "terms are others" in account["trouble"]
    assert (world.project.count("create_account.php"), (await world.seen())["terms_changed"]) == (0, True)


async def test_a_password_whose_fate_nobody_knows_is_not_sent_again(world: World) -> None:
    world.project.user(EMAIL, password_hash(PASSWORD, EMAIL))
    world.project.page = HTML
    await world.ask()
    world.project.page = None
    tried = "update account set tried_at = now() where organisation_id = :o"
    await world.sql(tried, o=world.ours)  # as a process leaves it that dies with the answer
    await world.later(hours=1)

    assert "not sent twice" in (await world.account())["trouble"]
    assert world.project.count("lookup_account.php") == 0


async def test_accounts_are_their_organisations(world: World) -> None:
    _, account = await world.ready()
    path = f"/v1/accounts/{account['id']}"
    assert (await world.lone.ask("GET", path, organisation=THEIRS)).status == 404
    assert (await world.lone.ask("GET", "/v1/accounts", organisation=THEIRS)).body["items"] == []
    body = {"project_id": world.project_id, "weight": 1, "account_id": account["id"]}
    theirs = await world.lone.ask("POST", "/v1/contributions", body, organisation=THEIRS)
    assert (theirs.status, theirs.field) == (422, "account_id")
    for keys in ({}, {"account_id": account["id"], "authenticator": "1_" + "a" * 32}):
        assert (await world.lend(**keys)).field == "authenticator"

    lent = await world.lend(account_id=account["id"])
    assert (await world.call("DELETE", path)).status == 409
    await world.call("DELETE", f"/v1/contributions/{lent.body['id']}")
    assert (await world.call("DELETE", path)).status == 204
    assert (await world.call("GET", path)).status == 404


async def test_an_administrator_acts_for_the_organisation_whose_account_it_is(world: World) -> None:
    """Whatever the administrator's own organisation has, or has agreed to."""
    _, account = await world.ready()
    body = {"project_id": world.project_id, "weight": 1, "authenticator": "1_" + "a" * 32}
    theirs = await world.lone.ask("POST", "/v1/contributions", body, organisation=THEIRS)
    by_admin: Any = {"role": Role.ADMIN, "organisation": world.ours}
    path = f"/v1/contributions/{theirs.body['id']}"
    lent = await world.lone.ask("PATCH", path, {"account_id": account["id"]}, **by_admin)
    assert (lent.status, lent.field) == (422, "account_id"), (
        "machines of one never work with the key of another"
    )
    assert (await world.lone.ask("DELETE", path, organisation=THEIRS)).status == 204

    mine = await world.lend(authenticator="1_" + "a" * 32)
    by_stranger: Any = {"role": Role.ADMIN, "organisation": THEIRS}
    path = f"/v1/contributions/{mine.body['id']}"
    assert (await world.lone.ask("PATCH", path, {"account_id": account["id"]}, **by_stranger)).status == 200

    await world.agree()
    new = {"email": EMAIL, "password": PASSWORD, "create": True, "user_name": "Ent"}
    path = f"/v1/accounts/{account['id']}/login"
    assert (await world.lone.ask("PUT", path, new, **by_stranger)).status == 202, (
        "the account's own have agreed"
    )


async def test_a_project_to_whose_terms_another_has_agreed_stays(world: World) -> None:
    await world.agree()
    path = f"/v1/projects/{world.project_id}"
    assert (await world.lone.ask("DELETE", path, organisation=THEIRS)).status == 409
    assert (await world.seen())["consent"] is not None
    assert (await world.call("DELETE", path)).status == 204


async def test_a_key_that_machines_are_refused_is_asked_anew_once_and_then_shown(world: World) -> None:
    user, account = await world.ready()
    lent = (await world.lend(account_id=account["id"])).body["id"]
    secret, token = f"drawn-{world.machine_id}", f"token-{world.machine_id}"
    await world.say(MachineRequested, guest_token_sha256=sha256(token.encode()).hexdigest())
    await world.say(MachineDeployed)
    body = {"token": token, "secret": secret}
    assert (await world.lone.ask("POST", "/guests/enrol", body, role=None)).status == 200
    said = "Invalid or missing account key.\x1b[2J  To fix, remove and add this project."
    shown = said.replace("\x1b", "")

    async def beat(alerts: dict[str, str]) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {secret}"}
        told = await world.lone.ask("POST", "/guests/beat", {"alerts": alerts}, role=None, headers=headers)
        assert told.status == 200, told.body
        await world.look()
        found = (await world.call("GET", f"/v1/contributions/{lent}")).body
        assert isinstance(found, dict)
        return found

    refused = {world.project.url: said, "https://other.example/": "x" * 1000}
    assert (await beat(refused))["refused_at"] is None, "the key is news to the client"
    world.clock.pass_by(minutes=16)
    asked = world.project.count("am_get_info.php")
    seen = await beat(refused)
    assert (seen["refused_why"], seen["revision"]) == (shown, 1)
    assert (await world.account())[
        "trouble"
    ] == f"The project refuses machines the key that it tells: {shown}"
    for _ in range(2):
        world.clock.pass_by(minutes=1)
        await beat(refused)
    assert world.project.count("am_get_info.php") == asked + 1, "it is asked once"
    [guest] = (await world.call("GET", "/v1/guests")).body["items"]
    assert guest["alerts"][world.project.url] == shown
    assert guest["told_why"] is None or shown in guest["told_why"]

    world.clock.pass_by(minutes=20)
    await beat(refused)
    [guest] = (await world.call("GET", "/v1/guests")).body["items"]
    assert (guest["told"], guest["told_why"]) == ("starved", f"Lab says: {shown}")

    world.project.change_password(user, password_hash("another", EMAIL))
    world.clock.pass_by(hours=7)
    assert (await beat(refused))["refused_at"] is None, "it has another key now"
    assert (await world.account())["trouble"] is None
    world.clock.pass_by(minutes=16)
    assert (await beat(refused))["refused_at"] is not None
    assert (await beat({}))["refused_at"] is None, "the machine was let in after all"
