"""Personal tokens, from the first start to their end, over real HTTP and PostgreSQL."""

import asyncio
from datetime import timedelta
from typing import Annotated
from uuid import uuid4

import aiohttp
import asyncpg
from fastapi import APIRouter, Depends

from libs.common import personal_tokens
from libs.common.app import create_app
from libs.common.auth import Principal, Role, Signer, allow
from libs.common.runner import running
from libs.common.service import Runtime, Service
from services.identity.main import build as build_identity
from services.identity.models import Base
from tests.service.identity_support import PRIVATE, Caller, identity_site, settings_for
from tests.support import until


async def test_the_first_administrator_comes_in_by_the_bootstrap_token(database_url: str) -> None:
    async with identity_site(database_url) as site:
        status, me = await site.admin.call("GET", "/v1/me")
        assert (status, me["name"], me["role"], me["has_password"]) == (200, "admin", "admin", False)
        _, organisations = await site.admin.call("GET", "/v1/organisations")
        assert [item["name"] for item in organisations["items"]] == ["default"]


async def test_a_second_start_registers_no_second_token(database_url: str) -> None:
    first, second = personal_tokens.fresh(), personal_tokens.fresh()
    async with identity_site(database_url, token=first):
        pass
    settings = settings_for(database_url, bootstrap_admin_token=second)
    async with running([build_identity], settings) as run, aiohttp.ClientSession(run.url) as http:
        caller = Caller(http)
        assert (await caller.call("POST", "/v1/tokens/exchange", {"token": first}))[0] == 200
        await asyncio.gather(*(_beat(run.services[0]) for _ in range(3)))
        assert (await caller.call("POST", "/v1/tokens/exchange", {"token": second}))[0] == 401
        _, users = await (await caller.exchanged(first)).call("GET", "/v1/users")
        assert len(users["items"]) == 1


async def test_a_locked_out_installation_is_opened_by_a_fresh_bootstrap_token(database_url: str) -> None:
    first, second = personal_tokens.fresh(), personal_tokens.fresh()
    async with identity_site(database_url, token=first) as site:
        _, listed = await site.admin.call("GET", "/v1/tokens")
        [only] = listed["items"]
        assert (await site.admin.call("DELETE", f"/v1/tokens/{only['id']}"))[0] == 204
    for token, status in ((first, 401), (second, 200)):
        settings = settings_for(database_url, bootstrap_admin_token=token)
        async with running([build_identity], settings) as run, aiohttp.ClientSession(run.url) as http:
            await _beat(run.services[0])
            assert (await Caller(http).call("POST", "/v1/tokens/exchange", {"token": token}))[0] == status


async def _beat(service: object) -> None:
    beats = {beat.name: beat for beat in service.beats}  # type: ignore[attr-defined]
    await beats["keep"].run()


async def test_only_a_hash_of_a_token_is_stored(database_url: str) -> None:
    async with identity_site(database_url) as site:
        made = await site.admin.created("/v1/tokens", {"label": "laptop"})
        secret = made["token"].rpartition("_")[2]
        _, listed = await site.admin.call("GET", "/v1/tokens")
        assert [item["label"] for item in listed["items"]] == ["laptop", "first start"]
        assert secret not in str(listed)
        connection = await asyncpg.connect(database_url)
        rows = await connection.fetch("select t::text from identity.token t")
        await connection.close()
        assert len(rows) == 2
        assert not any(secret in row[0] or made["token"] in row[0] for row in rows)


async def test_a_token_says_when_it_was_last_used_and_ends_in_time(database_url: str) -> None:
    async with identity_site(database_url) as site:
        made = await site.admin.created("/v1/tokens", {"label": "short", "days": 1})
        assert made["last_used_at"] is None
        await site.nobody.exchanged(made["token"])
        _, listed = await site.admin.call("GET", "/v1/tokens")
        assert listed["items"][0]["last_used_at"] is not None
        site.clock.shift = timedelta(days=1, seconds=1)
        status, answer = await site.nobody.call("POST", "/v1/tokens/exchange", {"token": made["token"]})
        assert (status, answer["detail"]) == (401, "This token is not valid.")


async def test_lists_come_in_pages_and_refuse_a_made_up_cursor(database_url: str) -> None:
    async with identity_site(database_url) as site:
        for number in range(4):
            await site.admin.created("/v1/tokens", {"label": f"t{number}"})
        labels, cursor = [], None
        for _ in range(3):
            path = "/v1/tokens?limit=2" + (f"&cursor={cursor}" if cursor else "")
            _, page = await site.admin.call("GET", path)
            labels += [item["label"] for item in page["items"]]
            cursor = page["next_cursor"]
        assert labels == ["t3", "t2", "t1", "t0", "first start"]
        assert cursor is None
        for bad in ("x", "bnVsbA", "WzFd", "..%2F..", "'%3B--"):
            status, answer = await site.admin.call("GET", f"/v1/tokens?cursor={bad}")
            assert (status, answer["field"]) == (422, "cursor")


def _build_probe(runtime: Runtime) -> Service:
    """Another service, with its own schema and queue, that any viewer may ask for their name."""
    router = APIRouter(prefix="/v1/probes")

    @router.get("")
    async def read(caller: Annotated[Principal, Depends(allow(Role.VIEWER))]) -> dict[str, str]:
        return {"name": caller.name}

    app = create_app("probe", routers=[router], settings=runtime.settings, verifier=runtime.verifier)
    return Service(
        name="probe",
        metadata=Base.metadata,
        migrations="services.identity.migrations",
        database=runtime.open_database("probe"),
        app=app,
        prefixes=("/v1/probes",),
    )


async def test_a_revoked_token_is_refused_by_another_service_in_another_process(database_url: str) -> None:
    """The other process shares neither memory nor verifier: it hears of the revocation by event alone."""
    async with identity_site(database_url) as site:
        user_id, token = await site.admin.user_with_token("ida", "viewer")
        async with (
            running([_build_probe], settings_for(database_url, signing_key=None)) as other,
            aiohttp.ClientSession(other.url) as http,
        ):
            ida = Caller(http, (await site.nobody.exchanged(token)).token)
            assert await ida.call("GET", "/v1/probes") == (200, {"name": "ida"})
            _, listed = await site.admin.call("GET", f"/v1/tokens?user_id={user_id}")
            path = f"/v1/tokens/{listed['items'][0]['id']}"
            assert (await site.admin.call("DELETE", path))[0] == 204

            async def is_refused() -> bool:
                status, answer = await ida.call("GET", "/v1/probes")
                return status == 401 and answer["detail"] == "The token has been revoked."

            await until(is_refused)
        here = Caller(site.nobody.http, ida.token)
        assert (await here.call("GET", "/v1/me"))[0] == 401
        assert (await site.admin.call("DELETE", path))[0] == 204
        assert (await site.nobody.call("POST", "/v1/tokens/exchange", {"token": token}))[0] == 401
        connection = await asyncpg.connect(database_url)
        assert await connection.fetchval("select count(*) from probe.revoked_token") == 1
        await connection.close()


async def test_nobody_has_tokens_who_is_not_there(database_url: str) -> None:
    async with identity_site(database_url) as site:
        status, answer = await site.admin.call("POST", "/v1/tokens", {"label": "x", "user_id": str(uuid4())})
        assert (status, answer["field"]) == (422, "user_id")
        gone = Principal(uuid4(), "gone", Role.ADMIN, uuid4(), uuid4())
        ghost = Caller(site.nobody.http, Signer(PRIVATE).sign(gone))
        assert (await ghost.call("GET", "/v1/me"))[0] == 401
        new = {"new_password": "correct horse battery"}
        assert (await ghost.call("PUT", "/v1/me/password", new))[0] == 401


async def test_nobody_makes_reads_or_revokes_the_tokens_of_others(database_url: str) -> None:
    async with identity_site(database_url) as site:
        _, token = await site.admin.user_with_token("ida", "operator")
        ida = await site.nobody.exchanged(token)
        _, me = await site.admin.call("GET", "/v1/me")
        admins = (await site.admin.call("GET", "/v1/tokens"))[1]["items"][0]["id"]
        assert (await ida.call("POST", "/v1/tokens", {"label": "x", "user_id": me["id"]}))[0] == 403
        assert (await ida.call("GET", f"/v1/tokens?user_id={me['id']}"))[0] == 403
        assert (await ida.call("DELETE", f"/v1/tokens/{admins}"))[0] == 404
        assert (await site.admin.call("GET", "/v1/me"))[0] == 200
