"""What a vCenter's tasks and schedule announce, by a session that answers from memory."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyVmomi import vim
from structlog.testing import capture_logs

from libs.common.contracts.usage import Announced, Coming, HostState
from libs.providers.base import Cause, Rejected
from libs.providers.vsphere import announced
from libs.providers.vsphere.announced import ComingWatch, on_clock_of
from libs.providers.vsphere.faults import Refused
from libs.providers.vsphere.inventory import Cluster, Host
from libs.providers.vsphere.scheduled import Planned, kind_of, plan_of
from libs.providers.vsphere.soap import PAGE, Access, Found, Ref
from libs.providers.vsphere.soap.answer import Answer
from libs.providers.vsphere.soap.events import Moves
from tests.unit.providers import soap_writing as soap
from tests.unit.providers.test_soap_line import ACCESS

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
LATER = NOW + timedelta(seconds=20)


class FakeLine:
    """A session's reads: tasks, machines, and where machines go."""

    def __init__(self) -> None:
        self.access: Access = replace(ACCESS, tasks=Ref("TaskManager", "TaskManager"))
        self.tasks: list[Found] = []
        self.machines: dict[str, Found] = {}
        self.refusal: Exception | None = None
        self.asked = 0
        self.moves: dict[str, str] = {}

    async def read_moves(self, since: datetime) -> Moves:
        moves = Moves()
        moves.to = self.moves
        return moves

    def add(self, vm: str, host: str, *, vcpus: int = 2, is_on: bool = True, **more: Any) -> None:
        values: dict[str, Any] = {"runtime.host": Ref("HostSystem", host), "summary.config.numCpu": vcpus}
        values["runtime.powerState"] = "poweredOn" if is_on else "poweredOff"
        self.machines[vm] = Found(Ref("VirtualMachine", vm), values | more)

    def begin(self, task: str, what: str, vm: str, state: str = "running", **more: Any) -> None:
        self.tasks = [found for found in self.tasks if found.ref.id != task]
        values = {"info.descriptionId": what, "info.entity": Ref("VirtualMachine", vm), "info.state": state}
        self.tasks.append(Found(Ref("Task", task), values | more))

    async def retrieve(self, consumer: str, starts: Sequence[str], paths: Any, **_: Any) -> list[Found]:
        if not starts:
            return []
        self.asked += 1
        if self.refusal is not None:
            raise self.refusal
        if "Task" in paths:
            return self.tasks
        return [found for vm, found in self.machines.items() if any(f">{vm}<" in start for start in starts)]


class FakeSession:
    """A session whose vCenter has this schedule."""

    def __init__(self, *plan: Planned, refusal: Exception | None = None) -> None:
        self.plan = plan
        self.refusal = refusal

    async def call(self, work: object, doing: str) -> Sequence[Planned]:
        if self.refusal is not None:
            raise self.refusal
        return self.plan


def host_of(number: str) -> Host:
    return Host(vim.HostSystem(number), number, HostState.CONNECTED, 16, 2500.0, 65536.0, None, None)


CLUSTERS = [
    Cluster(vim.ClusterComputeResource(f"domain-c{n}"), f"c{n}", None, None, None, True, hosts)
    for n, hosts in ((1, [host_of("host-1"), host_of("host-2")]), (2, [host_of("host-3")]))
]


def watch_of(*plan: Planned) -> ComingWatch:
    return ComingWatch(cast(Any, FakeSession(*plan)))


async def look(watch: ComingWatch, line: FakeLine, at: datetime = LATER) -> list[tuple[Any, ...]]:
    told = await watch.look(cast(Any, line), CLUSTERS, {"vm-ours"}, at)
    assert set(told) == {"domain-c1", "domain-c2"}
    return [
        (each.kind, each.host, each.share, (each.begins_at - at).total_seconds())
        for each in (*told["domain-c1"], *told["domain-c2"])
    ]


@pytest.fixture
def line() -> FakeLine:
    line = FakeLine()
    line.add("vm-1", "host-1", vcpus=4)
    line.add("vm-2", "host-3", vcpus=99)
    line.add("vm-ours", "host-2")
    return line


@pytest.fixture
async def watch(line: FakeLine) -> ComingWatch:
    watch = watch_of()
    assert await look(watch, line, NOW) == []
    return watch


async def test_what_had_ended_before_the_first_look_shows_in_the_samples(line: FakeLine) -> None:
    line.begin("task-1", "VirtualMachine.powerOn", "vm-1", "success")
    line.begin("task-2", "VirtualMachine.powerOn", "vm-2")
    watch = watch_of()
    assert await look(watch, line, NOW) == [(Coming.POWER_ON, "host-3", 1.0, 0)]
    assert await look(watch, line) == [(Coming.POWER_ON, "host-3", 1.0, 0)]


async def test_a_start_is_told_from_its_queue_until_it_has_long_ended(
    watch: ComingWatch, line: FakeLine
) -> None:
    line.add("vm-1", "host-1", vcpus=4, is_on=False)
    line.begin("task-1", "Datacenter.ExecuteVmPowerOnLRO", "vm-1", "queued")
    assert await look(watch, line) == [(Coming.POWER_ON, "host-1", 0.25, 0)]
    assert await look(watch, line, NOW + timedelta(minutes=3)) == [(Coming.POWER_ON, "host-1", 0.25, 0)]
    ended = {"info.completeTime": "2026-11-27T12:03:05.123456789Z"}
    line.begin("task-1", "Datacenter.ExecuteVmPowerOnLRO", "vm-1", "success", **ended)
    at = NOW + timedelta(minutes=4)
    assert await look(watch, line, at) == [(Coming.POWER_ON, "host-1", 0.25, -55)]
    line.tasks, asked = [], line.asked
    assert await look(watch, line, at) == [(Coming.POWER_ON, "host-1", 0.25, -55)]
    assert line.asked == asked + 1, "a quiet round reads the list and nothing else"
    assert await look(watch, line, NOW + timedelta(minutes=14)) == []


async def test_who_starts_again_and_again_is_told_once(watch: ComingWatch, line: FakeLine) -> None:
    for number in range(50):
        line.begin(f"task-{number}", "VirtualMachine.powerOn", "vm-1", "success")
    assert await look(watch, line) == [(Coming.POWER_ON, "host-1", 0.25, 0)]


async def test_what_failed_ours_and_what_brings_no_load_is_not_told(
    watch: ComingWatch, line: FakeLine
) -> None:
    line.add("vm-3", "host-9")
    line.add("vm-4", "host-1", is_on=False)
    line.begin("task-1", "VirtualMachine.powerOn", "vm-1")
    line.begin("task-2", "VirtualMachine.powerOn", "vm-ours")
    line.begin("task-3", "VirtualMachine.powerOn", "vm-3")
    line.begin("task-4", "VirtualMachine.createSnapshot", "vm-4")
    line.begin("task-5", "VirtualMachine.reconfigure", "vm-1")
    line.begin("task-6", "VirtualMachine.powerOn", "vm-gone")
    assert await look(watch, line) == [(Coming.POWER_ON, "host-1", 0.25, 0)]
    line.begin("task-1", "VirtualMachine.powerOn", "vm-1", "error")
    line.begin("task-2", "VirtualMachine.powerOn", "vm-ours", "success")
    assert await look(watch, line) == []
    told = await watch.look(cast(Any, line), CLUSTERS, set(), LATER)  # it became a template
    assert told == {"domain-c1": (), "domain-c2": ()}


async def test_a_migration_is_told_of_where_it_goes_as_soon_as_that_is_known(
    watch: ComingWatch, line: FakeLine
) -> None:
    moves = line.moves
    line.add("vm-1", "host-1", vcpus=4)
    line.machines["vm-1"].values["summary.quickStats.overallCpuDemand"] = 20_000
    line.begin("task-1", "Drm.ExecuteVMotionLRO", "vm-1")
    assert await look(watch, line) == []
    moves["vm-1"] = "host-3"
    assert await look(watch, line) == [(Coming.MIGRATION, "host-3", 0.5, 0)]
    moves.clear()
    line.add("vm-1", "host-3", vcpus=4)
    line.begin("task-1", "VirtualMachine.migrate", "vm-1", "success")
    assert await look(watch, line) == [(Coming.MIGRATION, "host-3", 0.25, 0)]


async def test_what_is_scheduled_is_told_a_quarter_of_an_hour_ahead(line: FakeLine) -> None:
    machine, host = Ref("VirtualMachine", "vm-1"), Ref("HostSystem", "host-2")
    watch = watch_of(
        Planned(Coming.SNAPSHOT, NOW + timedelta(minutes=5), machine),
        Planned(Coming.MAINTENANCE, NOW + timedelta(minutes=10), host),
        Planned(Coming.MAINTENANCE, NOW + timedelta(minutes=20), host),
        Planned(Coming.MIGRATION, NOW + timedelta(minutes=5), machine),
        Planned(Coming.POWER_ON, NOW + timedelta(minutes=5), Ref("VirtualMachine", "vm-ours")),
    )
    assert await look(watch, line, NOW) == [
        (Coming.SNAPSHOT, "host-1", None, 300),
        (Coming.MAINTENANCE, "host-2", None, 600),
    ]


async def test_an_account_that_may_not_read_any_of_it_costs_nothing_but_that(line: FakeLine) -> None:
    refused = FakeSession(refusal=Rejected(Cause.PERMISSION, "no"))
    watch = ComingWatch(cast(Any, refused))
    line.begin("task-1", "VirtualMachine.powerOn", "vm-1")
    assert len(await look(watch, line, NOW)) == 1, "the schedule is one thing, tasks are another"
    line.refusal = Refused(vim.fault.NoPermission())
    assert len(await look(watch, line)) == 1, "what was told is told on"
    asked, line.refusal = line.asked, None
    await look(watch, line, LATER + timedelta(seconds=60))
    assert line.asked == asked, "it is not asked again at once"
    line.refusal = Refused(vim.fault.NotAuthenticated())
    with pytest.raises(Refused):
        await look(watch, line, LATER + timedelta(minutes=6))


async def test_a_flood_is_bounded(watch: ComingWatch, line: FakeLine) -> None:
    for number in range(1000):
        line.add(f"vm-flood-{number}", "host-1")
        line.begin(f"task-{number}", "VirtualMachine.powerOn", f"vm-flood-{number}")
    for _ in range(3):
        assert 0 < len(await look(watch, line)) <= announced.MOST_TOLD


async def test_tasks_that_run_for_long_hide_nothing_that_begins_later(
    watch: ComingWatch, line: FakeLine
) -> None:
    """A tenant's that are never told, on hosts that are not ours, and as many that are told again and again."""
    for number in range(announced.MOST_MACHINES):
        for host in ("host-9", "host-1"):
            line.add(f"vm-{host}-{number}", host)
            line.begin(f"task-{host}-{number}", "VirtualMachine.createSnapshot", f"vm-{host}-{number}")
    with capture_logs() as logs:
        for seconds in (20, 40, 60):
            await look(watch, line, NOW + timedelta(seconds=seconds))
        line.add("vm-late", "host-3", vcpus=4)
        line.begin("task-late", "VirtualMachine.powerOn", "vm-late")
        told = await look(watch, line, NOW + timedelta(seconds=80))
        assert (Coming.POWER_ON, "host-3", 0.25, 0) in told
        for seconds in range(100, 900, 20):
            told = await look(watch, line, NOW + timedelta(seconds=seconds))
    # All that runs is told on, long after it began.
    assert [kind for kind, *_ in told].count(Coming.SNAPSHOT) == announced.MOST_TOLD
    assert {ahead_s for *_, ahead_s in told} <= {0, -20, -40, -60}
    assert [(line["event"], line["looked_at"]) for line in logs] == [("vsphere.tasks_too_many", 100)]


async def test_what_lies_beyond_a_bound_is_told_once_in_a_warning(line: FakeLine) -> None:
    plan = [
        Planned(Coming.SNAPSHOT, LATER, Ref("VirtualMachine", f"vm-{number}"))
        for number in range(2 * announced.MOST_MACHINES + 7)
    ]
    watch = watch_of(*plan)
    for number in range(PAGE):
        line.begin(f"task-{number}", "VirtualMachine.powerOn", "vm-1", "success")
    with capture_logs() as logs:
        for seconds in (20, 40):
            await look(watch, line, NOW + timedelta(seconds=seconds))
    told = {(each["event"], each["looked_at"], each["left_out"]) for each in logs}
    assert told == {("vsphere.recent_tasks_too_many", 1000, None), ("vsphere.planned_too_many", 200, 7)}
    assert len(logs) == 2


async def test_a_schedule_that_is_not_read_in_time_costs_nothing_that_has_begun(
    line: FakeLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(FakeSession):
        is_slow = True

        async def call(self, work: object, doing: str) -> Sequence[Planned]:
            if self.is_slow:
                await asyncio.Event().wait()
            return self.plan

    monkeypatch.setattr(announced, "LOOK_WITHIN_S", 0.2)
    line.begin("task-1", "VirtualMachine.powerOn", "vm-1")
    watch = ComingWatch(cast(Any, Slow()))
    assert await look(watch, line, NOW) == [(Coming.POWER_ON, "host-1", 0.25, 0)]
    assert await look(watch, line) == [(Coming.POWER_ON, "host-1", 0.25, 0)]

    line.tasks = []
    session = Slow(Planned(Coming.SNAPSHOT, NOW + timedelta(minutes=15), Ref("VirtualMachine", "vm-1")))
    session.is_slow, watch = False, ComingWatch(cast(Any, session))
    assert await look(watch, line, NOW) == [(Coming.SNAPSHOT, "host-1", None, 900)]
    session.is_slow = True
    later = await look(watch, line, NOW + timedelta(minutes=6))
    assert later == [(Coming.SNAPSHOT, "host-1", None, 540)], "what was known of it before holds"


async def test_a_schedule_keeps_no_more_room_than_its_machines_take_and_hides_nothing(line: FakeLine) -> None:
    """A tenant plans as much as it likes: each machine is told once, what is no load never, and what begins first."""
    line.add("vm-off", "host-1", vcpus=4, is_on=False)
    soon, off = NOW + timedelta(minutes=1), Ref("VirtualMachine", "vm-off")
    machine = Ref("VirtualMachine", "vm-1")
    watch = watch_of(
        *(Planned(Coming.SNAPSHOT, soon, machine) for _ in range(50)),
        *(Planned(kind, soon, ref) for kind, ref in ((Coming.POWER_ON, machine), (Coming.SNAPSHOT, off))),
    )
    assert await look(watch, line, NOW) == [(Coming.SNAPSHOT, "host-1", None, 60)]

    for number in range(150):
        line.add(f"vm-later-{number}", "host-1")
    later = [Ref("VirtualMachine", f"vm-later-{number}") for number in range(150)]
    watch = watch_of(*(Planned(Coming.SNAPSHOT, NOW + timedelta(minutes=9), ref) for ref in later))
    line.begin("task-1", "VirtualMachine.powerOn", "vm-off")
    told = await look(watch, line, NOW)
    assert told[0] == (Coming.POWER_ON, "host-1", 0.25, 0)
    assert len(told) == announced.MOST_TOLD


TEXTS = st.text("aB.-_1 \x00é", max_size=8)
WORDS = TEXTS | st.sampled_from(["VirtualMachine.powerOn", "Drm.ExecuteVMotionLRO", "a.createSnapshot"])
VALUES = st.none() | st.booleans() | st.integers() | WORDS | st.builds(Ref, TEXTS, TEXTS)


@given(
    st.lists(st.dictionaries(st.sampled_from(sorted(announced._TASKS["Task"])), VALUES), max_size=5),
    st.dictionaries(st.sampled_from(sorted(announced._MACHINES["VirtualMachine"])), VALUES),
)
async def test_whatever_a_vcenter_says_is_told_as_something_possible_or_not_at_all(
    tasks: list[dict[str, Any]], machine: dict[str, Any]
) -> None:
    line, watch = FakeLine(), watch_of()
    line.machines["vm-1"] = Found(Ref("VirtualMachine", "vm-1"), machine)
    entity = {"info.entity": Ref("VirtualMachine", "vm-1")}
    line.tasks = [Found(Ref("Task", f"task-{n}"), entity | values) for n, values in enumerate(tasks)]
    for _, host, share, ahead_s in await look(watch, line, NOW):
        assert host in ("host-1", "host-2", "host-3")
        assert share is None or 0 < share <= 1
        assert ahead_s <= 0


def test_of_events_only_references_are_read() -> None:
    def event(*inside: str) -> str:
        return f'<returnval xsi:type="VmBeingHotMigratedEvent"><key>1</key>{"".join(inside)}</returnval>'

    def vm(number: str) -> str:
        return f'<vm><name>&lt;/vm&gt;</name><vm type="VirtualMachine">{number}</vm></vm>'

    def to(number: str) -> str:
        return f'<destHost><name>x</name><host type="HostSystem">{number}</host></destHost>'

    moves = Moves()
    answer = Answer("ReadNextEvents", "returnval", moves.take)
    events = [event(vm("vm-1"), to("host-1")), event(vm("vm-1"), to("host-2")), event(to("host-3"))]
    events += [event(vm("vm-2")), event("<vm/><destHost/>"), event('<vm><vm type="">v</vm></vm>', to("h"))]
    answer.feed(soap.answer("ReadNextEvents", "".join(events)).encode())
    answer.close()
    assert moves.to == {"vm-1": "host-2"}


def test_the_kinds_of_tasks_and_methods() -> None:
    kinds = {
        "VirtualMachine.powerOn": Coming.POWER_ON,
        "PowerOnVM_Task": Coming.POWER_ON,
        "VirtualMachine.relocateVm": Coming.MIGRATION,
        "MigrateVM_Task": Coming.MIGRATION,
        "CreateSnapshot_Task": Coming.SNAPSHOT,
        "VirtualMachine.RemoveAllSnapshots": Coming.SNAPSHOT,
        "EnterMaintenanceMode_Task": Coming.MAINTENANCE,
        "VirtualMachine.powerOff": None,
        "VirtualMachine.clone": None,
        "": None,
    }
    assert {what: kind_of(what) for what in kinds} == kinds


def test_the_schedule_as_pyvmomi_reads_it() -> None:
    def info(method: Any, entity: Any, **more: Any) -> Any:
        given = {"enabled": True, "nextRunTime": NOW} | more
        return vim.scheduler.ScheduledTaskInfo(
            action=vim.action.MethodAction(name=method), entity=entity, **given
        )

    vm, host = vim.VirtualMachine("vm-1"), vim.HostSystem("host-1")
    power_on = vim.VirtualMachine.PowerOn
    assert plan_of(
        [
            info(power_on, vm),
            info(vim.HostSystem.EnterMaintenanceMode, host),
            info(power_on, vm, enabled=False),
            info(power_on, vm, nextRunTime=None),
            info(vim.VirtualMachine.PowerOff, vm),
            info(power_on, vim.Folder("group-v1")),
            vim.scheduler.ScheduledTaskInfo(enabled=True, nextRunTime=NOW, entity=vm),
            None,
        ]
    ) == [
        Planned(Coming.POWER_ON, NOW, Ref("VirtualMachine", "vm-1")),
        Planned(Coming.MAINTENANCE, NOW, Ref("HostSystem", "host-1")),
    ]


def test_times_are_told_on_the_clock_of_the_samples() -> None:
    told = Announced(Coming.BACKUP, NOW, NOW + timedelta(hours=1), "host-1")
    usual = NOW - timedelta(seconds=40)
    assert on_clock_of([told], usual, NOW, 20) == (told,)
    for offset in (timedelta(minutes=10), -timedelta(minutes=10)):
        (moved,) = on_clock_of([told], NOW + offset, NOW, 20)
        assert (moved.begins_at, moved.ends_at) == (NOW + offset, NOW + offset + timedelta(hours=1))
