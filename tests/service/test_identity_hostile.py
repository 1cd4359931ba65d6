"""What identity is sent by people who mean no good, and what it must never say or write down."""

import io
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from libs.common import log, personal_tokens
from tests.service.identity_support import Caller, Site, identity_site

ODD = [
    "'; drop table identity.user; --",
    "$(rm -rf /)`id`|;&",
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "x" * 100_000,
    "\u202eadmin",
    "ADMIN",
    "",
    " admin",
    "admin\n",
]
JSON = {"Content-Type": "application/json"}


@contextmanager
def _captured() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    log.configure("DEBUG", "json", stream)
    try:
        yield stream
    finally:
        log.configure("INFO", "console")


async def _megabytes() -> AsyncIterator[bytes]:
    for _ in range(100):
        yield b"x" * 100_000


async def test_hostile_names_are_refused_and_never_echoed(database_url: str) -> None:
    async with identity_site(database_url) as site:
        for odd in ODD:
            for path, body in (
                ("/v1/users", {"name": odd, "role": "viewer"}),
                ("/v1/organisations", {"name": odd}),
            ):
                status, answer = await site.admin.call("POST", path, body)
                assert (status, answer["field"]) == (422, "name"), odd
                assert len(odd) < 10 or odd not in json.dumps(answer)
            status, _ = await site.nobody.call("POST", "/v1/sessions", {"name": odd, "password": odd[:200]})
            assert status in (401, 422)
            status, _ = await site.nobody.call("POST", "/v1/tokens/exchange", {"token": odd})
            assert status in (401, 422)
        _, users = await site.admin.call("GET", "/v1/users")
        assert [user["name"] for user in users["items"]] == ["admin"]


@pytest.mark.parametrize("chunked", [True, False])
async def test_ten_megabytes_are_refused_with_an_answer(database_url: str, chunked: bool) -> None:
    async with identity_site(database_url) as site:
        data: Any = _megabytes() if chunked else io.BytesIO(b"x" * 10_000_000)
        status, answer = await site.nobody.call("POST", "/v1/sessions", data=data, headers=JSON)
        assert (status, answer["type"]) == (413, "urn:tides:problem:too-large")
        assert (await site.nobody.call("GET", "/healthz"))[0] == 200


async def test_odd_bodies_are_named_problems_and_never_our_fault(database_url: str) -> None:
    bodies: list[tuple[str | bytes, int]] = [
        ('{"label": "x", "days": NaN}', 400),
        ('{"label": "x", "days": -Infinity}', 400),
        ('{"label": "x", "days": 1e999}', 400),
        ('{"label": "x\\u0000y"}', 422),
        ('{"label": "\\ud800"}', 422),
        (b'{"label": "\xff"}', 400),
        ("[" * 200_000, 400),
        ("{", 400),
        ('{"label": "x", "days": 1' + "0" * 5000 + "}", 400),
        ('{"label": "x", "days": 99999999999999999999}', 422),
        ('{"label": "x", "days": "many"}', 422),
        ('{"label": ["x"]}', 422),
        ('{"label": {"x": 1}}', 422),
        ('{"label": "x", "surprise": 1}', 422),
        ('"x"', 422),
        ("null", 422),
        ("[]", 422),
        ("", 422),
    ]
    async with identity_site(database_url) as site:
        for body, expected in bodies:
            status, answer, headers = await site.admin.call_with_headers(
                "POST", "/v1/tokens", data=body, headers=JSON
            )
            assert status == expected, (body[:60], answer)
            assert headers["Content-Type"] == "application/problem+json"
            assert answer["status"] == status
        for path in ("/v1/users/%00", "/v1/users/..%2F..%2Fme", "/v1/users/1;drop", "/v1/tokens?limit=NaN"):
            status, _ = await site.admin.call("GET", path)
            assert status in (400, 404, 422), path


async def test_no_token_is_good_that_identity_did_not_sign(database_url: str) -> None:
    async with identity_site(database_url) as site:
        head, body, signature = site.admin.token.split(".")
        for bad in (
            f"{head}.{body}.",
            f"{head}.{body}.{signature[::-1]}",
            f"eyJhbGciOiJub25lIn0.{body}.",
            f"{head}.{body}.{signature}" + "A" * 5000,
            "x",
            site.admin_token,
        ):
            assert (await Caller(site.nobody.http, bad).call("GET", "/v1/users"))[0] == 401


async def test_no_secret_is_in_any_log_or_answer(database_url: str) -> None:
    password, other = "correct horse battery", "staple of the harbour"
    with _captured() as stream:
        async with identity_site(database_url) as site:
            log.configure("DEBUG", "json", stream)
            secrets = await _use_everything(site, password, other)
            made_up = personal_tokens.fresh()
            await site.nobody.call("POST", "/v1/tokens/exchange", {"token": made_up})
            answers = "\n".join([*site.nobody.seen, *site.admin.seen])
        written = stream.getvalue()
    assert "http.request" in written
    assert "user.created" in written
    for secret in (*secrets, made_up.split("_", 2)[2], password, other):
        assert secret not in written
    for secret in (password, other, "argon2"):
        assert secret not in answers


async def _use_everything(site: Site, password: str, other: str) -> list[str]:
    """Every call that carries a secret; the secrets."""
    user = await site.admin.created("/v1/users", {"name": "ida", "role": "viewer", "password": password})
    token = await site.admin.created("/v1/tokens", {"label": "x", "user_id": user["id"]})
    _, login = await site.nobody.call("POST", "/v1/sessions", {"name": "ida", "password": password})
    await site.nobody.call("POST", "/v1/sessions", {"name": "ida", "password": other})
    await site.nobody.call("POST", "/v1/sessions", {"name": "ida", "password": [password]})
    ida = Caller(site.nobody.http, login["access_token"])
    await ida.call("PUT", "/v1/me/password", {"current_password": password, "new_password": other})
    await site.admin.call("PUT", f"/v1/users/{user['id']}/password", {"password": password})
    await site.admin.call("GET", f"/v1/users?cursor={token['token']}")
    made = [token["token"], login["session_token"], site.admin_token]
    return [*(text.split("_", 2)[2] for text in made), login["access_token"], site.admin.token]
