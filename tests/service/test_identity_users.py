"""Users, passwords and lock-out, over real HTTP and PostgreSQL."""

import asyncio
import statistics
from datetime import timedelta
from time import perf_counter

from services.identity.usecases.passwords import Passwords
from tests.service.identity_support import Caller, Site, identity_site

PASSWORD = "correct horse battery"


async def _with_password(site: Site, name: str = "ida", role: str = "operator") -> dict[str, str]:
    user: dict[str, str] = await site.admin.created(
        "/v1/users", {"name": name, "role": role, "password": PASSWORD}
    )
    return user


async def _log_in(site: Site, name: str, password: str) -> tuple[int, dict[str, str]]:
    return await site.nobody.call("POST", "/v1/sessions", {"name": name, "password": password})


async def test_a_login_lasts_by_its_session_token_until_log_out(database_url: str) -> None:
    async with identity_site(database_url) as site:
        await _with_password(site)
        status, login = await _log_in(site, "ida", PASSWORD)
        assert status == 201
        ida = await site.nobody.exchanged(login["session_token"])
        assert (await ida.call("GET", "/v1/me"))[1]["name"] == "ida"
        assert (await ida.call("GET", "/v1/tokens"))[1]["items"] == []
        assert (await ida.call("DELETE", "/v1/sessions/current"))[0] == 204
        assert (await ida.call("GET", "/v1/me"))[0] == 401
        assert (await site.nobody.call("POST", "/v1/tokens/exchange", {"token": login["session_token"]}))[
            0
        ] == 401


async def test_five_failures_lock_a_name_also_for_the_right_password(database_url: str) -> None:
    async with identity_site(database_url) as site:
        await _with_password(site)
        for _ in range(5):
            assert (await _log_in(site, "ida", "wrong"))[0] == 401
        assert (await _log_in(site, "ida", PASSWORD))[0] == 401
        site.clock.shift = timedelta(minutes=14)
        assert (await _log_in(site, "ida", PASSWORD))[0] == 401
        site.clock.shift = timedelta(minutes=16)
        assert (await _log_in(site, "ida", PASSWORD))[0] == 201


async def test_a_lock_outlives_the_process(database_url: str) -> None:
    async with identity_site(database_url) as site:
        await _with_password(site)
        for _ in range(5):
            await _log_in(site, "ida", "wrong")
        token = site.admin_token
    async with identity_site(database_url, token=token) as site:
        assert (await _log_in(site, "ida", PASSWORD))[0] == 401


async def test_parallel_guesses_all_count(database_url: str) -> None:
    async with identity_site(database_url) as site:
        await _with_password(site)
        await asyncio.gather(*(_log_in(site, "ida", "wrong") for _ in range(6)))
        answers = await asyncio.gather(*(_log_in(site, "ida", PASSWORD) for _ in range(3)))
        assert {status for status, _ in answers} == {401}


async def test_success_forgets_failures(database_url: str) -> None:
    async with identity_site(database_url) as site:
        await _with_password(site)
        for _ in range(2):
            for _ in range(3):
                assert (await _log_in(site, "ida", "wrong"))[0] == 401
            assert (await _log_in(site, "ida", PASSWORD))[0] == 201


async def test_unknown_wrong_and_locked_cannot_be_told_apart(database_url: str) -> None:
    async with identity_site(database_url, passwords=Passwords()) as site:
        await _with_password(site)
        seconds: dict[str, list[float]] = {"ida": [], "nobody-here": []}
        answers = []
        for _ in range(7):
            for name, times in seconds.items():
                started = perf_counter()
                status, answer = await _log_in(site, name, "wrong password")
                times.append(perf_counter() - started)
                answers.append((status, {**answer, "request_id": ""}))
        assert all(answer == answers[0] for answer in answers)
        known, unknown = (statistics.median(times) for times in seconds.values())
        assert abs(known - unknown) < 0.5 * max(known, unknown)


async def test_a_changed_password_ends_logins_and_needs_the_old_one(database_url: str) -> None:
    async with identity_site(database_url) as site:
        await _with_password(site)
        _, login = await _log_in(site, "ida", PASSWORD)
        ida = Caller(site.nobody.http, login["access_token"])
        new = "another long password"
        status, answer = await ida.call("PUT", "/v1/me/password", {"new_password": new})
        assert (status, answer["field"]) == (422, "current_password")
        body = {"current_password": "wrong", "new_password": new}
        assert (await ida.call("PUT", "/v1/me/password", body))[0] == 401
        body["current_password"] = PASSWORD
        assert (await ida.call("PUT", "/v1/me/password", body))[0] == 204
        assert (await ida.call("GET", "/v1/me"))[0] == 401
        assert (await _log_in(site, "ida", PASSWORD))[0] == 401
        assert (await _log_in(site, "ida", new))[0] == 201


async def test_weak_passwords_are_refused_and_not_repeated(database_url: str) -> None:
    async with identity_site(database_url) as site:
        for password in ("short", "ida-ida-ida", "aaaaaaaaaaaaaa", "idaidaidaida", "x" * 257):
            body = {"name": "ida", "role": "viewer", "password": password}
            status, answer = await site.admin.call("POST", "/v1/users", body)
            assert (status, answer["field"]) == (422, "password")
            assert password not in str(answer)


async def test_disabling_a_user_ends_everything_they_have(database_url: str) -> None:
    async with identity_site(database_url) as site:
        user = await _with_password(site)
        token = (await site.admin.created("/v1/tokens", {"label": "x", "user_id": user["id"]}))["token"]
        ida = await site.nobody.exchanged(token)
        path = f"/v1/users/{user['id']}"
        assert (await site.admin.call("PATCH", path, {"disabled": True}))[0] == 428
        stale = {"If-Match": '"9"'}
        assert (await site.admin.call("PATCH", path, {"disabled": True}, headers=stale))[0] == 412
        _, _, headers = await site.admin.call_with_headers("GET", path)
        match = {"If-Match": headers["ETag"]}
        changed = await site.admin.call("PATCH", path, {"disabled": True}, headers=match)
        assert (changed[0], changed[1]["disabled"], changed[1]["revision"]) == (200, True, 2)
        assert (await ida.call("GET", "/v1/me"))[0] == 401
        assert (await site.nobody.call("POST", "/v1/tokens/exchange", {"token": token}))[0] == 401
        assert (await _log_in(site, "ida", PASSWORD))[0] == 401


async def test_the_last_administrator_stays(database_url: str) -> None:
    async with identity_site(database_url) as site:
        _, me = await site.admin.call("GET", "/v1/me")
        for change in ({"disabled": True}, {"role": "viewer"}, {"role": "service"}):
            path, match = f"/v1/users/{me['id']}", {"If-Match": "*"}
            status, answer = await site.admin.call("PATCH", path, change, headers=match)
            assert (status, answer["detail"]) == (409, "This is the last administrator.")


async def test_two_administrators_cannot_disable_each_other(database_url: str) -> None:
    async with identity_site(database_url) as site:
        _, me = await site.admin.call("GET", "/v1/me")
        other_id, token = await site.admin.user_with_token("second", "admin")
        other = await site.nobody.exchanged(token)
        match = {"If-Match": "*"}
        answers = await asyncio.gather(
            site.admin.call("PATCH", f"/v1/users/{other_id}", {"disabled": True}, headers=match),
            other.call("PATCH", f"/v1/users/{me['id']}", {"disabled": True}, headers=match),
        )
        assert sorted(status for status, _ in answers) == [200, 409]


async def test_names_are_unique_and_a_service_has_no_password(database_url: str) -> None:
    async with identity_site(database_url) as site:
        await _with_password(site)
        status, answer = await site.admin.call("POST", "/v1/users", {"name": "ida", "role": "viewer"})
        assert (status, answer["field"]) == (409, "name")
        body = {"name": "robot", "role": "service", "password": PASSWORD}
        assert (await site.admin.call("POST", "/v1/users", body))[0] == 422
        body = {"name": "lost", "role": "viewer", "organisation_id": "00000000-0000-0000-0000-000000000000"}
        status, answer = await site.admin.call("POST", "/v1/users", body)
        assert (status, answer["field"]) == (422, "organisation_id")
        await site.admin.created("/v1/organisations", {"name": "harbour"})
        assert (await site.admin.call("POST", "/v1/organisations", {"name": "harbour"}))[0] == 409
