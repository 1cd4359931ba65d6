"""Reasons as an administrator reads them."""

from dataclasses import replace
from datetime import time, timedelta

import pytest

from libs.common.contracts.usage import Exposure, HostState
from libs.harvest.types import ReasonCode, Window
from libs.harvest.words import _EXPOSED, _SENTENCES, explain
from tests.unit.harvest.story import POLICY, Story, machine, sample

QUICK = replace(POLICY, sigma=0.0, rise_s=0.0)


def said(story: Story) -> str:
    return explain(story.decisions[-1], story.policy, {"a": "esx-1"})


def test_an_owner_in_reclaim() -> None:
    story = Story(QUICK)
    story.hear_for(100, [0.83, 0.83])
    assert said(story) == "owner CPU 83 % is above reclaim 80 %; budgets at the floor"


def test_a_single_host_in_reclaim_is_named() -> None:
    story = Story(QUICK)
    story.hear_for(100, [0.1, 0.1])
    story.hear([0.83, 0.1])
    assert said(story) == (
        "owner CPU 83 % is above reclaim 80 % on esx-1; "
        "its budget is at the floor, up to 31.2 GHz may be lent, 2 machines wanted"
    )


def test_what_is_said_of_growth() -> None:
    story = Story(QUICK)
    story.hear_for(40, [0.1])
    assert said(story) == "owner idle for 20 s of 60 s; up to 31.2 GHz may be lent, 0 machines wanted"
    story.hear_for(40, [0.1])
    assert said(story).startswith("lending: 1 more wanted; up to 31.2 GHz may be lent, 1 machine wanted")


def test_what_is_said_of_silence_and_disbelief() -> None:
    story = Story(QUICK)
    story.hear([0.1, 0.1])
    story.miss(90)
    assert said(story) == "nothing heard for 90 s, longer than 60 s; budgets at the floor, nothing new"
    story.at += timedelta(minutes=30)
    story.observe(sample([0.1], at=story.at - timedelta(seconds=90)))
    assert "is 90 s old, more than 60 s" in said(story)
    story.hear([0.1, 0.1], cpu_used_mhz=(-1.0, 0.0))
    assert said(story).startswith("the CPU use is negative on esx-1; ")


def test_what_is_said_when_drs_is_switched_off() -> None:
    story = Story(QUICK, machines=(machine("m", "a"),))
    story.hear_for(100, [0.1, 0.1])
    story.hear([0.1, 0.1], exposed=Exposure.NO_POOLS)
    assert said(story) == (
        "DRS was switched off in the cluster, which deleted our resource pool, so nothing but limits protects "
        "the owner's machines until it is mended; budgets at the floor"
    )


@pytest.mark.parametrize("exposure", list(Exposure))
def test_every_exposure_has_a_sentence_of_its_own(exposure: Exposure) -> None:
    assert exposure in _EXPOSED


def test_an_unexpected_pause_reason_is_quoted_whole() -> None:
    story = Story(QUICK, facts={"paused": "{red} button %s"})
    story.hear([0.1])
    assert said(story) == "paused: {red} button %s; budgets at the floor, nothing new"


def test_every_code_has_a_sentence() -> None:
    assert set(_SENTENCES) == set(ReasonCode)


@pytest.mark.parametrize(
    ("story", "words"),
    [
        (Story(QUICK, facts={"draining": True}), "the resource is being released; machines draining"),
        (Story(replace(QUICK, max_machines=0)), "the cap of 0 machines is reached"),
        (Story(QUICK, facts={"granted_machines": 0}), "the quota of 0 machines is reached"),
        (
            Story(replace(QUICK, windows=(Window(frozenset(), time(1), time(2)),))),
            "outside the lending windows (UTC)",
        ),
        (Story(replace(QUICK, machine=replace(QUICK.machine, vcpus=300))), "the best is 31200 MHz on esx-1"),
        (Story(QUICK, machines=(machine("m", "a"),)), "every host that can carry machines has its share"),
        (Story(QUICK, machines=(machine("m", "a", "suspended"),)), "suspended machines come back first"),
    ],
)
def test_what_is_said_on_a_calm_day(story: Story, words: str) -> None:
    story.hear_for(100, [0.1])
    assert words in said(story)


def test_what_is_said_of_datastore_and_hosts() -> None:
    story = Story(QUICK)
    story.hear([0.1], datastore_capacity_gib=100.0, datastore_free_gib=12.5)
    assert said(story).startswith("datastore free 12.5 % is below 20 %; ")
    story.hear_for(100, [0.1], datastore_capacity_gib=100.0, datastore_free_gib=21.0)
    assert said(story).startswith("the datastore has no room for a machine above 20 % free; ")
    story.hear([0.1], states=(HostState.FAILED,))
    assert said(story).startswith("none of 1 hosts is connected; ")
