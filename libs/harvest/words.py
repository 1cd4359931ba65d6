"""A decision's reason in words, with the numbers that bound it: what an administrator reads at 3 a.m."""

from collections.abc import Callable, Mapping

from libs.harvest.types import Decision, Policy, Reason, ReasonCode, Rung, Thresholds

_CONSEQUENCES = {
    Rung.FLOOR: "budgets at the floor",
    Rung.NO_NEW: "budgets at the floor, nothing new",
    Rung.SUSPEND: "machines suspended",
    Rung.DRAIN: "machines draining",
    Rung.DESTROY: "machines destroyed",
}
_FAULTS = {
    "future": "the sample is {value:.0f} s ahead of the clock",
    "interval": "the sample covers no possible interval",
    "columns": "the sample's columns do not have one value per host",
    "hosts_named_twice": "the sample does not name each host once",
    "capacity": "the CPU capacity is not a possible figure",
    "not_a_number": "the CPU use is not a number",
    "negative": "the CPU use is negative",
    "above_capacity": "the CPU use is far above the capacity",
    "ours_above_total": "our machines' CPU use is above the total",
}
_COMING = {
    "power_on": "a machine's start",
    "migration": "a machine's arrival",
    "backup": "a backup",
    "snapshot": "a snapshot",
    "maintenance": "maintenance",
    "calendar": "a busy time",
}
_EXPOSED = {
    "no_pools": "DRS was switched off in the cluster, which deleted our resource pool",
    "pool_gone": "our resource pool is gone: it was deleted, renamed or moved",
    "pool_altered": "our resource pool was edited and gives way to nobody",
    "outside_pool": "a machine of ours was moved out of our resource pool",
}


def explain(decision: Decision, policy: Policy, names: Mapping[str, str] | None = None) -> str:
    """One sentence without a full stop. `names` turns hosts' references into display names."""
    reason = decision.reason
    place = f" on {(names or {}).get(reason.host, reason.host)}" if reason.host is not None else ""
    because = _SENTENCES[reason.code](reason, policy, place) + _name_young(decision, policy)
    return f"{because}; {_name_consequence(decision)}"


def _name_young(decision: Decision, policy: Policy) -> str:
    reason, bound = decision.reason, decision.reason.bound
    if reason.code not in (ReasonCode.CAP, ReasonCode.QUOTA) or bound is None or decision.wanted <= bound:
        return ""
    return f", and what is younger than {policy.minimum_life_s:.0f} s lives on until then"


def _name_consequence(decision: Decision) -> str:
    if decision.reason.host is not None and decision.rung is Rung.LEND:
        told = (ReasonCode.NO_HEADROOM, ReasonCode.ANNOUNCED)
        held = "" if decision.reason.code in told else "its budget is at the floor, "
        return f"{held}{_name_lending(decision)}"
    return _CONSEQUENCES.get(decision.rung) or _name_lending(decision)


def _name_lending(decision: Decision) -> str:
    asleep = len(decision.suspend)
    full = f", {asleep} of them to be suspended on a host that is full" if asleep else ""
    return f"up to {decision.cap_mhz / 1000:.1f} GHz may be lent, {_machines(decision.wanted)} wanted{full}"


def _tell_owner(reason: Reason, policy: Policy, place: str) -> str:
    signal = "CPU" if reason.code is ReasonCode.OWNER_CPU else "memory"
    thresholds = policy.cpu if reason.code is ReasonCode.OWNER_CPU else policy.memory
    bound = f"{_name_threshold(thresholds, reason.bound)} {_percent(reason.bound)}"
    return f"owner {signal} {_percent(reason.value)} is above {bound}{place}"


def _name_threshold(thresholds: Thresholds | None, bound: float | None) -> str:
    if thresholds is None or bound is None or bound == thresholds.reclaim:
        return "reclaim"
    return "stop-new" if bound == thresholds.stop_new else "idle"


def _tell_impossible(reason: Reason, policy: Policy, place: str) -> str:
    what = _FAULTS.get(reason.signal, "the sample cannot be believed")
    return what.format(value=reason.value or 0.0) + place


def _tell_exposed(reason: Reason, policy: Policy, place: str) -> str:
    what = _EXPOSED.get(reason.signal, "our machines no longer give way by themselves")
    return f"{what}, so nothing but limits protects the owner's machines until it is mended"


def _tell_missing(reason: Reason, policy: Policy, place: str) -> str:
    if reason.signal == "never":
        return "nothing was ever heard of the cluster"
    return f"nothing heard for {_seconds(reason.value)}, longer than {_seconds(reason.bound)}"


def _tell_datastore(reason: Reason, policy: Policy, place: str) -> str:
    if reason.signal == "room":
        return f"the datastore has no room for a machine above {_percent(policy.datastore_free_min)} free"
    return f"datastore free {_percent(reason.value)} is below {_percent(reason.bound)}"


def _tell_no_headroom(reason: Reason, policy: Policy, place: str) -> str:
    if reason.signal == "ha_reserve":
        left = f"{(reason.value or 0) / 1024:.0f} GiB for a machine of {(reason.bound or 0) / 1024:.0f}"
        return f"beside the owner and what HA keeps free the hosts' memory leaves {left}"
    return f"no host has the budget for another machine: the best is {reason.value or 0:.0f} MHz{place}"


def _tell_lending(reason: Reason, policy: Policy, place: str) -> str:
    told = {
        "growing": f"{reason.value or 0:.0f} more wanted",
        "resuming": "suspended machines come back first",
        "full": "every host that can carry machines has its share of them",
    }
    return f"lending: {told[reason.signal]}" if reason.signal in told else "lending"


def _tell_hosts(reason: Reason, policy: Policy, place: str) -> str:
    if reason.signal == "none":
        return "the sample names no host"
    return f"none of {reason.bound or 0:.0f} hosts is connected"


def _tell_dwelling(reason: Reason, policy: Policy, place: str) -> str:
    return f"owner idle for {_seconds(reason.value)} of {_seconds(reason.bound)}"


def _tell_cooling_down(reason: Reason, policy: Policy, place: str) -> str:
    return f"resting for {_seconds(reason.value)} of {_seconds(reason.bound)} before the next step"


def _tell_announced(reason: Reason, policy: Policy, place: str) -> str:
    what = _COMING.get(reason.signal, "load")
    return f"{what} is announced{place or ' for every host'}, {_percent(reason.value)} of a host are kept free for it"


_SENTENCES: Mapping[ReasonCode, Callable[[Reason, Policy, str], str]] = {
    ReasonCode.LENDING: _tell_lending,
    ReasonCode.DWELLING: _tell_dwelling,
    ReasonCode.COOLING_DOWN: _tell_cooling_down,
    ReasonCode.OWNER_CPU: _tell_owner,
    ReasonCode.OWNER_MEMORY: _tell_owner,
    ReasonCode.NO_HEADROOM: _tell_no_headroom,
    ReasonCode.CAP: lambda reason, policy, place: f"the cap of {_machines(policy.max_machines)} is reached",
    ReasonCode.QUOTA: lambda reason, policy, place: f"the quota of {_machines(reason.bound or 0)} is reached",
    ReasonCode.DATASTORE: _tell_datastore,
    ReasonCode.WINDOW: lambda reason, policy, place: f"outside the lending windows ({policy.time_zone})",
    ReasonCode.PAUSED: lambda reason, policy, place: (
        f"paused: {reason.signal}" if reason.signal else "paused"
    ),
    ReasonCode.DRAINING: lambda reason, policy, place: "the resource is being released",
    ReasonCode.MISSING: _tell_missing,
    ReasonCode.IMPOSSIBLE: _tell_impossible,
    ReasonCode.STALE: lambda reason, policy, place: (
        f"the newest sample is {_seconds(reason.value)} old, more than {_seconds(reason.bound)}"
    ),
    ReasonCode.HOSTS: _tell_hosts,
    ReasonCode.EXPOSED: _tell_exposed,
    ReasonCode.ANNOUNCED: _tell_announced,
}


def _machines(count: float) -> str:
    return "1 machine" if count == 1 else f"{count:.0f} machines"


def _percent(value: float | None) -> str:
    return "?" if value is None else f"{value * 100:.3g} %"


def _seconds(value: float | None) -> str:
    return "?" if value is None else f"{value:.0f} s"
