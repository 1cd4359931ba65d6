"""The sides of `./dev bench vsphere`, each in a process of its own: python -m tools.bench._vsphere_sides SIDE.

A task is read from the standard input as JSON, and the figures are written to the standard output as JSON.
"""

import asyncio
import gc
import http.client
import json
import resource
import ssl
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pyVim import connect
from pyVmomi import vim, vmodl
from pyVmomi.SoapAdapter import SoapStubAdapter

from libs.common.loop import run_loop
from libs.providers.vsphere.perf import Counters, read_counters
from libs.providers.vsphere.session import Login, Session
from libs.providers.vsphere.settings import parse_url
from libs.providers.vsphere.soap import Line, Question, Ref, View
from libs.providers.vsphere.transport import Trust

HOST_PATHS: dict[str, type] = {
    "name": str,
    "parent": Ref,
    "runtime.connectionState": str,
    "runtime.powerState": str,
    "runtime.inMaintenanceMode": bool,
    "summary.hardware.cpuMhz": int,
    "summary.hardware.numCpuCores": int,
    "summary.quickStats.overallCpuUsage": int,
}
VM_PATHS: dict[str, type] = {
    "name": str,
    "runtime.host": Ref,
    "runtime.powerState": str,
    "runtime.connectionState": str,
    "summary.config.numCpu": int,
    "summary.config.memorySizeMB": int,
    "summary.quickStats.overallCpuUsage": int,
    "summary.quickStats.hostMemoryUsage": int,
}
COUNTERS = ("cpu.usage.average", "cpu.usagemhz.average", "mem.usage.average", "mem.consumed.average")
INTERVAL_S = 20
TICK_S = 0.005
IDLE_S = 3.0
"""So long the loop has nothing to do: what it stalls then is the machine's doing."""
_BATCH = 250
Values = dict[str, dict[str, Any]]
"""By object id: leaf values by path, and performance values by counter."""


class Meter:
    """Calls and bytes of pyVmomi, seen at its stub and at http.client."""

    def __init__(self) -> None:
        self.calls = 0
        self.bytes_read = 0
        meter = self
        stubs: Any = SoapStubAdapter
        invoke = stubs.InvokeMethod

        class Counted(http.client.HTTPResponse):
            def read(self, amt: int | None = None) -> bytes:
                data = super().read(amt)
                meter.bytes_read += len(data)
                return data

        def counted(stub: Any, *arguments: Any, **named: Any) -> Any:
            meter.calls += 1
            return invoke(stub, *arguments, **named)

        http.client.HTTPConnection.response_class = Counted
        stubs.InvokeMethod = counted


@contextmanager
def logged_in(task: dict[str, Any]) -> Iterator[Any]:
    """The service content of pyVmomi's own session."""
    context = ssl.create_default_context(cafile=task["ca_file"])
    instance = connect.SmartConnect(
        host=task["host"], port=task["port"], user=task["user"], pwd=task["password"], sslContext=context
    )
    try:
        yield instance.RetrieveContent()
    finally:
        connect.Disconnect(instance)


def number_counters(content: Any) -> dict[int, str]:
    """Ids of the four counters."""
    names = {
        f"{item.groupInfo.key}.{item.nameInfo.key}.{item.rollupType}": int(item.key)
        for item in content.perfManager.perfCounter
    }
    return {names[name]: name for name in COUNTERS}


# -- naive pyVmomi: an attribute is a call ---------------------------------------------------------------


def read_naive(content: Any, counters: dict[int, str]) -> Values:
    """As the examples do it: properties of each object in turn, each needed structure fetched once per object."""
    values = Values()
    for kind, paths in ((vim.HostSystem, HOST_PATHS), (vim.VirtualMachine, VM_PATHS)):
        view = content.viewManager.CreateContainerView(content.rootFolder, [kind], True)
        for item in view.view:
            got = values[item._GetMoId()] = _read_attributes(item, paths)
            got.update(_query_pyvmomi(content, counters, [item])[item._GetMoId()])
        view.DestroyView()
    return values


def _read_attributes(item: Any, paths: dict[str, type]) -> dict[str, Any]:
    fetched = {name: getattr(item, name) for name in {path.partition(".")[0] for path in paths}}
    found = {}
    for path in paths:
        value = fetched[path.partition(".")[0]]
        for part in path.split(".")[1:]:
            value = getattr(value, part)
        if value is not None:
            found[path] = value
    return found


# -- pyVmomi in bulk ---------------------------------------------------------------


def read_bulk(content: Any, counters: dict[int, str]) -> Values:
    """Container views, leaf paths only, QueryPerf for 250 objects at a time: what pyVmomi can do at its best."""
    values = Values()
    for kind, paths in ((vim.HostSystem, HOST_PATHS), (vim.VirtualMachine, VM_PATHS)):
        items = _read_view(content, kind, list(paths), values)
        for start in range(0, len(items), _BATCH):
            for ref, found in _query_pyvmomi(content, counters, items[start : start + _BATCH]).items():
                values[ref].update(found)
    return values


def _read_view(content: Any, kind: Any, paths: list[str], values: Values) -> list[Any]:
    query = vmodl.query.PropertyCollector
    view = content.viewManager.CreateContainerView(content.rootFolder, [kind], True)
    through = query.TraversalSpec(type=vim.view.ContainerView, path="view", skip=False)
    spec = query.FilterSpec(
        objectSet=[query.ObjectSpec(obj=view, skip=True, selectSet=[through])],
        propSet=[query.PropertySpec(type=kind, pathSet=paths)],
    )
    items = []
    page = content.propertyCollector.RetrievePropertiesEx([spec], query.RetrieveOptions(maxObjects=1000))
    while page is not None:
        for each in page.objects:
            items.append(each.obj)
            values[each.obj._GetMoId()] = {entry.name: entry.val for entry in each.propSet}
        page = content.propertyCollector.ContinueRetrievePropertiesEx(page.token) if page.token else None
    view.DestroyView()
    return items


def _query_pyvmomi(content: Any, counters: dict[int, str], items: Sequence[Any]) -> Values:
    kind = vim.PerformanceManager
    metrics = [kind.MetricId(counterId=number, instance="") for number in counters]
    specs = [
        kind.QuerySpec(entity=item, metricId=metrics, intervalId=INTERVAL_S, maxSample=1, format="normal")
        for item in items
    ]
    return {
        answer.entity._GetMoId(): {
            counters[series.id.counterId]: [float(value) for value in series.value] for series in answer.value
        }
        for answer in content.perfManager.QueryPerf(specs)
    }


def _plain(value: Any) -> Any:
    """A value as JSON knows it; times differ from round to round, and each value has one."""
    if isinstance(value, vim.ManagedEntity):
        return value._GetMoId()
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, Ref):
        return value.id
    return value if isinstance(value, bool | int | list) else str(value)


# -- ours ---------------------------------------------------------------


async def read_ours(session: Session, counters: Counters, task: dict[str, Any]) -> Values:
    """The driver's hot path: a view per cluster, leaf paths, 256 metrics a query, four at once."""
    wanted = [(_plan("HostSystem", HOST_PATHS, COUNTERS)), (_plan("VirtualMachine", VM_PATHS, COUNTERS))]
    if task.get("exporter"):
        wanted = [_plan(kind, paths, names) for kind, paths, names in read_exporters(task["exporter"])]

    async def work(line: Line) -> Values:
        root = View(line.access.root, ("ClusterComputeResource",))
        clusters = await line.read_view("places", root, {"ClusterComputeResource": {"name": str}})
        values = Values()
        for kind, paths, names in wanted:
            views = [View(cluster.ref, (kind,)) for cluster in clusters]
            refs = await _read_views(line, views, {kind: paths}, values)
            question = Question(counters.named(names), INTERVAL_S, 1, counters.most_metrics)
            readings = await line.query(question, refs)
            for (ref, name), series in readings.series.items():
                values[ref][name] = series
        return values

    return await session.read(work, "a round", 300)


def _plan(
    kind: str, paths: dict[str, type], names: Sequence[str]
) -> tuple[str, dict[str, type], Sequence[str]]:
    return kind, paths, names


async def _read_views(
    line: Line, views: list[View], paths: dict[str, dict[str, type]], values: Values
) -> list[Ref]:
    def reading(view: View) -> Callable[[int], Awaitable[list[Ref]]]:
        async def read(lane: int) -> list[Ref]:
            refs = []
            for found in await line.read_view(f"bench-{lane}", view, paths):
                values[found.ref.id] = dict(found.values)
                refs.append(found.ref)
            return refs

        return read

    return [ref for refs in await line.pace.run([reading(view) for view in views]) for ref in refs]


def read_exporters(lists: dict[str, Any]) -> Iterator[tuple[str, dict[str, type], list[str]]]:
    """vmware_exporter's own paths and counters. Its structures travel and are parsed, but are no leaves to keep."""
    numbers = {"cpuMhz", "numCpuCores", "memorySize", "overallCpuUsage", "overallMemoryUsage", "numCpu"}
    for kind in ("HostSystem", "VirtualMachine"):
        paths: dict[str, type] = {}
        for path in lists[kind]["paths"]:
            leaf = path.rpartition(".")[2]
            paths[path] = int if leaf in numbers | {"memorySizeMB", "maxCpuUsage"} else str
            if leaf in ("parent", "host"):
                paths[path] = Ref
            elif leaf in ("inMaintenanceMode", "template"):
                paths[path] = bool
        yield kind, paths, lists[kind]["counters"]


# -- measuring ---------------------------------------------------------------


class Watch:
    """How late a timer of 5 ms comes at worst, and how much CPU the loop's own thread took meanwhile."""

    def __init__(self) -> None:
        self.stall_s = 0.0
        self.stall_cpu_s = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            began, spent = time.perf_counter(), time.thread_time()
            await asyncio.sleep(TICK_S)
            self.stall_s = max(self.stall_s, time.perf_counter() - began - TICK_S)
            self.stall_cpu_s = max(self.stall_cpu_s, time.thread_time() - spent)


async def measure(
    task: dict[str, Any], work: Callable[[], Awaitable[Values]], count: Callable[[], Counter[str]]
) -> dict[str, Any]:
    """Rounds of a side: wall and CPU seconds of each, calls and bytes of the last, the longest stall of all."""
    walls, cpus = [], []
    watch = Watch()
    watching = asyncio.create_task(watch.run())
    await asyncio.sleep(IDLE_S)
    idle, watch.stall_s, watch.stall_cpu_s = watch.stall_s, 0.0, 0.0
    values = Values()
    used: Counter[str] = Counter()
    for _ in range(task["rounds"]):
        values.clear()
        before, began, spent = count(), time.perf_counter(), time.process_time()
        values = await work()
        walls.append(time.perf_counter() - began)
        cpus.append(time.process_time() - spent)
        used = count() - before
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if task.get("values"):
        plain = {ref: {name: _plain(value) for name, value in got.items()} for ref, got in values.items()}
        Path(task["values"]).write_text(json.dumps(plain))
    return {
        "wall_s": walls,
        "cpu_s": cpus,
        "calls": used["calls"],
        "bytes": used["bytes"],
        "stall_s": watch.stall_s,
        "stall_cpu_s": watch.stall_cpu_s,
        "stall_idle_s": idle,
        "peak_mib": peak_mib,
        "objects": len(values),
    }


async def run_pyvmomi(task: dict[str, Any], read: Callable[[Any, dict[int, str]], Values]) -> dict[str, Any]:
    """In a thread, as a service would do it."""
    meter = Meter()
    with logged_in(task) as content:
        counters = number_counters(content)
        return await measure(
            task,
            lambda: asyncio.to_thread(read, content, counters),
            lambda: Counter(calls=meter.calls, bytes=meter.bytes_read),
        )


async def run_ours(task: dict[str, Any]) -> dict[str, Any]:
    """In the loop."""
    trust = Trust(Path(task["ca_file"]).read_text())
    session = Session(parse_url(task["url"]), trust, Login(task["user"], lambda: str(task["password"])))
    try:
        counters = await session.call(read_counters, "reading the counters")
        if task.get("frozen"):
            gc.collect()
            gc.freeze()
        wire = session._wire
        return await measure(
            task,
            lambda: read_ours(session, counters, task),
            lambda: Counter(calls=wire.calls, bytes=wire.bytes_read),
        )
    finally:
        await session.aclose()


async def main() -> None:
    """Run one side."""
    task = json.load(sys.stdin)
    sides: dict[str, Callable[[], Awaitable[dict[str, Any]]]] = {
        "naive": lambda: run_pyvmomi(task, read_naive),
        "bulk": lambda: run_pyvmomi(task, read_bulk),
        "ours": lambda: run_ours(task),
    }
    print(json.dumps(await sides[sys.argv[1]]()))


if __name__ == "__main__":
    run_loop(main())
