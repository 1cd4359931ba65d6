"""What the owner's load says: idle needs all signals for a while, busy any."""

from dataclasses import replace
from typing import Any

import pytest

from libs.harvest.types import ReasonCode, Rung, Thresholds, Verdict
from tests.unit.harvest.story import MEMORY_MIB, POLICY, Story, budgets

MEMORY_AWARE = replace(POLICY, memory=Thresholds(idle=0.6, stop_new=0.75, reclaim=0.9))


def used(share: float, hosts: int = 1) -> tuple[float, ...]:
    return (MEMORY_MIB * share,) * hosts


@pytest.mark.parametrize(
    ("owner", "verdict"),
    [(0.49, Verdict.IDLE), (0.5, Verdict.NORMAL), (0.65, Verdict.STOP_NEW), (0.8, Verdict.BUSY)],
)
def test_a_steady_load_has_one_verdict(owner: float, verdict: Verdict) -> None:
    assert Story().hear_for(200, [owner]).verdict is verdict


def test_idle_and_busy_must_last() -> None:
    story = Story()
    assert [story.hear([0.1]).verdict for _ in range(4)] == [Verdict.NORMAL] * 3 + [Verdict.IDLE]
    assert [story.hear([0.9]).verdict for _ in range(3)] == [Verdict.STOP_NEW] * 2 + [Verdict.BUSY]


def test_one_busy_sample_floors_at_once_but_is_no_verdict() -> None:
    story = Story()
    story.hear_for(600, [0.1, 0.1])
    decision = story.hear([0.9, 0.9])
    assert (decision.verdict, decision.rung, decision.cap_mhz) == (Verdict.STOP_NEW, Rung.FLOOR, 0.0)
    assert story.hear([0.1, 0.1]).rung is Rung.LEND


def test_an_interrupted_idle_spell_begins_again() -> None:
    story = Story()
    story.hear_for(200, [0.1])
    story.hear([0.55])
    assert story.hear_for(60, [0.1]).verdict is Verdict.NORMAL
    assert story.hear([0.1]).verdict is Verdict.IDLE


def test_busy_ends_only_below_stop_new() -> None:
    story = Story()
    story.hear_for(100, [0.9])
    assert story.hear_for(100, [0.7]).verdict is Verdict.BUSY
    assert story.hear([0.6]).verdict is Verdict.NORMAL


def test_the_verdict_weighs_hosts_by_capacity() -> None:
    story = Story()
    capacity = (10_000.0, 90_000.0)
    decision = story.hear_for(200, [0.0, 0.0], cpu_capacity_mhz=capacity, cpu_used_mhz=(10_000.0, 9_000.0))
    assert decision.verdict is Verdict.IDLE


@pytest.mark.parametrize(
    ("memory", "verdict"),
    [(0.5, Verdict.IDLE), (0.7, Verdict.NORMAL), (0.8, Verdict.STOP_NEW), (0.95, Verdict.BUSY)],
)
def test_memory_is_a_signal_where_the_policy_says_so(memory: float, verdict: Verdict) -> None:
    story = Story(MEMORY_AWARE)
    assert story.hear_for(200, [0.1], memory_used_mib=used(memory)).verdict is verdict
    assert Story(POLICY).hear_for(200, [0.1], memory_used_mib=used(memory)).verdict is Verdict.IDLE


def test_our_own_memory_is_not_the_owners() -> None:
    story = Story(MEMORY_AWARE)
    decision = story.hear_for(200, [0.1], memory_used_mib=used(0.9), memory_ours_mib=used(0.5))
    assert decision.verdict is Verdict.IDLE


def test_memory_that_a_cloud_does_not_tell_is_no_signal() -> None:
    story = Story(MEMORY_AWARE)
    columns: dict[str, Any] = dict.fromkeys(("memory_capacity_mib", "memory_used_mib"), (0.0,))
    assert story.hear_for(200, [0.1], **columns).verdict is Verdict.IDLE


def test_impossible_memory_is_full_memory() -> None:
    story = Story(MEMORY_AWARE)
    story.hear_for(200, [0.1])
    decision = story.hear([0.1], memory_used_mib=(float("nan"),))
    assert decision.rung is Rung.FLOOR
    assert decision.reason.code is ReasonCode.OWNER_MEMORY


def test_a_host_whose_memory_is_in_reclaim_keeps_its_floor() -> None:
    story = Story(MEMORY_AWARE)
    story.hear_for(600, [0.1, 0.1])
    decision = story.hear([0.1, 0.1], memory_used_mib=(MEMORY_MIB * 0.95, MEMORY_MIB * 0.1))
    assert budgets(decision)["a"] == 0 < budgets(decision)["b"]
    assert (decision.reason.code, decision.reason.host) == (ReasonCode.OWNER_MEMORY, "a")


@pytest.mark.parametrize(
    ("free", "short"),
    [(250.0, False), (190.0, True), (-1.0, True), (2000.0, True), (float("nan"), True), (None, True)],
)
def test_a_short_datastore_grows_nothing_and_says_nothing_of_the_owner(
    free: float | None, short: bool
) -> None:
    story = Story()
    decision = story.hear_for(200, [0.1], datastore_capacity_gib=1000.0, datastore_free_gib=free)
    assert decision.verdict is Verdict.IDLE
    assert (decision.wanted == 0) == short
    assert (decision.reason.code is ReasonCode.DATASTORE) == short


def test_an_unmeasured_datastore_is_no_obstacle() -> None:
    assert Story().hear_for(200, [0.1]).verdict is Verdict.IDLE
