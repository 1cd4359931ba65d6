"""What is new, what has gone, when to ask again."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from libs.common.ids import cluster_id
from libs.providers.values import HostHardware
from services.monitor import domain
from tests.service.scripted_cloud import make_sample

START = datetime(2026, 11, 20, tzinfo=UTC)
RESOURCE = uuid4()


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_nothing_is_asked_for_twice_and_a_late_cluster_misses_nothing() -> None:
    marks: dict[str, datetime] = {}
    assert domain.since(marks, at(0)) is None
    (tick,) = domain.new_ticks([make_sample("a", at(20)), make_sample("b", at(0))], {"b": at(0)})
    marks = domain.move({"b": at(0)}, tick)
    assert marks == {"a": at(20), "b": at(0)}
    assert domain.since(marks, at(25)) == at(0)

    answer = [
        make_sample("a", at(20)),
        make_sample("b", at(20)),
        make_sample("a", at(40)),
        make_sample("b", at(40)),
    ]
    ticks = domain.new_ticks([*answer, *answer], marks)

    assert [(one.at, [sample.cluster for sample in one.samples]) for one in ticks] == [
        (at(20), ["b"]),
        (at(40), ["a", "b"]),
    ]
    assert len({one.name for one in [tick, *ticks]}) == 3


@pytest.mark.parametrize("off_s", [130, 600, 3500, 9 * 3600])
def test_a_cluster_whose_clock_is_fast_does_not_silence_the_others(off_s: float) -> None:
    marks = {"a": at(0), "b": at(off_s)}
    answer = [make_sample(name, at(off_s * (name == "b") + 20)) for name in "ab"]
    asked = domain.since(marks, at(25))
    assert asked == at(0)
    assert [tick.at for tick in domain.new_ticks([one for one in answer if one.at > asked], marks)] == [
        at(20),
        at(off_s + 20),
    ]


@pytest.mark.parametrize("off_s", [130, 600, 3500])
def test_a_cluster_whose_clock_is_slow_is_heard_too(off_s: float) -> None:
    asked = domain.since({"a": at(0), "b": at(-off_s)}, at(25))
    assert asked == at(-off_s)


def test_nothing_is_asked_for_that_no_cloud_keeps() -> None:
    assert domain.since({"a": at(0), "b": at(-9 * 3600)}, at(25)) == at(-3600)


def test_how_far_samples_went_is_not_told_by_a_fast_clock() -> None:
    assert domain.newest_mark({"a": at(0), "b": at(-20), "c": at(600)}, at(3)) == at(0)
    assert domain.newest_mark({"c": at(600), "d": at(900)}, at(3)) == at(600)
    assert domain.newest_mark({}, at(3)) is None


def test_marks_beyond_the_present_of_their_cluster_are_taken_back() -> None:
    marks = {"a": at(0), "b": at(1800), "c": at(20)}
    answer = [make_sample(name, at(end)) for name in "abc" for end in (0, 20)]
    kept = domain.take_back(marks, answer, timedelta())
    assert kept == {"a": at(0), "b": at(0), "c": at(20)}
    (missed, tick) = (at(20), domain.new_ticks(answer, kept)[-1])
    assert (tick.at, [sample.cluster for sample in tick.samples]) == (missed, ["a", "b"])
    assert domain.take_back(marks, answer, timedelta(seconds=60))["b"] == at(-60)


def test_no_single_host_sets_the_clock_of_a_whole_cloud() -> None:
    answer = [make_sample("a", at(0)), make_sample("b", at(0)), make_sample("c", at(600))]
    offsets = domain.measure_offsets(answer, at(10))
    assert offsets == {"a": 0.0, "b": 0.0, "c": 590.0}
    assert domain.common_offset(offsets.values()) == 0.0
    assert domain.common_offset([0.0, -590.0]) == domain.common_offset([590.0, 0.0]) == 0.0
    assert domain.common_offset([300.0, 310.0, 320.0]) == 310.0
    assert domain.common_offset([]) == 0.0


def test_the_same_clusters_at_the_same_time_are_the_same_message() -> None:
    one, other = make_sample("a", at(20)), make_sample("b", at(20))
    assert domain.Tick(at(20), (one, other)).name == domain.Tick(at(20), (other, one)).name


@pytest.mark.parametrize(
    ("age_s", "offset_s"), [(0, 0), (20, 0), (44, 0), (-0.5, 0.5), (-300, 300), (345, -300), (46, -1)]
)
def test_a_clock_is_wrong_by_what_no_fresh_sample_can_be_old(age_s: float, offset_s: float) -> None:
    assert domain.measure_offset(at(-age_s), at(0), 20.0) == pytest.approx(offset_s)


def test_pauses_grow_where_somebody_must_mend_something_and_refused_logins_are_repeated_slowly() -> None:
    def pauses(refusal: domain.Refusal) -> list[float]:
        return [domain.pause_s(count, 20.0, refusal) for count in (1, 2, 3, 5, 9, 5000)]

    assert pauses(domain.Refusal.FINAL) == [20, 40, 80, 300, 300, 300]
    assert pauses(domain.Refusal.LOGIN) == [120, 240, 480, 900, 900, 900]


@pytest.mark.parametrize("interval_s", [20.0, 60.0, 300.0])
def test_after_ten_minutes_of_outage_the_cloud_is_asked_within_an_interval_of_its_return(
    interval_s: float,
) -> None:
    asked, failures = [0.0], 0
    while asked[-1] < 600.0:
        failures += 1
        asked.append(asked[-1] + domain.pause_s(failures, interval_s, domain.Refusal.PASSES))
    assert asked[-1] - 600.0 < interval_s
    assert len(asked) <= 2 + 600.0 / interval_s, "and no more often than when all is well"


def test_a_cloud_is_left_alone_for_as_long_as_it_asks_but_not_for_a_day() -> None:
    told = [domain.pause_s(1, 20.0, domain.Refusal.PASSES, told_s) for told_s in (None, 5.0, 90.0, 86_400.0)]
    assert told == [20.0, 20.0, 90.0, 300.0]


def test_what_hosts_are_made_of_stays_known() -> None:
    seen = domain.see_inventory(RESOURCE, [make_sample("a", at(0), ["h1", "h2"])], ())
    told = [HostHardware("h1", 16, 32, 2, 4, ("A100",)), HostHardware("h2", 8), HostHardware("gone", 1)]
    (cluster,) = domain.with_hardware(seen, told)
    assert cluster.cluster_id == cluster_id(RESOURCE, "a")
    assert [(host.cores, host.threads, host.gpus) for host in cluster.hosts] == [(16, 32, 4), (8, None, None)]
    refused = domain.with_hardware((cluster,), [HostHardware("h1", 20)])
    assert [(host.cores, host.numa_nodes, host.gpu_models) for host in refused[0].hosts] == [
        (20, 2, ("A100",)),
        (8, None, ()),
    ]
    taken_out = domain.with_hardware((cluster,), [HostHardware("h1", gpus=0)])
    assert (taken_out[0].hosts[0].gpus, taken_out[0].hosts[0].gpu_models) == (0, ())

    again = domain.see_inventory(RESOURCE, [make_sample("a", at(20), ["h2", "h1"])], (cluster,))
    assert again == (cluster,)
    assert domain.with_hardware(seen, ()) == seen


def test_a_host_that_is_down_keeps_its_size() -> None:
    known = domain.see_inventory(RESOURCE, [make_sample("a", at(0))], ())
    for size in (0.0, float("nan"), -1.0):
        assert domain.see_inventory(RESOURCE, [make_sample("a", at(20), cpu_mhz=size)], known) == known


def test_a_cluster_has_gone_after_the_third_round_without_it() -> None:
    known = domain.see_inventory(RESOURCE, [make_sample("a", at(0)), make_sample("b", at(0))], ())
    seen = domain.see_inventory(RESOURCE, [make_sample("b", at(20))], known)
    absent: dict[str, int] = {}
    kept = []
    for _ in range(3):
        absent = domain.count_absent(seen, known, absent)
        kept.append(len(domain.keep_absent(seen, known, absent)))
    assert kept == [2, 2, 1]
    assert domain.count_absent(known, known, absent) == {}
