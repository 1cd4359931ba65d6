"""Registering a vCenter that is wrong in some way: over HTTP, with the real driver, vcsim and a proxy before it.

The table in `test_bad_input.py` says which item each test is for.
"""

import asyncio
import gc
import re
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.registry.main import build
from tests.faultproxy import FaultProxy, SoapFault, no_permission
from tests.service.lone_service import Answer, Lone, serve
from tools.parts.slots import free_port
from tools.parts.vcsim import Vcsim, write_certificates

WRONG_PIN = ":".join(["AB"] * 32)


@dataclass
class Door:
    """Registry, and a vCenter behind a proxy."""

    registry: Lone
    vcsim: Vcsim
    proxy: FaultProxy

    def given(self, **changes: Any) -> dict[str, Any]:
        """What registers it."""
        return {
            "name": "Lab", "provider": "vsphere", "url": self.proxy.url, "username": self.vcsim.username,
            "password": self.vcsim.password, "ca_pem": self.vcsim.ca_file.read_text(), **changes,
        }  # fmt: skip

    async def register(self, **changes: Any) -> Answer:
        return await self.registry.ask("POST", "/v1/resources", self.given(**changes))

    async def refused(self, field: str, **changes: Any) -> Answer:
        """A registration that fails at a field, says what to do, keeps and tells nothing."""
        answer = await self.register(**changes)
        assert (answer.status, answer.field) == (422, field), answer.body
        assert answer.body["remedy"]
        assert self.given(**changes)["password"] not in str(answer.body)
        assert (await self.registry.ask("GET", "/v1/resources")).body["items"] == []
        assert self.registry.said == []
        return answer


@pytest.fixture
async def door(database_url: str, vcsim: Vcsim) -> AsyncIterator[Door]:
    await vcsim.start(hosts=1, vms=1)
    async with FaultProxy.before(vcsim) as proxy, serve(build, "registry", database_url) as registry:
        yield Door(registry, vcsim, proxy)
        proxy.rules.heal()


# A host that says nothing leaves connections amid a handshake, which only the collector ends: here, not later.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    yield
    gc.collect()


async def test_a_wrong_password_is_tried_once_and_named(door: Door) -> None:
    answer = await door.refused("password", password="not the right one")

    assert "login" in answer.body["detail"]
    assert door.proxy.calls["Login"] == 1, "accounts are locked after a few"


async def test_a_wrong_thumbprint_is_named_with_the_right_one_before_anything_is_sent(door: Door) -> None:
    answer = await door.refused("thumbprint", thumbprint=WRONG_PIN, ca_pem=None)

    assert door.vcsim.thumbprint.replace(":", "").lower() in answer.body["remedy"]
    assert not re.search("give|--", answer.body["detail"], re.IGNORECASE), "the remedy is said once"
    assert not door.proxy.calls
    assert (await door.register(thumbprint=door.vcsim.thumbprint, ca_pem=None)).status == 201


async def test_an_authority_that_did_not_sign_it_is_refused_and_so_is_none(
    door: Door, tmp_path: Path
) -> None:
    write_certificates(tmp_path)
    for ca_pem in ((tmp_path / "ca.pem").read_text(), None):
        answer = await door.refused("thumbprint", ca_pem=ca_pem)
        assert door.vcsim.thumbprint.replace(":", "").lower() in answer.body["remedy"]
        assert not re.search("give|--", answer.body["detail"], re.IGNORECASE), "the remedy is said once"
    assert not door.proxy.calls


async def test_nobody_at_the_address_is_told_at_once(door: Door) -> None:
    begun = time.monotonic()
    for url in (f"https://127.0.0.1:{free_port()}", "https://[::1]:1/sdk", "https://localhost:1"):
        await door.refused("url", url=url)
    assert time.monotonic() - begun < 10


async def test_a_host_that_says_nothing_is_given_up_in_time(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a firewall that drops, or a host that hangs: at the handshake, and later."""
    monkeypatch.setattr("libs.providers.vsphere.transport.CONNECT_TIMEOUT_S", 0.4)

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    begun = time.monotonic()
    answer = await door.refused("url", url=f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert "in time" in answer.body["detail"]
    assert time.monotonic() - begun < 5
    server.close()

    monkeypatch.setattr("services.registry.api.probe.WITHIN_S", 1.0)
    for method in ("Login", "CreateContainerView"):
        door.proxy.rules.delay_s = {method: 3.0}
        begun = time.monotonic()
        await door.refused("url")
        assert time.monotonic() - begun < 5


async def test_a_server_that_is_no_vcenter_is_told_apart(door: Door) -> None:
    door.proxy.rules.status["*"] = 404
    answer = await door.refused("url")
    assert "404" in answer.body["detail"]


async def test_an_account_that_may_not_even_look_is_named(door: Door) -> None:
    door.proxy.rules.faults["CreateContainerView"] = no_permission("System.View")
    answer = await door.refused("username")
    assert "System.View" in answer.body["detail"]


async def test_a_cloud_that_repeats_the_password_in_its_refusal_is_not_quoted(
    door: Door, capfd: pytest.CaptureFixture[str]
) -> None:
    for kind in ("InvalidLogin", "InvalidArgument"):
        door.proxy.rules.faults["Login"] = SoapFault(
            kind, f"'{door.vcsim.password}' is wrong\x9b31m" + "x" * 9000
        )
        answer = await door.register()
        assert answer.status == 422
        assert "'***' is wrong" in answer.body["detail"]
        assert len(answer.body["detail"]) < 1000
        assert door.vcsim.password not in str(answer.body)
    told = capfd.readouterr()
    assert door.vcsim.password not in told.out + told.err


async def test_a_changed_endpoint_without_the_secret_is_refused_and_never_asked(
    door: Door, tmp_path: Path
) -> None:
    made = (await door.register()).body
    path, etag = f"/v1/resources/{made['id']}", {"If-Match": "*"}
    write_certificates(tmp_path)
    async with FaultProxy.before(door.vcsim) as elsewhere:
        asked = dict(door.proxy.calls)
        for change in (
            {"url": elsewhere.url},
            {"url": elsewhere.url, "ca_pem": None, "thumbprint": door.vcsim.thumbprint},
            {"thumbprint": door.vcsim.thumbprint},
            {"ca_pem": (tmp_path / "ca.pem").read_text()},
            {"ca_pem": None},
        ):
            for query in ("", "?validate=false"):
                answer = await door.registry.ask("PATCH", path + query, change, headers=etag)
                assert (answer.status, answer.field) == (422, "password"), (change, query)
        assert not elsewhere.calls
        assert dict(door.proxy.calls) == asked
        assert (await door.registry.ask("GET", path)).body["revision"] == 1

        move = {"url": elsewhere.url, "password": door.vcsim.password}
        moved = await door.registry.ask("PATCH", path, move, headers=etag)
        assert (moved.status, moved.body["url"]) == (200, elsewhere.url)
        assert elsewhere.calls["Login"] == 1
        assert (await door.registry.ask("POST", f"{path}/validate")).status == 200


async def test_a_secret_that_was_moved_to_another_row_opens_nothing(door: Door) -> None:
    """As somebody who can write the table, but holds no key: the address is part of the seal."""
    made = (await door.register()).body
    async with FaultProxy.before(door.vcsim) as elsewhere:
        database = door.registry.run.services[0].database
        async with database.transaction() as session:
            connection = await session.connection()
            await connection.exec_driver_sql("update resource set url = $1", (elsewhere.url,))
        answer = await door.registry.ask("POST", f"/v1/resources/{made['id']}/validate")
        assert (answer.status, answer.field) == (422, "password")
        assert elsewhere.calls["Login"] == 0
