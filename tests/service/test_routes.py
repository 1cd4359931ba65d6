"""Who may use which route: every service's, against a table that a person has read, and over real HTTP.

`python -m tests.service.test_routes` writes the table anew; what changed in it is what a review looks at.
"""

import importlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import cast
from uuid import uuid4

import aiohttp
import pytest

from libs.common.app import routes_of
from libs.common.auth import Principal, Role, Signer, Verifier
from libs.common.bus.base import Bus
from libs.common.clock import WallClock
from libs.common.db import Database
from libs.common.runner import Build, running
from libs.common.service import Runtime, Service
from libs.common.wake import Activity, Wake
from tests.service.identity_support import PRIVATE, PUBLIC, settings_for

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).parent / "routes.txt"
NAMES = ("contribution", "identity", "monitor", "policy", "registry", "stats", "templates", "workload")


def _builds() -> list[Build]:
    return [
        importlib.import_module(f"services.{name}.main").build
        for name in NAMES
        if (ROOT / "services" / name / "main.py").exists()
    ]


def _composed() -> list[Service]:
    """Every service as a value; nothing is connected."""
    settings = settings_for("postgresql://nobody@localhost/nothing", installation_id=uuid4())
    activity = Activity()
    runtime = Runtime(
        settings=settings,
        clock=WallClock(),
        bus=cast(Bus, object()),
        vault=settings.vault(),
        verifier=Verifier(PUBLIC),
        activity=activity,
        open_database=lambda name: Database(settings.database_dsn, name, committed=Wake(activity)),
    )
    return [build(runtime) for build in _builds()]


def _table(services: Sequence[Service]) -> str:
    lines = [
        f"{service.name:<13}{method:<7}{path}  {' '.join(sorted(marks))}\n"
        for service in services
        for method, path, marks in routes_of(service.app)
    ]
    return "".join(lines)


def test_the_table_of_routes_is_the_one_that_was_read() -> None:
    assert _table(_composed()) == TABLE.read_text(encoding="utf-8")


def test_every_route_is_below_a_prefix_of_its_service() -> None:
    for service in _composed():
        for _, path, _ in routes_of(service.app):
            assert any(path == prefix or path.startswith(f"{prefix}/") for prefix in service.prefixes), path


def test_no_two_services_claim_a_prefix() -> None:
    prefixes = [prefix for service in _composed() for prefix in service.prefixes]
    assert len(prefixes) == len(set(prefixes))


def _token_of(role: Role) -> str:
    return Signer(PRIVATE).sign(Principal(uuid4(), "walker", role, uuid4(), uuid4()))


@pytest.mark.slow
async def test_every_route_over_http_with_every_role_and_with_none(database_url: str) -> None:
    settings = settings_for(database_url, installation_id=uuid4(), data_dir=os.devnull)
    tokens = {role.value: _token_of(role) for role in Role}
    async with running(_builds(), settings) as run, aiohttp.ClientSession(run.url) as http:
        for service in run.services:
            for method, template, marks in routes_of(service.app):
                if "public" in marks:
                    continue
                path = re.sub(r"\{[^}]+\}", lambda _: str(uuid4()), template)
                for role, token in {"": "", **tokens}.items():
                    headers = {"Authorization": f"Bearer {token}"} if token else {}
                    async with http.request(method, path, headers=headers) as response:
                        text = await response.text()
                        where = f"{method} {template} as {role or 'nobody'}: {response.status} {text[:200]}"
                        if not role:
                            assert response.status == 401, where
                        elif role not in marks:
                            assert response.status == 403, where
                            assert "Your role is" in text, where
                        else:
                            assert response.status not in (401, 500), where
                            assert "Your role is" not in text, where


if __name__ == "__main__":
    TABLE.write_text(_table(_composed()), encoding="utf-8")
