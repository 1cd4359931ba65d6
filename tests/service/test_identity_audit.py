"""What identity writes down of every change: who, what, when and from where, for good, and never a secret."""

import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from libs.common.db import Database
from libs.common.wake import Activity, Wake
from services.identity.usecases.logins import forget_attempts
from tests.service.identity_support import Caller, Site, identity_site

PASSWORD, OTHER = "correct horse battery", "staple of the harbour"


async def rows_of(site: Site) -> list[dict[str, Any]]:
    """The whole audit, oldest first, a few rows a page."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        status, page = await site.admin.call("GET", f"/v1/audit?limit=3{cursor}")
        assert status == 200, page
        found += page["items"]
        if page["next_cursor"] is None:
            return found[::-1]
        cursor = f"&cursor={page['next_cursor']}"


async def log_in(site: Site, name: str, password: str) -> tuple[int, Any]:
    """As a person does."""
    return await site.nobody.call("POST", "/v1/sessions", {"name": name, "password": password})


async def test_every_change_is_a_row_with_who_what_when_and_from_where(database_url: str) -> None:
    async with identity_site(database_url) as site:
        admin = (await site.admin.call("GET", "/v1/me"))[1]
        await site.admin.created("/v1/organisations", {"name": "physics"})
        ida = await site.admin.created("/v1/users", {"name": "ida", "role": "viewer", "password": PASSWORD})
        path = f"/v1/users/{ida['id']}"
        token = await site.admin.created("/v1/tokens", {"label": "laptop", "user_id": ida["id"]})
        login = (await log_in(site, "ida", PASSWORD))[1]
        herself = Caller(site.nobody.http, login["access_token"])
        await herself.call("PUT", "/v1/me/password", {"current_password": PASSWORD, "new_password": OTHER})
        again = Caller(site.nobody.http, (await log_in(site, "ida", OTHER))[1]["access_token"])
        await again.call("DELETE", "/v1/sessions/current")
        await site.admin.call("PATCH", path, {"role": "operator"}, headers={"If-Match": "*"})
        await site.admin.call("PATCH", path, {"role": "operator"}, headers={"If-Match": "*"})
        await site.admin.call("PUT", f"{path}/password", {"password": PASSWORD})
        spare = await site.admin.created("/v1/tokens", {"label": "spare", "user_id": ida["id"]})
        for _ in range(2):
            await site.admin.call("DELETE", f"/v1/tokens/{spare['id']}")
        await site.admin.call("PATCH", path, {"disabled": True}, headers={"If-Match": "*"})

        rows = await rows_of(site)

        assert [(row["what"], row["by_name"], row["about_name"]) for row in rows] == [
            ("identity.started", None, "admin"),
            ("token.created", None, "first start"),
            ("organisation.created", "admin", "physics"),
            ("user.created", "admin", "ida"),
            ("token.created", "admin", "laptop"),
            ("login.succeeded", "ida", "ida"),
            ("user.password_set", "ida", "ida"),
            ("login.succeeded", "ida", "ida"),
            ("login.ended", "ida", None),
            ("user.changed", "admin", "ida"),
            ("user.password_set", "admin", "ida"),
            ("token.created", "admin", "spare"),
            ("token.revoked", "admin", "spare"),
            ("user.changed", "admin", "ida"),
        ]
        assert {row["from_address"] for row in rows} == {None, "127.0.0.1"}
        assert {row["by_user_id"] for row in rows} == {None, admin["id"], ida["id"]}
        assert all(row["at"] for row in rows)
        role, disabled = (row["details"] for row in rows if row["what"] == "user.changed")
        assert (role["before"]["role"], role["after"]["role"]) == ("viewer", "operator")
        assert (disabled["before"]["disabled"], disabled["after"]["disabled"]) == (False, True)
        for secret in (PASSWORD, OTHER, token["token"], token["token"].rpartition("_")[2], "argon2"):
            assert secret not in json.dumps(rows)


async def test_a_lock_and_what_failed_before_it_or_before_a_success_is_counted(database_url: str) -> None:
    async with identity_site(database_url) as site:
        await site.admin.created("/v1/users", {"name": "ida", "role": "viewer", "password": PASSWORD})
        for _ in range(2):
            await log_in(site, "ida", OTHER)
        await log_in(site, "ida", PASSWORD)
        for name in ("ida", "hunter2hunter2"):
            for _ in range(8):
                assert (await log_in(site, name, OTHER))[0] == 401

        success, *locked = (await rows_of(site))[-3:]

        assert (success["what"], success["details"]) == ("login.succeeded", {"failures_before": 2})
        for row, whose in zip(locked, ("ida", None), strict=True):
            assert (row["what"], row["details"], row["about_name"]) == (
                "login.locked",
                {"attempts": 5},
                whose,
            )
            assert (row["by_name"], row["from_address"]) == (None, "127.0.0.1")
        assert "hunter2" not in json.dumps(locked)


async def test_failures_that_lapse_are_counted_before_they_are_forgotten(database_url: str) -> None:
    async with identity_site(database_url) as site:
        await site.admin.created("/v1/users", {"name": "ida", "role": "viewer", "password": PASSWORD})
        for name, times in {"ida": 3, "nobody": 2, "noone": 1}.items():
            for _ in range(times):
                await log_in(site, name, OTHER)
        site.clock.shift += timedelta(minutes=20)
        await log_in(site, "ida", OTHER)
        database = Database(database_url, "identity", committed=Wake(Activity()))
        for _ in range(2):
            async with database.transaction() as session:
                await forget_attempts(session, site.clock.now() + timedelta(hours=1))
        await database.dispose()

        site.clock.shift = timedelta()
        failed = [row for row in await rows_of(site) if row["what"] == "login.failed"]

        assert [(row["about_name"], row["details"]) for row in failed] == [
            ("ida", {"attempts": 3}),
            ("ida", {"attempts": 1}),
            (None, {"attempts": 3, "names": 2}),
        ]


@pytest.mark.parametrize("statement", ["update audit set what = 'x'", "delete from audit", "truncate audit"])
async def test_the_database_itself_refuses_to_change_what_is_written(
    database_url: str, statement: str
) -> None:
    async with identity_site(database_url) as site:
        before = await rows_of(site)
        database = Database(database_url, "identity", committed=Wake(Activity()))
        with pytest.raises(DBAPIError, match="append-only"):
            async with database.transaction() as session:
                await session.execute(text(statement))
        await database.dispose()
        assert await rows_of(site) == before


async def test_only_administrators_read_it(database_url: str) -> None:
    async with identity_site(database_url) as site:
        for role in ("operator", "viewer", "service"):
            _, token = await site.admin.user_with_token(f"a-{role}", role)
            caller = await site.nobody.exchanged(token)
            assert (await caller.call("GET", "/v1/audit"))[0] == 403
        assert (await site.nobody.call("GET", "/v1/audit"))[0] == 401
        assert (await site.admin.call("GET", "/v1/audit?cursor=x"))[0] == 422
