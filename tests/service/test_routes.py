"""Who may use which route: every service's, against a table that a person has read, and over real HTTP.

`python -m tests.service.test_routes` writes the table anew; what changed in it is what a review looks at.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest

from libs.common.app import routes_of
from libs.common.auth import Principal, Role, Signer
from libs.common.runner import running
from libs.common.service import Service
from services.cli.run import builders
from tests.service.identity_support import PRIVATE, settings_for
from tools.schemas import compose

OF_THE_CALLER = ("/v1/me", "/v1/me/password", "/v1/tokens")
"""Refused to a token of nobody who is there, as those of this walk are."""
TABLE = Path(__file__).parent / "routes.txt"


def _table(services: Sequence[Service]) -> str:
    lines = [
        f"{service.name:<13}{method:<7}{path}  {' '.join(sorted(marks))}\n"
        for service in services
        for method, path, marks in routes_of(service.app)
    ]
    return "".join(lines)


def test_the_table_of_routes_is_the_one_that_was_read() -> None:
    assert _table(compose()) == TABLE.read_text(encoding="utf-8")


def test_every_route_is_below_a_prefix_of_its_service() -> None:
    for service in compose():
        for _, path, _ in routes_of(service.app):
            assert any(path == prefix or path.startswith(f"{prefix}/") for prefix in service.prefixes), path


def test_no_two_services_claim_a_prefix() -> None:
    prefixes = [prefix for service in compose() for prefix in service.prefixes]
    assert len(prefixes) == len(set(prefixes))


def test_every_document_says_who_must_come_with_a_token_and_how_it_refuses() -> None:
    for service in compose():
        document = service.app.openapi()
        assert document["components"]["securitySchemes"]["access_token"]["scheme"] == "bearer"
        for method, path, marks in routes_of(service.app):
            operation = document["paths"][path][method.lower()]
            assert operation.get("security") == (None if "public" in marks else [{"access_token": []}]), path
            refusals = {code: told for code, told in operation["responses"].items() if code >= "400"}
            assert "401" in refusals or (method == "GET" and "public" in marks), path
            for told in refusals.values():
                assert list(told["content"]) == ["application/problem+json"], path


def _token_of(role: Role) -> str:
    return Signer(PRIVATE).sign(Principal(uuid4(), "walker", role, uuid4(), uuid4()))


@pytest.mark.slow
async def test_every_route_over_http_with_every_role_and_with_none(database_url: str) -> None:
    settings = settings_for(database_url, installation_id=uuid4(), data_dir=os.devnull)
    tokens = {role.value: _token_of(role) for role in Role}
    async with running(builders(["all"]), settings) as run, aiohttp.ClientSession(run.url) as http:
        for service in run.services:
            paths = service.app.openapi()["paths"]
            for method, template, marks in routes_of(service.app):
                documented = paths[template][method.lower()]["responses"]
                if "public" in marks:
                    continue
                path = re.sub(r"\{[^}]+\}", lambda _: str(uuid4()), template)
                for role, token in {"": "", **tokens}.items():
                    headers = {"Authorization": f"Bearer {token}"} if token else {}
                    async with http.request(method, path, headers=headers) as response:
                        text = await response.text()
                        where = f"{method} {template} as {role or 'nobody'}: {response.status} {text[:200]}"
                        assert str(response.status) in documented, where
                        if not role:
                            assert response.status == 401, where
                        elif role not in marks:
                            assert response.status == 403, where
                            assert "Your role is" in text, where
                        else:
                            assert response.status != 500, where
                            assert response.status != 401 or template in OF_THE_CALLER, where
                            assert "Your role is" not in text, where


if __name__ == "__main__":
    TABLE.write_text(_table(compose()), encoding="utf-8")
