"""How many machines, where, and which to give up first."""

import math
from dataclasses import replace
from datetime import time
from typing import Any

import pytest

from libs.harvest.types import Policy, ReasonCode, Rung, Window
from tests.unit.harvest.story import CAPACITY_MHZ, MEMORY_MIB, POLICY, Story, machine

QUICK = replace(POLICY, sigma=0.0, rise_s=0.0)


def idle(policy: Policy = QUICK, hosts: int = 4, **changes: Any) -> Story:
    story = Story(policy, **changes)
    story.hear_for(60, [0.1] * hosts)
    return story


def test_the_count_grows_by_a_step_per_cooldown() -> None:
    story = idle(hosts=8)
    wanted = []
    for _ in range(15):
        wanted.append(story.hear([0.1] * 8).wanted)
        story.obey()
    assert wanted == [2] * 6 + [4] * 6 + [6] * 3


def test_machines_are_placed_where_most_is_free_and_by_name_where_equal() -> None:
    story = Story(replace(QUICK, step_machines=4))
    decision = story.hear_for(100, [0.3, 0.1, 0.3, 0.2])
    assert decision.placements == ("b", "d", "a", "c")
    assert decision.running == 4


def test_one_machine_per_host_and_no_more_than_fit() -> None:
    story = idle(hosts=2)
    for _ in range(60):
        story.hear([0.1, 0.1])
        story.obey()
    assert story.decisions[-1].wanted == 2
    assert sorted(each.host or "" for each in story.machines) == ["a", "b"]
    assert (story.decisions[-1].reason.code, story.decisions[-1].reason.signal) == (
        ReasonCode.LENDING,
        "full",
    )


def test_one_that_was_lost_and_is_back_beside_what_replaced_it_is_no_reason_to_want_more() -> None:
    story = idle(hosts=2)
    for _ in range(20):
        story.hear([0.1, 0.1])
        story.obey()
    story.machines = (*story.machines, machine("back", "a", age_s=1.0))

    decisions = [story.hear([0.1, 0.1]) for _ in range(20)]

    assert {(decision.wanted, decision.victims[0]) for decision in decisions} == {(2, "back")}


def test_several_machines_per_host_where_the_policy_says_so() -> None:
    story = Story(replace(QUICK, machines_per_host=3, step_machines=8))
    decision = story.hear_for(100, [0.1, 0.3])
    assert decision.placements == ("a", "a", "a", "b", "b", "b")


@pytest.mark.parametrize(
    ("changes", "facts", "code", "wanted"),
    [
        ({"max_machines": 3}, {}, ReasonCode.CAP, 3),
        ({}, {"granted_machines": 1}, ReasonCode.QUOTA, 1),
        ({}, {"granted_machines": 0}, ReasonCode.QUOTA, 0),
        ({}, {"granted_machines": -5}, ReasonCode.QUOTA, 0),
    ],
)
def test_cap_and_quota_are_never_passed(
    changes: dict[str, Any], facts: dict[str, Any], code: ReasonCode, wanted: int
) -> None:
    story = idle(replace(QUICK, **changes), hosts=8, facts=facts)
    for _ in range(40):
        decision = story.hear([0.1] * 8)
        story.obey()
    assert (decision.wanted, decision.reason.code) == (wanted, code)


def test_a_quota_that_shrinks_takes_back_at_once() -> None:
    story = idle(hosts=8)
    story.hear([0.1] * 8)
    story.obey()
    story.facts["granted_machines"] = 1
    decision = story.hear([0.1] * 8)
    assert (decision.wanted, decision.running, len(decision.victims)) == (1, 1, 2)


def test_no_deploy_unless_the_budget_can_boot_it() -> None:
    small = replace(QUICK, machine=replace(QUICK.machine, vcpus=200))
    decision = idle(small).hear_for(100, [0.1] * 4)
    assert (decision.wanted, decision.reason.code) == (0, ReasonCode.NO_HEADROOM)


@pytest.mark.parametrize(("memory", "placed"), [(0.85, 1), (0.88, 0), (0.95, 0), (float("nan"), 0)])
def test_no_deploy_above_the_target_of_memory(memory: float, placed: int) -> None:
    story = Story(QUICK)
    decision = story.hear_for(100, [0.1], memory_used_mib=(memory * MEMORY_MIB,))
    assert len(decision.placements) == placed


def test_machines_count_at_full_size_whatever_they_touch_now() -> None:
    policy = replace(
        QUICK, machines_per_host=8, step_machines=8, machine=replace(QUICK.machine, memory_mib=65536)
    )
    story = Story(policy, machines=(machine("m", "a"),))
    decision = story.hear_for(100, [0.1], memory_used_mib=(0.3 * MEMORY_MIB,))
    assert decision.wanted == 2  # 30 % the owner's, two of 25 %


def test_memory_that_ours_take_beyond_their_size_is_not_free() -> None:
    story = Story(replace(QUICK, machines_per_host=8, step_machines=8), machines=(machine("m", "a"),))
    used, ours = 0.85 * MEMORY_MIB, 0.85 * MEMORY_MIB
    decision = story.hear_for(100, [0.1], memory_used_mib=(used,), memory_ours_mib=(ours,))
    assert decision.wanted == 2


@pytest.mark.parametrize(("free", "placed"), [(1000.0, 4), (280.0, 2), (230.0, 0)])
def test_disk_swap_and_suspend_file_must_fit_above_the_free_space(free: float, placed: int) -> None:
    story = Story(replace(QUICK, step_machines=8))  # 20 + 2 x 8 GiB a machine
    decision = story.hear_for(100, [0.1] * 4, datastore_capacity_gib=1000.0, datastore_free_gib=free)
    assert len(decision.placements) == placed


def test_nothing_grows_in_normal_and_what_is_wanted_is_still_placed() -> None:
    story = idle()
    story.hear([0.1] * 4)
    decision = story.hear([0.55] * 4)
    assert (decision.wanted, len(decision.placements)) == (2, 2)
    assert story.hear([0.7] * 4).placements == ()


def test_suspended_machines_come_back_before_new_ones() -> None:
    story = Story(replace(QUICK, machines_per_host=2), machines=(machine("m", "a", "suspended"),))
    decision = story.hear_for(100, [0.1] * 4)
    assert (decision.wanted, decision.running, decision.placements) == (1, 1, ())
    story.obey()
    assert story.hear([0.1] * 4).wanted == 3


def test_nothing_is_placed_while_a_suspended_machine_can_come_back() -> None:
    story = idle()
    assert len(story.hear([0.1] * 4).placements) == 2
    story.machines = (machine("m", "a", "suspended"),)
    decision = story.hear([0.1] * 4)
    assert (decision.wanted, decision.running, decision.placements) == (2, 1, ())


def test_a_suspended_machine_stays_so_where_the_budget_cannot_carry_it() -> None:
    story = Story(replace(QUICK, max_machines=1), machines=(machine("m", "a", "suspended"),))
    assert story.hear_for(100, [0.79, 0.1, 0.1]).running == 1
    assert story.hear([0.82, 0.1, 0.1]).running == 0


def test_a_lost_state_adopts_the_machines_it_finds() -> None:
    story = Story(QUICK, machines=tuple(machine(name, name) for name in "abc"))
    assert story.hear([0.1] * 4).wanted == 3


def test_victims_lose_least_then_are_newest_then_by_id() -> None:
    story = Story(
        QUICK,
        machines=(
            machine("old", "a", age_s=900.0),
            machine("far", "b", progress_s=500.0),
            machine("new", "c", age_s=10.0),
            machine("y", "d", age_s=50.0),
            machine("x", "d", age_s=50.0),
            machine("going", "d", "draining"),
        ),
    )
    assert story.hear([0.1] * 4).victims == ("new", "x", "y", "old", "far")


def test_a_draining_machine_makes_way_for_another_one_elsewhere() -> None:
    story = Story(QUICK, machines=(machine("m", "a", "draining"), machine("n", "b")))
    story.hear_for(100, [0.1] * 3)
    assert "a" not in story.decisions[-1].placements


def test_paused_keeps_the_floor_and_what_runs() -> None:
    story = idle()
    story.hear([0.1] * 4)
    story.obey()
    story.facts["paused"] = "maintenance weekend"
    decision = story.miss(5)
    assert decision.cap_mhz == 2 * 800
    assert (decision.rung, decision.wanted, decision.running) == (Rung.NO_NEW, 2, 2)
    assert decision.placements == ()
    assert decision.reason.code is ReasonCode.PAUSED
    assert story.hear_for(400, [0.1] * 4).wanted == 2
    del story.facts["paused"]
    assert story.hear_for(600, [0.1] * 4).cap_mhz > CAPACITY_MHZ


def test_an_old_sample_does_not_hide_a_pause() -> None:
    story = idle(machines=(machine("m", "a"),))
    story.facts["paused"] = "red button"
    decision = story.observe(story.told[-1][0])
    assert (decision.rung, decision.cap_mhz) == (Rung.NO_NEW, 800.0)


def test_nothing_grows_outside_the_windows() -> None:
    morning = Window(frozenset(range(7)), time(6), time(8))
    decision = idle(replace(QUICK, windows=(morning,))).hear_for(40, [0.1] * 4)
    assert (decision.wanted, decision.reason.code) == (0, ReasonCode.WINDOW)


BIG = replace(QUICK, machine=replace(QUICK.machine, memory_mib=131072))
"""A policy whose machines take half a host."""


def asleep(policy: Policy, **changes: Any) -> Story:
    """A machine of 8 GiB sleeps on the first of two hosts; the policy may want other sizes by now."""
    sleeper = machine("m", "a", "suspended", **{"memory_mib": 8192, **changes})
    return Story(replace(policy, max_machines=1), machines=(sleeper,))


def test_a_suspended_machine_wakes_by_its_own_size_under_a_policy_of_bigger_ones() -> None:
    story = asleep(BIG)
    decision = story.hear_for(100, [0.1, 0.1], memory_used_mib=(0.6 * MEMORY_MIB,) * 2)
    assert decision.running == 1


@pytest.mark.parametrize(
    ("own", "rest"), [({"memory_mib": 65536}, {}), ({}, {"memory_used_mib": (0.89 * MEMORY_MIB,) * 2})]
)
def test_a_suspended_machine_without_room_to_wake_goes_after_a_cooldown_of_idleness(
    own: dict[str, Any], rest: dict[str, Any]
) -> None:
    story = asleep(QUICK, **own)
    columns = {"memory_used_mib": (0.8 * MEMORY_MIB,) * 2, **rest}
    wanted = [story.hear([0.1, 0.1], **columns).wanted for _ in range(12)]
    assert wanted == [1] * 9 + [0] * 3  # idle after 60 s, the cooldown is 120
    assert story.decisions[-1].running == 0


def test_room_that_comes_in_time_wakes_what_had_none() -> None:
    story = asleep(QUICK)
    story.hear_for(160, [0.1, 0.1], memory_used_mib=(0.89 * MEMORY_MIB,) * 2)
    assert story.hear([0.1, 0.1]).running == 1
    assert story.hear_for(400, [0.1, 0.1]).wanted == 1


def test_on_a_cluster_that_is_not_idle_what_sleeps_may_sleep() -> None:
    story = asleep(QUICK)
    decision = story.hear_for(2000, [0.55, 0.55], memory_used_mib=(0.89 * MEMORY_MIB,) * 2)
    assert (decision.wanted, decision.running) == (1, 0)


def test_what_had_no_room_to_wake_goes_before_what_has() -> None:
    story = Story(
        replace(QUICK, max_machines=2, machines_per_host=2),
        machines=(machine("a", "a", "suspended"), machine("z", "b", "suspended", memory_mib=65536)),
    )
    decision = story.hear_for(300, [0.1, 0.1], memory_used_mib=(0.3 * MEMORY_MIB, 0.8 * MEMORY_MIB))
    assert (decision.wanted, decision.victims) == (1, ("z", "a"))


def test_bigger_machines_of_an_older_policy_leave_less_room() -> None:
    story = Story(replace(QUICK, machines_per_host=9, step_machines=9), machines=(machine("m", "a"),))
    story.machines = (machine("m", "a", memory_mib=131072),)
    decision = story.hear_for(100, [0.1], memory_used_mib=(0.3 * MEMORY_MIB,))
    assert decision.wanted == 1 + 3  # 60 % of 256 GiB less 128 GiB hold three of 8 GiB


@pytest.mark.parametrize(
    ("told", "machines", "placed"),
    [
        ({}, (), 4),
        ({}, ("running", "suspended", "draining", "starting"), 2),  # 160 GiB spare, 4 x 20 may still come
        ({"datastore_uncommitted_gib": 0.0}, ("running", "suspended", "draining", "running"), 4),
        ({"datastore_uncommitted_gib": 0.0}, ("running", "running", "starting", "starting"), 3),
        ({"datastore_uncommitted_gib": 100.0}, ("running",), 1),
        ({"datastore_uncommitted_gib": -1.0}, ("running",) * 4, 2),
        ({"datastore_uncommitted_gib": float("nan")}, ("running",) * 4, 2),
    ],
)
def test_what_thin_disks_may_still_grow_is_no_room(
    told: dict[str, Any], machines: tuple[str, ...], placed: int
) -> None:
    fleet = tuple(machine(f"m{place}", "a", state) for place, state in enumerate(machines))
    story = Story(replace(QUICK, step_machines=8), machines=fleet)
    store = {"datastore_capacity_gib": 1000.0, "datastore_free_gib": 360.0, **told}
    story.hear_for(100, [0.1] * 6, **store)
    assert story.state.disk_room == placed


def test_a_disk_of_an_older_policy_counts_at_its_own_size() -> None:
    story = Story(QUICK, machines=(machine("m", "a", disk_gib=100.0), machine("n", "b", disk_gib=math.nan)))
    story.hear([0.1] * 4, datastore_capacity_gib=1000.0, datastore_free_gib=360.0)
    assert story.state.disk_room == 1


def test_a_full_host_keeps_no_other_from_having_machines() -> None:
    story = Story(QUICK)
    reasons = [story.hear([0.97, 0.1, 0.1]).reason for _ in range(40)]
    decision = story.hear([0.97, 0.1, 0.1])
    assert (decision.wanted, sorted(decision.placements)) == (2, ["b", "c"])
    assert (decision.reason.code, decision.reason.host) == (ReasonCode.OWNER_CPU, "a")
    assert ReasonCode.LENDING in {reason.code for reason in reasons}
