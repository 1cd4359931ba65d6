"""What is new in an answer, what it says of the inventory and of the cloud's clock, and when to ask again."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from uuid import UUID

from libs.common.contracts.resource import ClusterFacts, HostFacts
from libs.common.contracts.usage import Sample
from libs.common.ids import cluster_id
from libs.providers.values import HostHardware

Marks = Mapping[str, datetime]
"""Per cluster the end of its newest published interval."""

HISTORY = timedelta(hours=1)
"""What clouds keep of fine measurements: further back there is nothing to ask for."""
ABSENT_ROUNDS = 3
"""A cluster that is missing from so many rounds in a row has gone."""
DEGRADED_AFTER = 2
LONGEST_PAUSE_S = 300.0
_AUTH_PAUSE_S = 120.0
_LONGEST_AUTH_PAUSE_S = 900.0
_CLOCK_SLACK_S = 5.0
_CLOCK_SLACK = timedelta(seconds=_CLOCK_SLACK_S)


@dataclass(frozen=True, slots=True)
class Tick:
    """Samples that end at the same time: one message."""

    at: datetime
    samples: tuple[Sample, ...]

    @property
    def name(self) -> str:
        """The same for the same clusters at the same time, whoever asks and however often."""
        return f"{self.at.isoformat()}/{','.join(sorted(sample.cluster for sample in self.samples))}"


def since(marks: Marks, cloud_now: datetime) -> datetime | None:
    """From when on to ask: the oldest mark, at most an hour back; None when nothing was ever seen.

    Hosts' clocks differ: one that is fast must not pull this forward, or the others would not be heard any more.
    """
    if not marks:
        return None
    return max(min(marks.values()), min(max(marks.values()), cloud_now) - HISTORY)


def newest_mark(marks: Marks, cloud_now: datetime) -> datetime | None:
    """How far samples went out, a mark of a fast clock left aside; None when nothing was ever seen."""
    believed = [at for at in marks.values() if at <= cloud_now + _CLOCK_SLACK]
    return max(believed) if believed else min(marks.values(), default=None)


def take_back(marks: Marks, samples: Iterable[Sample], blind: timedelta) -> dict[str, datetime]:
    """The marks without those that lie beyond the present of their cluster, which is the newest that it measured.

    A mark that was taken back lies before what was missed in the time `blind`.
    """
    kept = dict(marks)
    for cluster, newest in _newest(samples).items():
        interval = timedelta(seconds=newest.interval_s)
        if cluster in kept and kept[cluster] > newest.at + interval:
            kept[cluster] = newest.at - interval - blind
    return kept


def new_ticks(samples: Iterable[Sample], marks: Marks) -> list[Tick]:
    """What has not been published yet, oldest first; a repeated interval counts once."""
    found: dict[datetime, dict[str, Sample]] = {}
    for sample in samples:
        mark = marks.get(sample.cluster)
        if mark is None or sample.at > mark:
            found.setdefault(sample.at, {})[sample.cluster] = sample
    return [Tick(at, tuple(found[at][cluster] for cluster in sorted(found[at]))) for at in sorted(found)]


def move(marks: Marks, tick: Tick) -> dict[str, datetime]:
    """The marks after a tick was published."""
    return {**marks, **{sample.cluster: tick.at for sample in tick.samples}}


def strays(newest: Iterable[Sample], samples: Iterable[Sample], marks: Marks) -> list[Sample]:
    """Of the newest of every cluster those that no question since the oldest mark can find: their clock is slow."""
    found = {sample.cluster for sample in samples}
    return [
        one
        for one in newest
        if one.cluster not in found
        and (one.cluster not in marks or one.at + timedelta(seconds=one.interval_s) < marks[one.cluster])
    ]


def measure_offsets(samples: Iterable[Sample], received_at: datetime) -> dict[str, float]:
    """How far the clock of each cluster is from ours, in seconds, by the newest that it measured."""
    return {
        cluster: measure_offset(newest.at, received_at, newest.interval_s)
        for cluster, newest in _newest(samples).items()
    }


def measure_offset(newest: datetime, received_at: datetime, interval_s: float) -> float:
    """The cloud's clock minus ours, in seconds, as far as a fresh sample tells.

    The end of a fresh interval lies between now and two intervals ago; within that 0 is as good as any. Beyond,
    the clocks differ by at least what is too much.
    """
    age_s = (received_at - newest).total_seconds()
    oldest_s = 2 * interval_s + _CLOCK_SLACK_S
    if age_s < 0:
        return -age_s
    return oldest_s - age_s if age_s > oldest_s else 0.0


def common_offset(offsets: Iterable[float]) -> float:
    """The offset of the whole cloud: the median, of two in the middle the smaller, so that no single host makes it."""
    ordered = sorted(offsets)
    if not ordered:
        return 0.0
    return min(ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2], key=abs)


class Refusal(Enum):
    """What a failed round says of the next one."""

    PASSES = auto()
    """The cloud cannot answer just now: it is heard again within an interval of its return."""
    FINAL = auto()
    """Nothing changes before somebody mends something."""
    LOGIN = auto()
    """Repeated slowly: accounts are locked after a few."""


def pause_s(failures: int, interval_s: float, refusal: Refusal, retry_after_s: float | None = None) -> float:
    """How long to leave a cloud alone after so many failures in a row; for as long as it asked for, within bounds."""
    first, longest = {
        Refusal.PASSES: (interval_s, interval_s),
        Refusal.FINAL: (interval_s, LONGEST_PAUSE_S),
        Refusal.LOGIN: (_AUTH_PAUSE_S, _LONGEST_AUTH_PAUSE_S),
    }[refusal]
    own_s = min(longest, first * 2.0 ** min(failures - 1, 10))
    return max(own_s, min(retry_after_s or 0.0, LONGEST_PAUSE_S))


def see_inventory(
    resource_id: UUID, samples: Sequence[Sample], known: Sequence[ClusterFacts]
) -> tuple[ClusterFacts, ...]:
    """The clusters of a round, by each one's newest sample; what their hosts are made of as it was known."""
    newest = _newest(samples)
    earlier = {host.host: host for cluster in known for host in cluster.hosts}
    return tuple(
        _facts(cluster_id(resource_id, reference), newest[reference], earlier) for reference in sorted(newest)
    )


def keep_absent(
    seen: Sequence[ClusterFacts], known: Sequence[ClusterFacts], absent: Mapping[str, int]
) -> tuple[ClusterFacts, ...]:
    """The inventory with those clusters that have not been missing for long enough."""
    there = {cluster.cluster for cluster in seen}
    kept = [
        cluster
        for cluster in known
        if cluster.cluster not in there and absent.get(cluster.cluster, 0) < ABSENT_ROUNDS
    ]
    return tuple(sorted([*seen, *kept], key=lambda cluster: cluster.cluster))


def count_absent(
    seen: Sequence[ClusterFacts], known: Sequence[ClusterFacts], absent: Mapping[str, int]
) -> dict[str, int]:
    """For every known cluster that is missing: for how many rounds in a row."""
    there = {cluster.cluster for cluster in seen}
    return {
        cluster.cluster: absent.get(cluster.cluster, 0) + 1
        for cluster in known
        if cluster.cluster not in there
    }


def with_hardware(
    clusters: Sequence[ClusterFacts], hardware: Iterable[HostHardware]
) -> tuple[ClusterFacts, ...]:
    """The clusters with what their hosts are made of. What is not told is left as it was known."""
    told = {one.host: one for one in hardware}
    return tuple(
        replace(cluster, hosts=tuple(_made_of(host, told.get(host.host)) for host in cluster.hosts))
        for cluster in clusters
    )


def _made_of(host: HostFacts, told: HostHardware | None) -> HostFacts:
    if told is None:
        return host
    return replace(
        host,
        cores=host.cores if told.cores is None else told.cores,
        threads=host.threads if told.threads is None else told.threads,
        numa_nodes=host.numa_nodes if told.numa_nodes is None else told.numa_nodes,
        gpus=host.gpus if told.gpus is None else told.gpus,
        gpu_models=host.gpu_models if told.gpus is None else told.gpu_models,
    )


def _newest(samples: Iterable[Sample]) -> dict[str, Sample]:
    return {sample.cluster: sample for sample in sorted(samples, key=lambda sample: sample.at)}


def _facts(identity: UUID, sample: Sample, earlier: Mapping[str, HostFacts]) -> ClusterFacts:
    hosts = []
    for index in sorted(range(len(sample.hosts)), key=lambda index: sample.hosts[index]):
        host, name = sample.hosts[index], sample.host_names[index]
        known = earlier.get(host) or HostFacts(host, name, 0.0, 0.0, 0)
        hosts.append(
            replace(
                known,
                name=name,
                cpu_capacity_mhz=_size(sample.cpu_capacity_mhz[index], known.cpu_capacity_mhz),
                memory_capacity_mib=_size(sample.memory_capacity_mib[index], known.memory_capacity_mib),
            )
        )
    return ClusterFacts(identity, sample.cluster, sample.name, tuple(hosts))


def _size(measured: float, known: float) -> float:
    """A host that is down may show no size: it keeps the one it had."""
    return measured if math.isfinite(measured) and measured > 0 else known
