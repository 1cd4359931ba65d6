"""The collector's raw wire against vcsim behind a proxy: the same samples as ever, or none at all."""

import asyncio
import math
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from libs.common.contracts.usage import HostState, Quality, Sample
from libs.providers.base import Cause, Power, Rejected, Unavailable
from libs.providers.vsphere import VSphereProvider
from libs.providers.vsphere.session import Session
from libs.providers.vsphere.soap import Line
from tests.contract.providers.target import bring, deploy
from tests.contract.providers.vsphere_target import (
    CPU_COUNTER,
    HOST_MHZ,
    MEMORY_COUNTER,
    VSphereTarget,
    opened,
)
from tests.faultproxy import FaultProxy, SoapFault
from tests.support import until
from tests.unit.providers import soap_writing as soap
from tools.parts.vcsim import Vcsim

ROUND = {"CurrentTime", "RetrievePropertiesEx", "FindChild", "QueryPerf"}


@pytest.fixture
def cloud() -> dict[str, Any]:
    return {"clusters": 2, "hosts": 3, "vms": 1, "flags": ("-perf-default", "100", "-perf-spread", "500")}


def session_of(target: VSphereTarget) -> Session:
    assert isinstance(target.provider, VSphereProvider)
    return target.provider._session


def plain(samples: Any) -> list[Sample]:
    """Samples without what time alone changes."""
    return [replace(sample, at=None, datastore_free_gib=None) for sample in samples]


async def test_a_steady_round_makes_nothing_and_asks_little(target: VSphereTarget, proxy: FaultProxy) -> None:
    await target.provider.sample(None)
    proxy.calls.clear()
    await target.provider.sample(None)
    assert set(proxy.calls) == ROUND
    assert proxy.calls["QueryPerf"] == 1


async def test_the_csv_format_says_the_same(target: VSphereTarget, proxy: FaultProxy) -> None:
    before = await target.provider.sample(None)
    assert {sample.quality for sample in before} == {Quality.MEASURED}
    assert len({used for sample in before for used in sample.cpu_used_mhz}) > 3
    proxy.rules.csv = True
    assert plain(await target.provider.sample(None)) == plain(before)
    await target.settle()
    await target.settle()
    assert len(await target.provider.sample(before[-1].at)) >= 4


async def test_our_machines_are_measured_at_the_same_ticks(target: VSphereTarget) -> None:
    host = (await target.provider.sample(None))[0].hosts[0]
    spec = target.make_spec(host=host)
    spec = replace(spec, cluster=(await target.provider.sample(None))[0].cluster)
    await deploy(target, spec)
    await bring(target, spec.name, Power.ON)
    vm = await target.back_door.machine_id(spec.name)
    await target.vcsim.set_perf(host, {CPU_COUNTER: 3000, MEMORY_COUNTER: 1024 * 2000})
    await target.vcsim.set_perf(vm, {CPU_COUNTER: 700, MEMORY_COUNTER: 1024 * 300})
    sample = next(each for each in await target.provider.sample(None) if host in each.hosts)
    index = sample.hosts.index(host)
    assert sample.cpu_capacity_mhz[index] == HOST_MHZ
    assert (sample.cpu_used_mhz[index], sample.cpu_ours_mhz[index]) == (3000, 700)
    assert (sample.memory_used_mib[index], sample.memory_ours_mib[index]) == (2000, 300)
    assert sample.cpu_limit_mhz[index] == spec.limit_mhz


async def test_pages_are_all_read_and_left_ones_cancelled(target: VSphereTarget, proxy: FaultProxy) -> None:
    before = plain(await target.provider.sample(None))
    proxy.rules.page_size = 1
    assert plain(await target.provider.sample(None)) == before
    assert proxy.unread_pages == 0
    proxy.rules.status["ContinueRetrievePropertiesEx"] = 503
    with pytest.raises(Unavailable):
        await target.provider.sample(None)
    assert proxy.unread_pages > 0
    proxy.rules.status.clear()
    assert plain(await target.provider.sample(None)) == before
    assert proxy.calls["CancelRetrievePropertiesEx"] >= 1
    assert proxy.unread_pages == 0


async def test_a_lost_session_is_opened_once_and_its_views_made_again(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    def end_others(content: Any) -> None:
        manager = content.sessionManager
        mine = manager.currentSession.key
        manager.TerminateSession([each.key for each in manager.sessionList if each.key != mine])

    before = plain(await target.provider.sample(None))
    logins, views = proxy.calls["Login"], proxy.calls["CreateContainerView"]
    await target.back_door.run(end_others)
    rounds = await asyncio.gather(*(target.provider.sample(None) for _ in range(3)))
    assert [plain(samples) for samples in rounds] == [before] * 3
    assert proxy.calls["Login"] == logins + 1
    assert proxy.calls["CreateContainerView"] > views


async def test_a_session_that_is_refused_once_by_mistake_is_replaced(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    refusal = SoapFault("NotAuthenticated", "The session is not authenticated.").render()
    turns = iter(range(100))

    def mutate(method: str, text: str) -> bytes:
        first = method == "FindChild" and next(turns) == 0
        return refusal.encode() if first else text.encode()

    proxy.rules.mutate = mutate
    before = proxy.calls["Login"]
    assert len(await target.provider.sample(None)) == 2
    assert await target.provider.machines() == []
    assert proxy.calls["Login"] == before + 1


async def test_a_session_that_is_never_good_is_unavailable_and_not_asked_for_ever(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    proxy.rules.faults["QueryPerf"] = SoapFault("NotAuthenticated", "The session is not authenticated.")
    before = proxy.calls["Login"]
    with pytest.raises(Unavailable) as refusal:
        await target.provider.sample(None)
    assert refusal.value.cause is Cause.AUTH
    assert proxy.calls["Login"] == before + 1


async def test_the_raw_wire_believes_only_whom_pyvmomi_believes(
    target: VSphereTarget, proxy: FaultProxy, vcsim: Vcsim
) -> None:
    good = await target.open_with(target.connection(vcsim.password, thumbprint=vcsim.thumbprint))
    assert len(await good.sample(None)) == 2
    await good.aclose()
    for trust, cause in (({"thumbprint": "ab" * 32}, Cause.TLS), ({}, Cause.TLS)):
        session = session_of(target)
        wire, asked = session._wire, proxy.calls["CurrentTime"]
        stranger = Session(session._endpoint, replace(session._trust, ca_pem=None, **trust), session._login)
        stranger._api = session._api
        with pytest.raises(Rejected) as refusal:
            await stranger.read(lambda line: line.now(), "looking")
        assert refusal.value.cause is cause
        assert vcsim.thumbprint.replace(":", "").lower() in refusal.value.detail
        assert proxy.calls["CurrentTime"] == asked
        assert wire is session._wire
        stranger._api = None
        await stranger.aclose()


async def test_a_deadline_ends_a_round_and_the_next_one_works(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    provider = target.provider
    assert isinstance(provider, VSphereProvider)
    proxy.rules.delay_s["QueryPerf"] = 3.0
    began = time.monotonic()
    with pytest.raises(Unavailable) as refusal:
        await provider._session.read(lambda line: provider._rounds.sample(line, None), "sampling", 0.4)
    assert refusal.value.cause is Cause.TIMEOUT
    assert time.monotonic() - began < 2
    proxy.rules.delay_s.clear()
    assert len(await target.provider.sample(None)) == 2


async def test_a_connection_that_died_while_idle_is_replaced(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    await target.provider.sample(None)
    await proxy.stop()
    await proxy.start()
    assert len(await target.provider.sample(None)) == 2
    proxy.rules.reset_before["CurrentTime"] = 1
    assert len(await target.provider.sample(None)) == 2


async def test_a_slow_server_is_asked_less_at_once(
    target: VSphereTarget, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    pace = session_of(target).pace
    await target.provider.sample(None)
    assert pace.width == 4
    monkeypatch.setattr("libs.providers.vsphere.soap.pace.SLOW", 0.0)
    for width in (2, 1, 1):
        await target.provider.sample(None)
        assert pace.width == width
    monkeypatch.undo()
    for _ in range(6):
        await target.provider.sample(None)
    assert pace.width == 4


async def test_what_makes_no_sense_is_left_out_and_said(target: VSphereTarget, proxy: FaultProxy) -> None:
    host = (await target.provider.sample(None))[0].hosts[0]

    def spoil(method: str, text: str) -> bytes:
        before, entity, after = text.partition(f">{host}</entity>")
        return (before + entity + after.replace("</id><value>", "</id><value>x", 1)).encode()

    proxy.rules.mutate = lambda method, text: spoil(method, text) if method == "QueryPerf" else text.encode()
    with structlog.testing.capture_logs() as logs:
        sample = next(each for each in await target.provider.sample(None) if host in each.hosts)
    assert sample.quality is not Quality.MEASURED or not math.isnan(sample.cpu_used_mhz[0])
    told = [each for each in logs if each["event"] == "vsphere.values_left_out"]
    assert [each["reasons"] for each in told] == [{"no number": 1}]


changes = st.tuples(st.sampled_from(soap.CHANGES), st.integers(0, 100_000), st.sampled_from(soap.NO_NUMBERS))


async def test_changed_answers_give_the_same_samples_or_none(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    """Whatever becomes of one answer of a round: it ends soon, and no value is another than before."""
    truth = {sample.cluster: sample for sample in await target.provider.sample(None)}
    loop = asyncio.get_running_loop()

    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(change=changes, method=st.sampled_from(sorted(ROUND)), number=st.integers(0, 4))
    @example(change=("say", 24, "NaN"), method="RetrievePropertiesEx", number=0)  # an object that nobody has
    def spoil(change: tuple[str, int, str], method: str, number: int) -> None:
        turn = iter(range(1000))

        def mutate(asked: str, text: str) -> bytes:
            if asked == method and next(turn) == number:
                return soap.mutate(text, *change)
            return text.encode()

        proxy.rules.mutate = mutate
        began = time.monotonic()
        found = asyncio.run_coroutine_threadsafe(_try(target), loop).result(30)
        assert time.monotonic() - began < 10
        for sample in found:
            _check_against(sample, truth.get(sample.cluster))

    await asyncio.to_thread(spoil)
    proxy.rules.mutate = None
    assert {sample.cluster for sample in await target.provider.sample(None)} == set(truth)
    known = session_of(target)._line
    assert known is not None
    kept = {
        name: len(getattr(known[1], name)) for name in ("_views", "_collectors", "_unfinished", "left_out")
    }
    assert kept["_unfinished"] == kept["left_out"] == 0
    assert (kept["_views"], kept["_collectors"]) <= (4, 12), f"nothing grows: {kept}"


async def _try(target: VSphereTarget) -> list[Sample]:
    try:
        return list(await target.provider.sample(None))
    except Unavailable:
        return []


def _check_against(sample: Sample, truth: Sample | None) -> None:
    """Each number is the true one, the host's own statistic where its counter was lost, or none."""
    if truth is None:
        return
    for column in ("cpu_used_mhz", "memory_used_mib", "cpu_capacity_mhz", "memory_capacity_mib"):
        for host, value in zip(sample.hosts, getattr(sample, column), strict=True):
            if host not in truth.hosts or math.isnan(value):
                continue
            right = getattr(truth, column)[truth.hosts.index(host)]
            lost = {67.0, 1404.0} if "used" in column else {0.0}
            assert value == right or value in lost, f"{column} of {host}: {value}, not {right}"


async def test_an_endless_answer_is_given_up(
    target: VSphereTarget, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.providers.vsphere.soap.answer.MOST_BYTES", 200_000)
    big: Callable[[str, str], bytes] = lambda method, text: text.encode() + b" " * 1_000_000  # noqa: E731
    proxy.rules.mutate = big
    with pytest.raises(Unavailable) as refusal:
        await target.provider.sample(None)
    assert "longer than" in refusal.value.detail
    proxy.rules.mutate = None
    await until(lambda: _works(target), what="the next round")


async def _works(target: VSphereTarget) -> bool:
    return len(await _try(target)) == 2


def test_a_line_reads_and_never_writes() -> None:
    public = {name for name in vars(Line) if not name.startswith("_")}
    assert public == {"now", "find_child", "read_view", "keep_views", "retrieve", "query", "read_moves"}


async def test_a_host_that_ha_keeps_for_a_failure_stands_by_and_nothing_is_kept_of_the_others(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    host = next(each.hosts[0] for each in await target.provider.sample(None) if len(each.hosts) > 1)
    policy = (
        '<admissionControlPolicy xsi:type="ClusterFailoverHostAdmissionControlPolicy">'
        f'<failoverHosts type="HostSystem">{host}</failoverHosts></admissionControlPolicy>'
    )
    config = f"<enabled>true</enabled><admissionControlEnabled>true</admissionControlEnabled>{policy}"

    def dedicate(method: str, text: str) -> bytes:
        value = r"(<name>configurationEx\.dasConfig</name>\s*<val[^>]*>).*?(</val>)"
        return re.sub(value, rf"\g<1>{config}\g<2>", text, flags=re.DOTALL).encode()

    proxy.rules.mutate = dedicate
    async with opened(target.vcsim, proxy.url) as fresh:
        sample = next(each for each in await fresh.provider.sample(None) if host in each.hosts)
    states = dict(zip(sample.hosts, sample.states, strict=True))
    assert states.pop(host) is HostState.STANDBY
    assert set(states.values()) == {HostState.CONNECTED}
    assert (sample.ha_reserve_cpu_mhz, sample.ha_reserve_memory_mib) == (0.0, 0.0)
    assert not math.isnan(sample.cpu_used_mhz[sample.hosts.index(host)]), (
        "what runs there is measured all the same"
    )
