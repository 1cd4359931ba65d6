"""What goes out and what is asked for again, while the bus or the cloud cannot take or give everything at once."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from libs.common.contracts.usage import Sample, UsageSampled
from services.monitor.domain import Tick
from services.monitor.reconcile.backlog import MOST_WAITING, Ask, Backlog
from tests.service.scripted_cloud import make_sample

START = datetime(2026, 11, 20, tzinfo=UTC)
RESOURCE = uuid4()


def at(number: int) -> datetime:
    """The end of the n-th interval."""
    return START + timedelta(seconds=20 * number)


class Cloud:
    """Two clusters, an interval of 20 s, an hour of history."""

    def __init__(self) -> None:
        self.newest = 0

    def sample(self, since: datetime | None) -> list[Sample]:
        first = self.newest if since is None else max(0, self.newest - 179)
        ends = [at(number) for number in range(first, self.newest + 1)]
        return [make_sample(name, end) for end in ends if since is None or end > since for name in "ab"]


class Watcher:
    """Rounds over a backlog, with a bus that takes so many intervals a round."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.backlog = Backlog({})
        self.out: list[datetime] = []

    def round(self, room: int = 10_000) -> Ask:
        ask = self.backlog.ask(at(self.cloud.newest))
        samples: Sequence[Sample] = self.cloud.sample(ask.since)
        self.backlog.take(samples, whole=ask.whole, say=_say)
        for end in sorted(self.backlog.waiting)[:room]:
            self.out.append(end)
            self.backlog.published(end)
        self.backlog.close(at(self.cloud.newest))
        return ask

    @property
    def numbers(self) -> list[int]:
        return sorted(round((end - START).total_seconds() / 20) for end in self.out)


def _say(tick: Tick) -> UsageSampled:
    return UsageSampled(at=tick.at, resource_id=RESOURCE, samples=tick.samples, received_at=tick.at)


def test_what_did_not_fit_is_read_again_and_nothing_is_skipped() -> None:
    watcher = Watcher(Cloud())
    watcher.round()
    for _ in range(MOST_WAITING + 150):  # the bus is away for nearly two hours
        watcher.cloud.newest += 1
        watcher.round(room=0)
        assert len(watcher.backlog.waiting) <= MOST_WAITING
    assert watcher.backlog.marks == {"a": at(0), "b": at(0)}
    watcher.round()
    assert watcher.backlog.marks == {"a": at(MOST_WAITING), "b": at(MOST_WAITING)}
    watcher.round()
    assert watcher.numbers == list(range(MOST_WAITING + 151))


def test_what_waits_is_not_asked_for_again() -> None:
    watcher = Watcher(Cloud())
    watcher.round()
    watcher.cloud.newest = 5
    watcher.round(room=2)
    assert watcher.backlog.marks["a"] == at(2)
    assert watcher.backlog.ask(at(6)) == Ask(at(5), True)


def test_after_a_time_out_the_newest_comes_first_and_the_rest_in_slices() -> None:
    watcher = Watcher(Cloud())
    watcher.round()
    watcher.cloud.newest = 100  # more than half an hour was missed
    watcher.backlog.timed_out()
    assert watcher.round() == Ask(None, False)
    assert watcher.numbers == [0, 100]
    assert watcher.backlog.marks == {"a": at(0), "b": at(0)}, "a mark may not pass over a gap"
    asks = [watcher.round() for _ in range(4)]
    assert asks == [Ask(at(70), False), Ask(at(40), False), Ask(at(10), False), Ask(at(0), True)]
    assert watcher.numbers == list(range(101)), "everything once"
    assert watcher.backlog.marks == {"a": at(100), "b": at(100)}
    watcher.cloud.newest = 101
    assert watcher.round() == Ask(at(100), True)


def test_a_second_time_out_begins_with_the_newest_again() -> None:
    watcher = Watcher(Cloud())
    watcher.round()
    watcher.cloud.newest = 100
    watcher.backlog.timed_out()
    watcher.round()
    watcher.round()
    watcher.backlog.timed_out()
    assert watcher.round() == Ask(None, False)
    assert watcher.numbers == [0, *range(71, 101)]


def test_a_gap_beyond_what_the_cloud_keeps_is_closed() -> None:
    watcher = Watcher(Cloud())
    watcher.round()
    watcher.cloud.newest = 1000
    watcher.backlog.timed_out()
    asks = [watcher.round() for _ in range(7)]
    assert [ask.whole for ask in asks] == [False] * 6 + [True]
    assert watcher.numbers == [0, *range(821, 1001)]
    assert watcher.backlog.marks == {"a": at(1000), "b": at(1000)}


def test_a_gap_stays_open_while_the_bus_takes_only_a_part() -> None:
    watcher = Watcher(Cloud())
    watcher.round()
    watcher.cloud.newest = 20
    watcher.backlog.timed_out()
    watcher.round()
    watcher.round(room=5)
    assert watcher.backlog.marks == {"a": at(5), "b": at(5)}
    watcher.round()
    assert watcher.numbers == list(range(21))
    assert watcher.backlog.marks == {"a": at(20), "b": at(20)}


def test_a_lone_late_cluster_leaves_what_waits_of_the_others() -> None:
    backlog = Backlog({"a": at(0), "b": at(0)})
    backlog.take([make_sample("a", at(1))], whole=True, say=_say)
    backlog.take([make_sample("b", at(1)), make_sample("a", at(1))], whole=True, say=_say)
    assert [len(event.samples) for event in backlog.waiting.values()] == [2]
    assert backlog.take_back([make_sample("a", at(-30))], timedelta()) == {"a": at(0)}
