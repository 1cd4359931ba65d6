"""Samples out of readings, without a vCenter: what is late, short, missing or impossible."""

import math
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from pyVmomi import vim, vmodl

from libs.common.contracts.usage import HostState, Quality, Sample
from libs.providers.base import Cause, Full, Mark, Power, ProviderError, Rejected, Unavailable
from libs.providers.vsphere.faults import PinMismatch, TaskFailed, translate
from libs.providers.vsphere.fleet import Machine
from libs.providers.vsphere.inventory import Cluster, Host
from libs.providers.vsphere.marks import (
    Label,
    identity_options,
    name_of,
    read_label,
)
from libs.providers.vsphere.perf import CPU_MHZ
from libs.providers.vsphere.pools import Shares, give_way
from libs.providers.vsphere.soap import Readings
from libs.providers.vsphere.usage import Surroundings, make_samples

START = 1_800_000_000


def make_host(number: int, state: HostState = HostState.CONNECTED) -> Host:
    return Host(vim.HostSystem(f"host-{number}"), f"esx{number}", state, 4, 2500.0, 8192.0, 111.0, 222.0)


def make_cluster(*hosts: Host) -> Cluster:
    return Cluster(vim.ClusterComputeResource("domain-c1"), "c", None, None, None, True, list(hosts))


def make_machine(host: str, power: Power = Power.ON, limit: float | None = 500.0) -> Machine:
    mark = Mark(uuid4(), uuid4())
    ref = vim.VirtualMachine("vm-1")
    return Machine(ref, name_of(mark), Label(mark, True), host, power, limit, 33.0, 44.0, "connected")


def judge(
    cluster: Cluster,
    series: dict[str, dict[int, float]],
    machines: list[Machine] | None = None,
    since: int | None = None,
    interval_s: int = 20,
) -> list[Sample]:
    readings = Readings({(entity, CPU_MHZ): values for entity, values in series.items()})
    around = Surroundings(None, None, {}, datetime.fromtimestamp(START + 95, UTC), interval_s)
    begin = None if since is None else datetime.fromtimestamp(since, UTC)
    return make_samples(cluster, machines or [], readings, around, begin)


def ticks(count: int, value: float = 100.0) -> dict[int, float]:
    return {START + 20 * number: value for number in range(count)}


def test_the_newest_tick_that_all_hosts_have_is_the_measured_one() -> None:
    found = judge(
        make_cluster(make_host(1), make_host(2)), {"host-1": ticks(5), "host-2": ticks(4)}, since=START
    )
    assert [sample.quality for sample in found] == [Quality.BACKFILLED, Quality.BACKFILLED, Quality.MEASURED]
    assert found[-1].at.timestamp() == START + 60


def test_a_host_that_stays_silent_does_not_hold_up_the_others() -> None:
    [sample] = judge(make_cluster(make_host(1), make_host(2)), {"host-1": ticks(5), "host-2": ticks(1)})
    assert sample.quality is Quality.PARTIAL
    assert sample.at.timestamp() == START + 80
    assert sample.cpu_used_mhz == (100.0, 111.0)


def test_a_hole_in_the_past_is_not_a_number_and_never_idle() -> None:
    gap = {at: value for at, value in ticks(4).items() if at != START + 20}
    found = judge(
        make_cluster(make_host(1), make_host(2)), {"host-1": ticks(4), "host-2": gap}, since=START - 1
    )
    assert [math.isnan(sample.cpu_used_mhz[1]) for sample in found] == [False, True, False, False]


def test_hosts_that_are_away_are_not_asked_and_not_idle() -> None:
    away = make_cluster(make_host(1), make_host(2, HostState.FAILED), make_host(3, HostState.STANDBY))
    [sample] = judge(away, {"host-1": ticks(1)})
    assert sample.quality is Quality.MEASURED
    assert math.isnan(sample.cpu_used_mhz[1])
    assert sample.cpu_used_mhz[2] == 0.0


def test_a_machine_without_a_value_was_not_running_then() -> None:
    cluster, machine = make_cluster(make_host(1)), make_machine("host-1")
    series = {"host-1": ticks(3, 900.0), "vm-1": {START + 40: 300.0}}
    assert [each.cpu_ours_mhz[0] for each in judge(cluster, series, [machine], since=START)] == [0.0, 300.0]


def test_limits_count_running_machines_and_an_unlimited_one_is_the_whole_host() -> None:
    machines = [make_machine("host-1"), make_machine("host-1", Power.OFF), make_machine("host-1", limit=None)]
    [sample] = judge(make_cluster(make_host(1)), {"host-1": ticks(1)}, machines)
    assert (sample.machines, sample.cpu_limit_mhz) == ((2,), (10_500.0,))


def test_nothing_new_is_no_sample() -> None:
    assert judge(make_cluster(make_host(1)), {"host-1": ticks(3)}, since=START + 40) == []


def test_longer_intervals_are_means_of_whole_ones() -> None:
    series = {"host-1": {START + 20 * number: float(number) for number in range(1, 8)}}
    found = judge(make_cluster(make_host(1)), series, since=START, interval_s=60)
    assert [(sample.at.timestamp() - START, sample.cpu_used_mhz[0]) for sample in found] == [
        (60, 2.0),
        (120, 5.0),
    ]


@pytest.mark.parametrize(
    ("error", "kind", "cause"),
    [
        (vim.fault.InvalidLogin(), Rejected, Cause.AUTH),
        (vim.fault.NoPermission(privilegeId="Folder.Create"), Rejected, Cause.PERMISSION),
        (vim.fault.NotAuthenticated(), Unavailable, Cause.AUTH),
        (vmodl.fault.ManagedObjectNotFound(), Rejected, Cause.NOT_FOUND),
        (vim.fault.NoDiskSpace(datastore="ds"), Full, Cause.CAPACITY),
        (vim.fault.InsufficientMemoryResourcesFault(), Full, Cause.CAPACITY),
        (vim.fault.TaskInProgress(), Unavailable, Cause.CONFLICT),
        (vim.fault.InvalidPowerState(), Unavailable, Cause.CONFLICT),
        (vim.fault.ConcurrentAccess(), Unavailable, Cause.CONFLICT),
        (vim.fault.DuplicateName(name="x"), Rejected, Cause.CONFLICT),
        (vmodl.fault.HostCommunication(), Unavailable, Cause.UNREACHABLE),
        (vmodl.fault.InvalidArgument(invalidProperty="spec.x"), Rejected, Cause.INVALID),
        (TaskFailed(vim.fault.NoDiskSpace()), Full, Cause.CAPACITY),
        (PinMismatch("ab", "cd"), Rejected, Cause.TLS),
        (ConnectionRefusedError("refused"), Unavailable, Cause.UNREACHABLE),
        (TimeoutError(), Unavailable, Cause.TIMEOUT),
        (RuntimeError("something odd"), Unavailable, Cause.UNKNOWN),
    ],
)
def test_every_fault_has_a_cause(error: Exception, kind: type[ProviderError], cause: Cause) -> None:
    found = translate(error, "trying")
    assert type(found) is kind
    assert found.cause is cause


def test_a_fault_keeps_the_clouds_own_words() -> None:
    fault = vim.fault.NoPermission(privilegeId="Resource.CreatePool")
    fault.msg = "Permission to perform this operation was denied."
    assert "Resource.CreatePool" in translate(fault, "x").detail
    assert "was denied" in translate(fault, "x").detail
    assert "something odd" in translate(RuntimeError("something odd"), "x").detail


def test_a_label_needs_every_part_to_agree() -> None:
    mark = Mark(uuid4(), uuid4())
    options = identity_options(mark)
    assert read_label(name_of(mark), options) == Label(mark, False)
    assert read_label(f"tides-{uuid4()}", options) is None
    assert read_label(name_of(mark), options[:1]) is None
    other = Mark(mark.installation_id, uuid4())
    assert read_label(name_of(other), [*options, *identity_options(other)]) == Label(other, False)


def test_our_shares_are_at_most_one_percent_and_never_none() -> None:
    assert give_way(Shares(0, 99)) == Shares(1, 1)
    assert give_way(Shares(12_345, 200_000)) == Shares(123, 2000)
