"""Which performance counters are read, and in what numbers this server takes questions about them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pyVmomi import vim, vmodl

from libs.providers.base import Cause, Unavailable
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.settings import NATIVE_INTERVAL_S
from libs.providers.vsphere.soap import MOST_METRICS, Line, Question, Readings, Ref

MOST_SAMPLES = 180
"""An hour: what hosts keep of their real-time statistics."""

CPU_MHZ = "cpu.usagemhz.average"
CPU_READY_MS = "cpu.ready.summation"
CPU_COSTOP_MS = "cpu.costop.summation"
MEMORY_KIB = "mem.consumed.average"
ACTIVE_KIB = "mem.active.average"
BALLOON_KIB = "mem.vmmemctl.average"
SWAPPED_KIB = "mem.swapped.average"
_MOST_METRICS_KEY = "config.vpxd.stats.maxQueryMetrics"


@dataclass(frozen=True, slots=True)
class Counters:
    """Ids of the counters by name, as this server numbers them, and how many metrics a query may ask for."""

    ids: dict[str, int]
    most_metrics: int = MOST_METRICS

    def known(self, *names: str) -> list[str]:
        """Those of these counters that this server has."""
        return [name for name in names if name in self.ids]

    def named(self, names: Iterable[str]) -> dict[int, str]:
        """Ids of these counters. Raises Unavailable when the server lacks one."""
        try:
            return {self.ids[name]: name for name in names}
        except KeyError as missing:
            raise Unavailable(Cause.INVALID, f"this server has no performance counter {missing}") from None


def read_counters(api: Api) -> Counters:
    """The catalogue, read once per session: ids differ between servers."""
    found = api.content.perfManager.perfCounter
    ids = {f"{item.groupInfo.key}.{item.nameInfo.key}.{item.rollupType}": int(item.key) for item in found}
    return Counters(ids, _read_most_metrics(api))


def _read_most_metrics(api: Api) -> int:
    """The server's own bound where the account may read it, and never more than is usual."""
    try:
        options = api.content.setting.QueryOptions(_MOST_METRICS_KEY)
        most = int(options[0].value)
    except vim.fault.NotAuthenticated:
        raise
    except (vmodl.MethodFault, AttributeError, IndexError, TypeError, ValueError):
        return MOST_METRICS
    return min(MOST_METRICS, most) if most > 0 else MOST_METRICS


async def query(
    line: Line, counters: Counters, names: Iterable[str], entities: Sequence[Ref], samples: int
) -> Readings:
    """The newest `samples` real-time values of each entity."""
    count = max(1, min(MOST_SAMPLES, samples))
    question = Question(counters.named(names), NATIVE_INTERVAL_S, count, counters.most_metrics)
    return await line.query(question, entities)
