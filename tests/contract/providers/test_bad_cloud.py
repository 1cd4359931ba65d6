"""What the vSphere driver makes of a cloud that means no good, forbids everything, or loses what was just there."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pyVmomi import vim

from libs.providers.base import Cause, Power, ProviderError, Rejected, Unavailable
from libs.providers.vsphere.settings import parse_url
from libs.providers.vsphere.transport import Trust, choose_version
from tests.contract.providers.target import deploy, seen
from tests.contract.providers.vsphere_target import TEMPLATE, VSphereTarget, find
from tests.faultproxy import FaultProxy, SoapFault, no_permission
from tests.support import until
from tools.parts.vcsim import Vcsim

BOMB = (
    '<?xml version="1.0"?><!DOCTYPE versions [<!ENTITY a0 "ha">'
    + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    + "]><versions><version>&a11;</version></versions>"
)
HOSTILE = "[red]x[/red]<b>&amp;'; drop table vm; --$(id)\x9b31m\u202eevil"


@pytest.fixture
def cloud() -> dict[str, Any]:
    return {"clusters": 2, "hosts": 1, "vms": 1, "flags": ("-perf-default", "1")}


# -- words that come from the cloud ----------------------------------------------------------------------------------


async def test_a_cloud_that_repeats_the_password_is_not_quoted(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    password = "hunter2-" + "hunter2"
    for kind in ("InvalidLogin", "InvalidArgument", "NotSupported"):
        proxy.rules.faults["Login"] = SoapFault(kind, f"Cannot log in with {password}: wrong")
        with pytest.raises(ProviderError) as refusal:
            await target.open(password)
        assert "Cannot log in with ***" in refusal.value.detail
        assert target.vcsim.username not in refusal.value.detail, "outsiders hear of outages"
        assert password not in f"{refusal.value!r} {refusal.value} {refusal.value.__cause__!r}"


async def test_a_fault_is_told_as_one_line_of_bounded_length(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    proxy.rules.faults["CreateContainerView"] = SoapFault(
        "InvalidArgument", "\x9b31m\u202e\n" + "x" * 100_000
    )
    with pytest.raises(Rejected) as refusal:
        await target.provider.machines()
    assert len(refusal.value.detail) < 1000
    assert refusal.value.detail.isprintable()


async def test_hostile_names_are_only_names(target: VSphereTarget) -> None:
    def rename(content: Any) -> None:
        find(content, vim.ClusterComputeResource, "DC0_C0").Rename_Task(HOSTILE)
        find(content, vim.VirtualMachine, TEMPLATE).Rename_Task(HOSTILE)

    await target.back_door.run(rename)
    assert HOSTILE in {sample.name for sample in await target.provider.sample(None)}
    assert HOSTILE in {cluster.name for cluster in (await target.provider.validate()).clusters}
    found = await target.provider.find_template(HOSTILE)
    assert found is not None
    assert found.name == HOSTILE
    machine = await deploy(target, target.make_spec(template=HOSTILE))
    assert machine.name.startswith("tides-")


@pytest.mark.parametrize(
    "name", ["", "..", "../../etc", "*", "%", "' or 1=1 --", "<obj/>", "\u202e", "x" * 10_000, "Folder"]
)
async def test_odd_names_of_templates_are_not_found(target: VSphereTarget, name: str) -> None:
    assert await target.provider.find_template(name) is None


# -- a read-only account ---------------------------------------------------------------------------------------------


async def test_a_read_only_account_is_refused_every_act_by_privilege_and_may_still_look(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    spec = target.make_spec()
    await deploy(target, spec)
    await target.provider.set_limits(target.cluster, 4000, {spec.name: 1200})
    denied = no_permission("Some.Privilege")
    looks = {
        "CreateContainerView", "RetrievePropertiesEx", "DestroyView", "FindChild", "CurrentTime", "QueryPerf",
        "Fetch", "CreatePropertyCollector", "HasPrivilegeOnEntities", "ContinueRetrievePropertiesEx",
    }  # fmt: skip
    proxy.rules.faults = {
        method: denied
        for method in [
            "CreateFolder", "CreateResourcePool", "UpdateConfig", "CloneVM_Task", "ReconfigVM_Task",
            "PowerOnVM_Task", "PowerOffVM_Task", "Destroy_Task", "RelocateVM_Task",
        ]
    }  # fmt: skip
    proxy.calls.clear()
    provider = target.provider
    acts: list[Callable[[], Awaitable[object]]] = [
        lambda: provider.create(target.make_spec()),
        lambda: provider.set_power(spec.name, Power.ON),
        lambda: provider.set_limits(target.cluster, 5000, {spec.name: 700}),
        lambda: provider.delete(spec.name),
    ]
    for act in acts:
        with pytest.raises(Rejected) as refusal:
            await act()
        assert refusal.value.cause is Cause.PERMISSION
        assert "privilege Some.Privilege" in refusal.value.detail
    asked = {method: proxy.calls[method] for method in proxy.calls if method not in looks}
    assert max(asked.values()) == 1, f"nothing is asked twice: {asked}"
    assert (await provider.sample(None))[0].hosts
    assert [machine.name for machine in await provider.machines()] == [spec.name]


# -- what was just there ---------------------------------------------------------------------------------------------


async def test_a_cluster_that_vanishes_is_not_found_and_the_others_are_sampled(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    samples = {sample.cluster: sample for sample in await target.provider.sample(None)}
    spec = target.make_spec()
    await deploy(target, spec)
    gone = samples[target.cluster]
    proxy.rules.hidden = {gone.cluster, *gone.hosts}

    assert {sample.cluster for sample in await target.provider.sample(None)} == set(samples) - {gone.cluster}
    for act in (
        target.provider.set_limits(gone.cluster, 1000, {spec.name: 500}),
        target.provider.create(target.make_spec()),
        target.provider.release(gone.cluster),
    ):
        with pytest.raises(Rejected) as refusal:
            await act
        assert refusal.value.cause is Cause.NOT_FOUND
    proxy.rules.hidden = set()
    machine = await seen(target, spec.name)
    assert machine is not None
    assert machine.limit_mhz == spec.limit_mhz


async def test_when_everything_vanishes_it_is_no_empty_inventory(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    proxy.rules.hidden = {sample.cluster for sample in await target.provider.sample(None)}
    for attempt in (target.provider.sample(None), target.provider.machines(), target.provider.validate()):
        with pytest.raises(Unavailable) as refusal:
            await attempt
        assert refusal.value.cause is Cause.NOT_FOUND


async def test_a_template_that_disappears_during_a_clone_leaves_nothing_behind(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    spec = target.make_spec()
    proxy.rules.delay_s["CloneVM_Task"] = 0.5
    making = asyncio.create_task(target.provider.create(spec))
    await until(lambda: proxy.calls["CloneVM_Task"], what="the clone to begin")

    def destroy(content: Any) -> None:
        vm = find(content, vim.VirtualMachine, TEMPLATE)
        vm.PowerOffVM_Task()
        vm.Destroy_Task()

    await target.back_door.run(destroy)
    with pytest.raises(Rejected) as refusal:
        await making
    assert refusal.value.cause is Cause.NOT_FOUND
    assert await target.provider.machines() == []
    assert not await target.exists(spec.name)
    with pytest.raises(Rejected, match="no template"):
        await target.provider.create(spec)
    assert proxy.calls["CloneVM_Task"] == 1


# -- no cloud at all -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def anything(vcsim: Vcsim, answer: bytes, pause_s: float = 0.0) -> AsyncIterator[str]:
    """A server with the right certificate that says the same to everybody; with a pause, byte by byte for ever."""
    folder = vcsim.ca_file.parent
    identity = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    identity.load_cert_chain(folder / "server.pem", folder / "server.key")

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            if not pause_s:
                writer.write(answer)
            while pause_s:
                writer.write(answer)
                await writer.drain()
                await asyncio.sleep(pause_s)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0, ssl=identity)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/sdk"
    finally:
        server.close()


def as_xml(text: str) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {len(text)}\r\n\r\n"
    return (head + text).encode()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\nshort",
        b"HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Y: z\r\n" * 1000 + b"\r\n",
        as_xml(BOMB),
        as_xml("<html>not a vCenter</html>"),
        as_xml("<" * 10_000),
        as_xml("<a>" * 100_000),
    ],
    ids=["ssh", "short", "elsewhere", "headers", "bomb", "page", "garbage", "deep"],
)
async def test_what_is_no_vcenter_is_unreachable_and_quickly_so(vcsim: Vcsim, answer: bytes) -> None:
    await vcsim.start(hosts=1, vms=0)
    begun = time.monotonic()
    async with anything(vcsim, answer) as url:
        target = VSphereTarget(vcsim, url, "")
        with pytest.raises(Unavailable) as refusal:
            await target.open("whatever it is")
    assert refusal.value.cause in (Cause.UNREACHABLE, Cause.UNKNOWN)
    assert len(refusal.value.detail) < 1000
    assert time.monotonic() - begun < 10


async def test_an_answer_that_drips_for_ever_ends_at_the_deadline_and_holds_no_thread(vcsim: Vcsim) -> None:
    await vcsim.start(hosts=1, vms=0)
    trust = Trust(vcsim.ca_file.read_text())
    async with anything(vcsim, b"H", pause_s=0.05) as url:
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(choose_version, parse_url(url), trust, begun + 0.5)
        assert time.monotonic() - begun < 3
