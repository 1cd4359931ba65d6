"""Load that is announced: what of a host is kept free for it, from before it begins until it shows in the samples."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from libs.common.contracts.usage import Announced, Coming

LEAD_S = 120.0
"""How long before it begins room is made: two slow samples."""
SETTLE_S = 300.0
"""How long after it began: then it shows in the level and in the spread."""
_SHARES: Mapping[Coming, float] = {
    Coming.POWER_ON: 0.15,
    Coming.MIGRATION: 0.15,
    Coming.BACKUP: 0.20,
    Coming.SNAPSHOT: 0.10,
    Coming.MAINTENANCE: 1.0,
    Coming.CALENDAR: 0.30,
}
"""Of a host, where the announcement does not say how much."""
_LASTING = frozenset({Coming.MAINTENANCE, Coming.CALENDAR, Coming.BACKUP})
"""What keeps its room until it ends: its load comes and goes."""
EVERYWHERE = ""


def reserve(coming: Sequence[Announced], now: datetime) -> dict[str, tuple[float, Coming]]:
    """The share of each host that is kept free now and the most of it is for; under EVERYWHERE what counts for all.

    Announcements of one host add up, to no more than all of it. What cannot be read counts as all of a host.
    """
    reserved: dict[str, tuple[float, Coming]] = {}
    shares = sorted(
        (each.host or EVERYWHERE, _share(each), each.kind) for each in coming if _counts(each, now)
    )
    for host, share, kind in shares:
        before = reserved.get(host, (0.0, kind))[0]
        reserved[host] = (min(1.0, before + share), kind)
    return reserved


def reserved_on(host: str, reserved: Mapping[str, tuple[float, Coming]]) -> float:
    """The share of a host that is kept free."""
    if not reserved:
        return 0.0
    return min(1.0, reserved.get(host, (0.0, None))[0] + reserved.get(EVERYWHERE, (0.0, None))[0])


def _counts(each: Announced, now: datetime) -> bool:
    """Whether room is kept for it now."""
    ahead_s = (_aware(each.begins_at) - now).total_seconds()
    if ahead_s > LEAD_S:
        return False
    if each.ends_at is None or each.kind not in _LASTING:
        return ahead_s >= -SETTLE_S
    return _aware(each.ends_at) > now


def _share(each: Announced) -> float:
    if each.share is None:
        return _SHARES[each.kind]
    return min(1.0, max(0.0, each.share)) if math.isfinite(each.share) else 1.0


def _aware(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time
