"""How far a resource's samples went out, what waits for the bus, and what is still to be read again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from libs.common.contracts.usage import Sample, UsageSampled
from services.monitor import domain
from services.monitor.domain import Tick

MOST_WAITING = 200
"""Intervals that are kept while the bus is away, the oldest; newer ones are read again from the cloud's own hour."""
SLICE = timedelta(minutes=10)
"""By so much more each round reaches back, after a cloud could not answer for everything at once."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What to ask the cloud for. `whole`: the answer leaves no gap before it."""

    since: datetime | None
    whole: bool


@dataclass(slots=True)
class Backlog:
    """Everything up to a cluster's mark was published; beyond a gap single intervals may have been, too."""

    marks: dict[str, datetime]
    waiting: dict[datetime, UsageSampled] = field(default_factory=dict)
    """Measured and not published yet, by the end of the interval."""
    _beyond: set[datetime] = field(default_factory=set)
    """Of what waits: what was measured beyond a gap, so that no mark moves there."""
    _sent: set[tuple[str, datetime]] = field(default_factory=set)
    """Clusters and ends that were published beyond a gap."""
    _reach: timedelta | None = None
    """How far back the next round looks; None: as far as needed."""
    _partly: bool = False
    """Whether the newest answer left something out: a gap before it, or no room to keep it."""

    def ask(self, cloud_now: datetime) -> Ask:
        """From when on to ask, after what was published and what waits."""
        known = dict(self.marks)
        for at in sorted(self.waiting.keys() - self._beyond):
            known = domain.move(known, Tick(at, self.waiting[at].samples))
        wanted = domain.since(known, cloud_now)
        if wanted is None or self._reach is None:
            return Ask(wanted, True)
        reached = cloud_now - self._reach
        if reached <= max(wanted, cloud_now - domain.HISTORY):
            return Ask(wanted, True)
        return Ask(reached if self._reach else None, False)

    def timed_out(self) -> None:
        """The cloud could not answer in time: the next round asks for the newest interval alone."""
        if self.marks:
            self._reach = timedelta()

    def take(
        self, samples: Sequence[Sample], *, whole: bool, say: Callable[[Tick], UsageSampled]
    ) -> list[Tick]:
        """Keep what is new of an answer, the oldest of it where there is no room; returns what is new."""
        if whole:
            self._reach = None
            self._beyond.clear()
        elif self._reach is not None:
            self._reach += SLICE
        ticks = domain.new_ticks(
            (one for one in samples if (one.cluster, one.at) not in self._sent), self.marks
        )
        for tick in ticks:
            waiting = self.waiting.get(tick.at)
            if waiting is None or len(waiting.samples) < len(tick.samples):
                self.waiting[tick.at] = say(tick)
                if not whole:
                    self._beyond.add(tick.at)
        beyond_room = sorted(self.waiting)[MOST_WAITING:]
        for at in beyond_room:
            del self.waiting[at]
            self._beyond.discard(at)
        self._partly = not whole or bool(beyond_room)
        return ticks

    def published(self, at: datetime) -> None:
        """The bus has this interval."""
        event = self.waiting.pop(at)
        if at in self._beyond:
            self._beyond.discard(at)
            self._sent.update((sample.cluster, at) for sample in event.samples)
        else:
            self.marks = domain.move(self.marks, Tick(at, event.samples))

    def close(self, cloud_now: datetime) -> None:
        """After a round: where no gap is left marks pass over what was published beyond it."""
        if self._sent and not self.waiting and not self._partly:
            for cluster, at in self._sent:
                self.marks[cluster] = max(at, self.marks.get(cluster, at))
            self._sent.clear()
        oldest = cloud_now - domain.HISTORY - SLICE
        self._sent = {(cluster, at) for cluster, at in self._sent if at > oldest}

    def take_back(self, samples: Sequence[Sample], blind: timedelta) -> dict[str, datetime]:
        """Take back marks that lie beyond the newest their cluster has now: its clock went back. Returns those marks.

        `blind` is for how long nothing new was seen: so much is asked for again.
        """
        marks = domain.take_back(self.marks, samples, blind)
        gone = {cluster: at for cluster, at in self.marks.items() if marks[cluster] != at}
        self.marks = marks
        self._sent = {(cluster, at) for cluster, at in self._sent if cluster not in gone}
        return gone

    def keep(self, clusters: set[str]) -> None:
        """Forget how far every other cluster was."""
        self.marks = {cluster: at for cluster, at in self.marks.items() if cluster in clusters}
