"""Lanes: one piece of work per lane, lanes do not wait for each other, and all of them count as activity."""

import asyncio
import io
import json

from prometheus_client import CollectorRegistry

from libs.common.lanes import Lanes, speaking_of
from libs.common.log import configure
from libs.common.metrics import Metrics
from libs.common.wake import Activity


class Work:
    """Holds a lane until let go."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun = self.ended = 0
        self.go = asyncio.Event()
        self._error = error

    async def __call__(self) -> None:
        self.begun += 1
        try:
            await self.go.wait()
        finally:
            self.ended += 1
        if self._error is not None:
            raise self._error


async def test_a_busy_lane_takes_nothing_and_a_free_one_does() -> None:
    activity, work, other = Activity(), Work(), Work()
    lanes = Lanes(activity)
    assert lanes.start(("limits", 1), work)
    assert not lanes.start(("limits", 1), other)
    assert lanes.start(("limits", 2), other)
    other.go.set()
    await asyncio.sleep(0.01)
    assert (other.begun, other.ended) == (1, 1)
    assert (work.begun, work.ended, activity.is_idle) == (1, 0, False)
    assert lanes.start(("limits", 2), other)
    work.go.set()
    await asyncio.wait_for(activity.idle(), 1)
    assert (other.begun, work.ended) == (2, 1)


async def test_starting_counts_at_once() -> None:
    activity, work = Activity(), Work()
    Lanes(activity).start("lane", work)
    assert (work.begun, activity.is_idle) == (0, False)
    work.go.set()
    await activity.idle()


async def test_a_failure_frees_the_lane() -> None:
    activity, bad, good = Activity(), Work(ValueError("no such host")), Work()
    lanes = Lanes(activity)
    lanes.start("lane", bad)
    bad.go.set()
    await asyncio.wait_for(activity.idle(), 1)
    good.go.set()
    assert lanes.start("lane", good)
    await asyncio.wait_for(activity.idle(), 1)
    assert good.ended == 1


async def test_a_failure_says_which_lane_of_what_and_why() -> None:
    async def fail() -> None:
        with speaking_of(cluster="east", machine="?"), speaking_of(machine="tides-7"):
            raise ValueError("no such host; password=hunter2")

    activity, registry = Activity(), CollectorRegistry()
    lanes = Lanes(activity, Metrics(registry))
    out = io.StringIO()
    configure(stream=out)
    lanes.start(("limits", 1), fail, kind="limits", resource="Lab")
    await asyncio.wait_for(activity.idle(), 1)
    said = json.loads(out.getvalue())
    about = {name: said[name] for name in ("event", "lane", "resource", "cluster", "machine", "reason")}
    assert about == {
        "event": "lane.failed",
        "lane": "limits",
        "resource": "Lab",
        "cluster": "east",
        "machine": "tides-7",
        "reason": "ValueError: no such host; password=***",
    }
    assert registry.get_sample_value("tides_lane_failures_total", {"lane": "limits"}) == 1


async def test_work_that_was_cancelled_from_inside_frees_the_lane() -> None:
    async def be_cancelled() -> None:
        raise asyncio.CancelledError

    activity = Activity()
    lanes = Lanes(activity)
    lanes.start("lane", be_cancelled)
    await asyncio.wait_for(activity.idle(), 1)
    assert lanes.start("lane", be_cancelled)
    await lanes.aclose()


async def test_closing_ends_what_runs_and_what_has_not_begun() -> None:
    activity, running, late = Activity(), Work(), Work()
    lanes = Lanes(activity)
    lanes.start("running", running)
    await asyncio.sleep(0)
    lanes.start("late", late)
    await lanes.aclose()
    assert running.ended == 1
    assert (late.begun, late.ended) == (0, 0)
    assert activity.is_idle
    assert lanes.start("late", late), "a closed lane is free"
    await lanes.aclose()
