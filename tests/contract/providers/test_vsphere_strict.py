"""Where vcsim is kinder than vCenter, the fault proxy is not: every such row of the simulator's table, and its test.

The rows, in the table's order. Those without a test name a call that the driver never makes, which the last test shows.

- paging with maxObjects, CancelRetrievePropertiesEx: `test_vsphere_collector.py` (pages are all read and left ones
  cancelled), `unit/providers/test_soap_line.py`
- InvalidProperty for a path that is none: here; every retrieval and filter of all these tests is checked for it
- updates of a container view (pools are not seen): not used; what a round must know it reads
- maxObjectUpdates and truncated updates: `test_vsphere_tasks.py` (many clones are followed by one collector)
- historicalInterval: not used, only real-time values are
- QueryPerf's order (oldest first; vcsim newest first): here, and `unit/providers/test_soap_answers.py`
- QueryPerf without maxSample, wildcard instances: never asked, here
- QueryPerf in CSV: `test_vsphere_collector.py` (the CSV format says the same)
- QueryPerf of a machine that is off, of one that is gone: here
- QueryPerf of an unknown counter (other numbers after an upgrade): here
- CloneVM that ignores CPU, memory and options of its configuration: `test_vsphere_machines.py` (a machine is made as
  its spec says: all is set by a change of its own, and a clone is no finished machine before)
- CloneVM with powerOn or customisation: never asked, here
- CloneVM of a name that is taken: `test_vsphere_faults.py` (a name that the cloud calls taken, two creations at once)
- ReconfigVM that appends an option twice: `unit/providers/test_vsphere_usage.py` (the last of equal keys counts)
- REST sessions, their passwords, tags, content libraries, inventory by REST (five rows): never asked, here
- NoPermission: `test_vsphere_denied.py` (every missing privilege and every write)
- beyond the table, pools without DRS: here and `test_vsphere_yielding.py`; power-on without memory overhead, late
  tasks, sizes of machines that run: `test_vsphere_faults.py`, `test_vsphere_tasks.py`
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from pyVmomi import vim

from libs.common.contracts.usage import Quality, Sample
from libs.providers.base import Cause, Power, ProviderError, Rejected
from libs.providers.vsphere import VSphereProvider
from libs.providers.vsphere.inventory import find_cluster, read_objects
from libs.providers.vsphere.pools import Shares, ensure_pool
from libs.providers.vsphere.session import Session
from tests.contract.providers.target import bring, deploy, newest
from tests.contract.providers.vsphere_target import CPU_COUNTER, VSphereTarget, find
from tests.faultproxy import FaultProxy
from tests.support import until


@pytest.fixture
def cloud() -> dict[str, Any]:
    return {"hosts": 2, "vms": 1, "flags": ("-perf-default", "100", "-perf-spread", "500")}


@pytest.fixture
def session(target: VSphereTarget) -> Session:
    assert isinstance(target.provider, VSphereProvider)
    return target.provider._session


def plain(samples: Any) -> list[Sample]:
    """Samples without what time alone changes."""
    return [replace(sample, datastore_free_gib=None) for sample in samples]


async def meanwhile(
    proxy: FaultProxy, method: str, ask: Callable[[], Awaitable[Any]], act: Callable[[], Awaitable[Any]]
) -> Any:
    """What is asked, while something happens just before the cloud hears this method."""
    proxy.rules.delay_s[method] = 1.5
    before = proxy.calls[method]
    asking = asyncio.ensure_future(ask())
    await until(lambda: proxy.calls[method] > before, what=method)
    await act()
    proxy.rules.delay_s.clear()
    return await asking


def tell_the_time(method: str, text: str) -> bytes:
    """An answer of QueryPerf in which each value is the second of the hour that it is of, in whatever order."""

    def values(item: re.Match[str]) -> str:
        times = re.findall(r"<timestamp>[^<]*T\d\d:(\d\d):(\d\d)", item[0])
        told = "".join(f"<value>{int(minute) * 60 + int(second)}</value>" for minute, second in times)
        return re.sub(r"(?<=</id>)(?:<value>[^<]*</value>)+", told, item[0])

    if method == "QueryPerf":
        text = re.sub(r"<returnval.*?</returnval>", values, text, flags=re.DOTALL)
    return text.encode()


async def test_a_path_that_is_none_is_refused(session: Session, target: VSphereTarget) -> None:
    refs = await target.back_door.run(lambda content: [content.rootFolder])
    for path in ("nonsense", "name.nonsense"):
        with pytest.raises(ProviderError, match="InvalidProperty"):
            await session.call(
                lambda api, path=path: read_objects(api, "x", refs, {vim.Folder: (path,)}),  # type: ignore[misc]
                "reading",
            )


async def test_without_drs_no_pool_is_made_whoever_asks_for_it(
    session: Session, target: VSphereTarget, proxy: FaultProxy
) -> None:
    provider = target.provider
    assert isinstance(provider, VSphereProvider)
    settings = provider._settings
    cluster = await session.call(lambda api: find_cluster(api, settings, target.cluster), "finding")
    proxy.rules.drs_off = True
    with pytest.raises(Rejected, match="NotSupported") as refusal:
        await session.call(lambda api: ensure_pool(api, cluster, settings, 1000, Shares(1, 1)), "making")
    assert refusal.value.cause is Cause.INVALID


async def test_values_are_the_same_whichever_comes_first(target: VSphereTarget, proxy: FaultProxy) -> None:
    proxy.rules.mutate = tell_the_time
    since = (await newest(target)).at
    for _ in range(3):
        await target.settle()
    oldest_first = await target.provider.sample(since)
    proxy.rules.strict = False
    newest_first = await target.provider.sample(since)
    assert len({sample.at for sample in oldest_first}) >= 3
    assert len({sample.cpu_used_mhz for sample in oldest_first}) > 1, "values that differ in time"
    shared = {sample.at for sample in oldest_first} & {sample.at for sample in newest_first}
    assert [each for each in plain(oldest_first) if each.at in shared] == [
        each for each in plain(newest_first) if each.at in shared
    ]


async def test_machines_that_stop_or_go_amid_a_round_cost_nobody_a_value(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    hosts = (await newest(target)).hosts
    specs = [target.make_spec(host=host) for host in hosts]
    for spec in specs:
        await deploy(target, spec)
        await bring(target, spec.name, Power.ON)
    whole = await newest(target)
    assert (whole.quality, all(value > 0 for value in whole.cpu_ours_mhz)) == (Quality.MEASURED, True)

    async def stop_one_and_destroy_another() -> None:
        def act(content: Any) -> None:
            first, second = (find(content, vim.VirtualMachine, spec.name) for spec in specs)
            first.PowerOffVM_Task()
            second.PowerOffVM_Task()
            second.Destroy_Task()

        await target.back_door.run(act)

    sample = (
        await meanwhile(
            proxy, "QueryPerf", lambda: target.provider.sample(None), stop_one_and_destroy_another
        )
    )[-1]
    assert sample.cpu_used_mhz == whole.cpu_used_mhz, "the hosts' values are all there"
    assert all(value == 0 for value in sample.cpu_ours_mhz), "and none is made up for what is off or gone"
    assert sample.quality is Quality.MEASURED
    after = await newest(target)
    assert (after.machines, after.quality) == ((0, 0), Quality.MEASURED)


async def test_a_vcenter_that_comes_back_with_other_counters_is_read_anew(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    asked: list[str] = []
    proxy.listener = lambda method, body: asked.append(body) if ">perfCounter<" in body else None
    before = await newest(target)
    assert before.quality is Quality.MEASURED
    proxy.known_counters = {"1", "2"}  # what had these numbers is something else now
    assert str(CPU_COUNTER) not in proxy.known_counters
    blind = await newest(target)
    assert blind.quality is Quality.PARTIAL, "the hosts' own statistics serve, and it says so"
    read = len(asked)
    proxy.restart()
    proxy.known_counters = set()
    assert (await newest(target)).quality is Quality.MEASURED
    assert len(asked) > read


async def test_the_driver_never_asks_for_what_nobody_could_check_here(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    bodies: dict[str, list[str]] = {}
    proxy.listener = lambda method, body: bodies.setdefault(method, []).append(body)
    spec = target.make_spec()
    await deploy(target, spec)
    await bring(target, spec.name, Power.ON)
    await target.provider.set_limits(target.cluster, 2000.0, {spec.name: 900.0})
    await target.provider.sample(None)
    await target.provider.validate()
    (clone,) = bodies["CloneVM_Task"]
    assert ">true</powerOn>" not in clone
    assert "customization" not in clone
    for query in bodies["QueryPerf"]:
        assert query.count("<maxSample>") == query.count("<querySpec>") > 0
        assert "<instance>*" not in query
    assert set(proxy.calls) & {"GET", "POST", "PUT", "DELETE", "PATCH"} <= {"GET"}
    assert proxy.calls["GET"] <= 1, "the list of versions; nothing by REST"
    assert "CreateFilter" not in bodies, "filters are for tasks that last"
