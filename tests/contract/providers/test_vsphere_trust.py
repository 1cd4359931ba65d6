"""Whom the vSphere driver believes, and that nothing is sent to anybody else."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from libs.common.clock import WallClock
from libs.providers.base import Cause, Rejected, Unavailable
from libs.providers.vsphere import VSphereSettings, driver
from tests.contract.providers.vsphere_target import VSphereTarget
from tests.faultproxy import FaultProxy
from tools.parts.slots import free_port
from tools.parts.vcsim import Vcsim, write_certificates

WRONG_PIN = "00" * 32


@pytest.fixture
async def proxy(vcsim: Vcsim) -> AsyncIterator[FaultProxy]:
    """Before vcsim, with its certificate: `calls` shows what was sent."""
    async with FaultProxy.before(vcsim) as proxy:
        yield proxy


@pytest.fixture
def target(vcsim: Vcsim, proxy: FaultProxy) -> VSphereTarget:
    return VSphereTarget(vcsim, proxy.url, "")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_the_systems_authorities_refuse_an_own_certificate_also_on_localhost(
    target: VSphereTarget, proxy: FaultProxy, host: str
) -> None:
    target.url = target.url.replace("127.0.0.1", host)
    with pytest.raises(Rejected) as refusal:
        await target.open_with(target.connection(target.vcsim.password))
    assert refusal.value.cause is Cause.TLS
    seen = target.vcsim.thumbprint.replace(":", "").lower()
    assert seen in refusal.value.detail
    assert "thumbprint" in refusal.value.detail
    assert not proxy.calls


async def test_the_right_authority_is_believed(target: VSphereTarget) -> None:
    provider = await target.open_with(
        target.connection(target.vcsim.password, ca_pem=target.vcsim.ca_file.read_text())
    )
    assert (await provider.validate()).product
    await provider.aclose()


async def test_the_right_pin_is_believed_without_an_authority(target: VSphereTarget) -> None:
    provider = await target.open_with(
        target.connection(target.vcsim.password, thumbprint=target.vcsim.thumbprint)
    )
    assert (await provider.validate()).product
    await provider.aclose()


async def test_a_wrong_pin_is_rejected_before_anything_is_sent(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    with pytest.raises(Rejected) as refusal:
        await target.open_with(target.connection(target.vcsim.password, thumbprint=WRONG_PIN))
    assert refusal.value.cause is Cause.TLS
    assert target.vcsim.thumbprint.replace(":", "").lower() in refusal.value.detail
    assert not proxy.calls


async def test_the_pin_is_checked_again_on_every_connection(
    target: VSphereTarget, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory
) -> None:
    provider = await target.open_with(
        target.connection(target.vcsim.password, thumbprint=target.vcsim.thumbprint)
    )
    await proxy.stop()
    folder = tmp_path_factory.mktemp("stranger")
    write_certificates(folder)
    stranger = FaultProxy(
        target.vcsim.url, target.vcsim.ca_file, folder / "server.pem", folder / "server.key"
    )
    stranger.port = proxy.port
    async with stranger:
        with pytest.raises(Rejected) as refusal:
            await provider.machines()
        assert refusal.value.cause is Cause.TLS
        assert not stranger.calls
    await provider.aclose()


async def test_a_wrong_password_is_told_without_the_password(target: VSphereTarget) -> None:
    wrong = "not the " + "password"
    with pytest.raises(Rejected) as refusal:
        await target.open_with(target.connection(wrong, ca_pem=target.vcsim.ca_file.read_text()))
    assert refusal.value.cause is Cause.AUTH
    assert wrong not in repr(refusal.value)
    assert target.vcsim.username not in refusal.value.detail, "outsiders hear of outages"


async def test_a_secret_sealed_for_another_pin_is_not_used(target: VSphereTarget, proxy: FaultProxy) -> None:
    connection = target.connection(target.vcsim.password, ca_pem=target.vcsim.ca_file.read_text())
    with pytest.raises(Rejected) as refusal:
        await target.open_with(replace(connection, ca_pem=None, thumbprint=target.vcsim.thumbprint))
    assert refusal.value.cause is Cause.AUTH
    assert proxy.calls["Login"] == 0


async def test_nobody_at_the_address_is_unreachable(target: VSphereTarget) -> None:
    target.url = f"https://127.0.0.1:{free_port()}/sdk"
    with pytest.raises(Unavailable) as refusal:
        await target.open_with(target.connection("x", ca_pem=target.vcsim.ca_file.read_text()))
    assert refusal.value.cause is Cause.UNREACHABLE


async def test_a_server_that_is_no_vcenter_is_unreachable(target: VSphereTarget, proxy: FaultProxy) -> None:
    proxy.rules.status["*"] = 404
    with pytest.raises(Unavailable) as refusal:
        await target.open_with(target.connection("x", ca_pem=target.vcsim.ca_file.read_text()))
    assert refusal.value.cause is Cause.UNREACHABLE
    assert "404" in refusal.value.detail


async def test_a_server_that_says_nothing_is_given_up(
    target: VSphereTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.providers.vsphere.transport.CONNECT_TIMEOUT_S", 0.3)

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    target.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/sdk"
    with pytest.raises(Unavailable) as refusal:
        await target.open_with(target.connection("x", ca_pem=target.vcsim.ca_file.read_text()))
    assert refusal.value.cause is Cause.TIMEOUT
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    ("settings", "thumbprint", "told"),
    [
        ({"folder": "a/b"}, None, "folder"),
        ({"colour": "blue"}, None, "colour"),
        ({"interval_s": 7}, None, "interval_s"),
        ({}, "12:34", "64 digits"),
    ],
)
async def test_settings_that_cannot_be_are_invalid(
    target: VSphereTarget, settings: dict[str, object], thumbprint: str | None, told: str
) -> None:
    connection = replace(target.connection("x"), settings=settings, thumbprint=thumbprint)
    with pytest.raises(Rejected) as refusal:
        await driver.open(connection, target.vault, WallClock())
    assert refusal.value.cause is Cause.INVALID
    assert told in refusal.value.detail


def test_the_same_endpoint_and_scope_have_one_identity() -> None:
    plain = VSphereSettings()
    assert driver.identify("https://VC.example.org/", plain) == driver.identify(
        "https://vc.example.org:443/sdk", plain
    )
    one = VSphereSettings(clusters=("b", "a"), folder="x")
    assert driver.identify("https://vc", one) == driver.identify(
        "https://vc", VSphereSettings(clusters=("a", "b"))
    )
    assert driver.identify("https://vc", one) != driver.identify("https://vc", plain)


@pytest.mark.parametrize(
    "url", ["http://vc", "https://me:secret@vc", "https://", "vc", "https://vc?x=1", "https://vc:port"]
)
def test_a_url_that_vsphere_cannot_have_is_refused_with_a_sentence(url: str) -> None:
    with pytest.raises(ValueError, match="URL") as refusal:
        driver.identify(url, VSphereSettings())
    assert "secret" not in str(refusal.value)
